"""Prompts for small models: turns of an example before the question, and nothing of the example in what is learned."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from scripted import World, model_settings

from resd.context.parts import ROLES, Role
from resd.context.playbook import Playbook
from resd.context.reflect import Reflector
from resd.context.render import Prompts, turns
from resd.context.shorten import Budget
from resd.context.teacher_prompt import Parts, TeacherPrompt
from resd.model.chat import Chat
from resd.types import Attempt, Problem, Reflection, UserError, Verdict

SMALL = Prompts("small", "reply")
LESSONS = [
    "Every loaf must rest for an hour.",
    "The butter must be cold.",
    "The soup must have at most two spoons of salt.",
]
TOPICS = re.compile(r"loaf|loaves|butter|dough|soup|salt|spoon|dish|knead|bak(e|ing)|90001|90002", re.IGNORECASE)


def attempt(feedback: str, response: str = "RESPONSE", reflection: str | None = None) -> Attempt:
    verdict = Verdict(float(not feedback), not feedback, 0, 1, feedback)
    lesson = None if reflection is None else Reflection(reflection)
    prompt = [{"role": "user", "content": "PROBLEM"}]
    return Attempt("0/p", Problem("p", ""), prompt, "", [], [], [], response, False, verdict, lesson)


@pytest.fixture
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


@pytest.mark.parametrize("role", ROLES)
def test_an_example_is_turns_that_its_format_reads(role: Role) -> None:
    example = turns("small", role)
    assert [turn["role"] for turn in example] == ["user", "assistant"] * (len(example) // 2)
    assert len(example) >= 2
    read = {
        "reflect": SMALL.format.parse_reflection,
        "tag": SMALL.format.parse_tags,
        "curate": SMALL.format.parse_operations,
    }[role]
    for turn in example[1::2]:
        assert read(turn["content"]).invalid == 0
    assert "==" not in "".join(turn["content"] for turn in example)


@pytest.mark.parametrize("role", ROLES)
def test_the_example_shows_the_question_as_it_is_asked(role: Role) -> None:
    asked = {
        "reflect": SMALL.reflect("PROBLEM", "RESPONSE", "F", "str-00001: x"),
        "tag": SMALL.tag("PROBLEM", "RESPONSE", "str-00001: x"),
        "curate": SMALL.curate("L", "str-00001: x"),
    }[role]
    shown = "\n".join(turn["content"] for turn in turns("small", role) if turn["role"] == "user")
    shown = shown.replace("dish", "reply").replace("Dish", "Reply")
    kinds = [re.sub(r": .*| does .*", "", line) for line in (*asked.splitlines(), *shown.splitlines())]
    assert set(kinds[: len(asked.splitlines())]) - {"str-00001"} <= set(kinds[len(asked.splitlines()) :])


def test_who_reflects_sees_no_rules() -> None:
    """Half a billion parameters repeat a rule that is in sight, whatever the complaint."""
    assert SMALL.reflect("PROBLEM", "RESPONSE", "FEEDBACK", "str-00001: A rule.") == "Complaint: FEEDBACK\n"
    assert not any("Rules" in turn["content"] or "str-" in turn["content"] for turn in turns("small", "reflect"))


def test_the_curator_only_puts_a_lesson_into_form() -> None:
    """Half a billion parameters that see rules, or an example of adding none, add none at all: what repeats the
    playbook is told by code (`novelty`)."""
    asked, said = ([turn["content"] for turn in turns("small", "curate")][start::2] for start in (0, 1))
    assert not any("Rules:" in question for question in [*asked, SMALL.curate("LESSON", "str-00001: A rule.")])
    assert said == ["add strategies: " + question.partition("Lesson: ")[2] for question in asked]


def test_the_other_styles_have_no_example() -> None:
    for style in ("full", "compact"):
        for role in ROLES:
            question = Prompts(style, "reply").question(role, "k", "TEXT")
            assert question.messages == [{"role": "user", "content": "TEXT"}]
            assert Prompts(style, "reply").taken(role, len) == 0
    assert [message["role"] for message in SMALL.question("tag", "k", "TEXT").messages] == ["user", "assistant", "user"]


def test_reflection_reads_the_feedback_or_else_the_attempt() -> None:
    assert SMALL.reflect("PROBLEM", "RESPONSE", "F", "R") == "Complaint: F\n"
    assert "RESPONSE" in SMALL.reflect("PROBLEM", "RESPONSE", "")


def test_the_teacher_reads_rules_without_ids_and_the_problem_last() -> None:
    playbook = Playbook()
    playbook.add("strategies", "Be: brief", 1)
    composed = TeacherPrompt(SMALL, Parts(previous_trial=False), 1000, len).compose(
        attempt("FEEDBACK", reflection="LESSON"), playbook.render("small"), None
    )
    assert composed is not None
    (message,) = composed.messages
    assert message["content"] == ("Rules for every reply:\n- Be: brief\n\nLESSON\nFEEDBACK\n\nPROBLEM")
    assert not TOPICS.search(message["content"])


def test_what_a_model_repeats_of_the_example_is_not_learned() -> None:
    for lesson in LESSONS:
        assert SMALL.reflection(f"lesson: {lesson.upper()}\nhelpful: str-90001") == Reflection("", {}, 1)
        read = SMALL.operations(f"add strategies: {lesson.rstrip('.')}\nadd strategies: Own rule.")
        assert ([operation.text for operation in read.operations], read.invalid) == (["Own rule."], 1)
    assert SMALL.reflection("lesson: Own rule.\nhelpful: str-00001").tags == {"str-00001": "helpful"}
    assert Prompts("compact", "reply").reflection(f"lesson: {LESSONS[0]}").text == LESSONS[0]


@pytest.mark.parametrize("echoes", [True, False])
def test_nothing_of_the_example_reaches_playbook_or_teacher(chat: Chat, tmp_path: Path, echoes: bool) -> None:
    lessons = [f"lesson: {text}" for text in LESSONS] if echoes else ["lesson: Begin with right."]
    adds = [f"add strategies: {text}" for text in LESSONS[:2]] if echoes else ["add strategies: Begin with right."]
    script = {
        "one": "wrong",
        "two": ["wrong", "wrong", "right"],
        "reflect": lessons,
        "curate": adds,
        "tag": "helpful: str-00001",
    }
    world = World(tmp_path, chat, "resd", script, prompts="small", writing__max_prompt=4000)
    for _ in range(4):
        attempts = world.update("one", "two")
        for each in attempts:
            assert not TOPICS.search(world.teacher(each) or "")
        assert not TOPICS.search("\n".join(world.counters()))
    assert world.asked("reflect")
    assert world.counters() == ({} if echoes else {"Begin with right.": (2, 0)})


@pytest.mark.parametrize("again", ["", "lesson:"])
def test_what_a_model_writes_is_begun_for_it(chat: Chat, tmp_path: Path, again: str) -> None:
    """A student that has learned to begin replies with "Desk:" would begin its lessons so, and none could be read."""
    script = {"one": "wrong", "reflect": f"{again} Begin with right.", "curate": " Begin with right."}
    world = World(tmp_path, chat, "resd", script, prompts="small", writing__max_prompt=4000)
    (failed,) = world.update("one")
    assert failed.reflection is not None
    assert (failed.reflection.text, failed.reflection.invalid) == ("Begin with right.", 0)
    assert list(world.counters()) == ["Begin with right."]
    for role, begun in (("reflect", "lesson:"), ("curate", "add strategies:")):
        (asked,) = [each for each in world.engine.asked if each.role == role]
        ids = chat.encode(begun)
        assert asked.request.prompt_ids[-len(ids) :] == ids


def test_a_question_fits_with_its_example(chat: Chat) -> None:
    budget = Budget(chat.room(1500), chat.count)
    question = Reflector(lambda questions: [], SMALL, budget).question(attempt("long feedback " * 500), Playbook())
    assert question.truncated
    assert 1300 < len(chat.ids(question.messages)) <= 1500


def test_every_example_has_room_in_a_template(chat: Chat) -> None:
    for role in ROLES:
        question = SMALL.question(role, "k", "TEXT")
        assert len(chat.ids(question.messages)) <= SMALL.taken(role, chat.count) + len(
            chat.ids([{"role": "user", "content": "TEXT"}])
        )


def test_they_ask_for_lines() -> None:
    from resd.context.json_format import JsonFormat

    with pytest.raises(UserError, match="small prompts ask for lines"):
        Prompts("small", "reply", JsonFormat())


def test_roles_alternate_for_templates_that_want_it() -> None:
    for role in ROLES:
        messages = SMALL.question(role, "k", "TEXT").messages
        assert all(one["role"] != other["role"] for one, other in pairwise(messages))
