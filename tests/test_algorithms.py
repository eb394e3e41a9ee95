"""RESD's loop, verb by verb, with a model that follows a script: who reads what, and what is learned."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from scripted import CUT, LOGPROB, SAMPLING, Judge, Line, World, model_settings, prompt, said

from resd.model.chat import Chat
from resd.types import Problem

A_RULE, B_RULE = "check the end", "read it twice"
ADD = f"add err: {A_RULE}"
A = f"err-00001: {A_RULE}"
SCRIPT: dict[str, Line] = {
    "one": "wrong",
    "two": "bad",
    "three": "right three",
    "reflect": lambda text: f"lesson: about {text.partition('solve ')[2].split()[0]}",
    "tag": "neutral: err-00001",
    "curate": ADD,
}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def test_the_teacher_reads_the_playbook_as_it_is_after_curation(chat: Chat, tmp_path: Path) -> None:
    lessons = ["add heu: first lesson here\nadd err: second lesson here", "add ctx: third lesson here"]
    world = World(tmp_path, chat, "resd", SCRIPT | {"curate": lessons})
    [attempt] = world.update("one")
    rules = "heu-00001: first lesson here\nerr-00002: second lesson here"
    assert world.asked("reflect") == [prompt("one", "", "wrong", "one is not wrong", ending="write the lesson")]
    assert world.asked("curate") == ["lesson:\nabout one\nadd new rules"]
    assert world.teacher(attempt) == prompt("one", rules, "wrong", "one is not wrong", "about one")
    [attempt] = world.update("one")
    assert world.asked("reflect") == [prompt("one", rules, "wrong", "one is not wrong", ending="write the lesson")]
    assert world.asked("curate") == [f"rules:\n{rules}\nlesson:\nabout one\nadd new rules"]
    rules += "\nctx-00003: third lesson here"
    assert world.teacher(attempt) == prompt("one", rules, "wrong", "one is not wrong", "about one")
    assert [event["text"] for event in world.events("add")] == [
        f"{n} lesson here" for n in ("first", "second", "third")
    ]


def test_what_is_known_about_an_attempt_is_read_before_it_and_before_no_other(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "resd", SCRIPT)
    one, two, three = world.update("one", "two", "three")
    assert world.teacher(one) == prompt("one", A, "wrong", "one is not wrong", "about one")
    assert world.teacher(two) == prompt("two", A, "bad", "two is not bad", "about two")
    assert world.teacher(three) == prompt("three", A, "right three", solution="right three")
    assert [a.sample for a in (one, two, three)] == world.learned


def test_a_sample_is_what_the_student_was_asked_and_said(chat: Chat, tmp_path: Path) -> None:
    for name in ("resd", "sdpo", "sdpo_ss", "grpo"):
        world = World(tmp_path, chat, name, SCRIPT | {"one": ["wrong", "right"]}, group=2)
        attempts = world.update("one", "three")
        assert len(world.learned) == 4
        for attempt, sample in zip(attempts, world.learned, strict=True):
            assert said(chat, sample.prompt_ids) == attempt.problem.statement
            assert chat.decode(sample.response_ids) == attempt.response
            assert sample.response_ids[-1] == chat.eos_ids[0]
            assert sample.sampled_logprobs == [LOGPROB] * len(sample.response_ids)
            assert sample.mask is None
        assert [a.response for a in attempts] == ["wrong", "right", "right three", "right three"]


def test_the_student_never_reads_the_playbook(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "resd", SCRIPT)
    for _ in range(3):
        world.update("one", "three")
        assert world.asked("try") == ["solve one", "solve three"]
    assert world.counters()


def test_a_solution_of_an_earlier_update_is_read_later(chat: Chat, tmp_path: Path) -> None:
    tries = {"one": ["right one", "wrong", "right again", "wrong"], "two": "bad"}
    world = World(tmp_path, chat, "resd", SCRIPT | tries)
    world.update("one")
    one, two = world.update("one", "two")
    assert world.teacher(one) == prompt("one", A, "wrong", "", "about one", "right one")
    assert world.teacher(two) == prompt("two", A, "bad", "two is not bad", "about two")
    world.update("one")
    assert world.observation.metrics["solutions"] == 1
    other = World(tmp_path, chat, "resd", SCRIPT)
    other.algorithm.restore(world.algorithm.state())
    other.run.journal.step = world.run.step
    for continued in (world, other):
        [one] = continued.update("one")
        assert continued.teacher(one) == prompt("one", A, "wrong", "", "about one", "right again")


def test_a_sibling_s_success_is_the_solution_of_a_failure(chat: Chat, tmp_path: Path) -> None:
    tries = {"one": ["wrong", "right first", "right second", "bad"], "two": "bad"}
    world = World(tmp_path, chat, "resd", SCRIPT | tries, group=4)
    attempts = world.update("one", "two")
    solutions = [(world.teacher(a) or "").partition("solution:\n")[2].partition("\n")[0] for a in attempts]
    assert solutions == ["right first", "right first", "right second", "right first", "", "", "", ""]
    assert len(world.asked("reflect")) == 6
    assert len(world.asked("curate")) == 2  # the first failure of each problem


def test_without_self_success_a_success_has_no_teacher_but_helps_its_siblings(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "resd", SCRIPT | {"one": ["wrong", "right"]}, group=2, distil_self_success=False)
    wrong, right = world.update("one")
    assert world.teacher(right) is None
    assert world.teacher(wrong) == prompt("one", A, "wrong", "", "about one", "right")


@pytest.mark.parametrize("tag_successes", [True, False])
def test_tags_change_the_counters_that_they_name(chat: Chat, tmp_path: Path, tag_successes: bool) -> None:
    tags = {
        "curate": ["add err: first rule here\nadd err: second rule here\nadd err: third rule here", "none"],
        "reflect": ["lesson: nothing yet", "lesson: again\nharmful: err-00002 err-00009\nneutral: err-00003"],
        "tag": "helpful: err-00001\nharmful: err-00008 err-00007",
    }
    world = World(tmp_path, chat, "resd", SCRIPT | tags, tag_successes=tag_successes)
    world.update("one", "three")
    assert world.asked("tag") == []  # an empty playbook has nothing to tag
    assert set(world.counters().values()) == {(0, 0)}
    assert world.metrics["tag/invalid"] == 0
    world.update("one", "three", "three")
    rules = "\n".join(f"err-0000{i}: {n} rule here" for i, n in enumerate(("first", "second", "third"), 1))
    asked = [prompt("three", rules, solution="right three", ending="tag the rules")]
    assert world.asked("tag") == (asked if tag_successes else [])
    helpful = int(tag_successes)
    assert list(world.counters().values()) == [(helpful, 0), (0, 1), (0, 0)]
    assert world.metrics["tag/invalid"] == 1 + 2 * helpful
    assert (world.metrics["playbook/helpful"], world.metrics["playbook/harmful"]) == (helpful, 1)
    told = [(event["id"], event["tag"], event["step"], event["attempt"]) for event in world.events("tag")]
    own = [("err-00002", "harmful", 2, "2/one/0"), ("err-00003", "neutral", 2, "2/one/0")]
    assert told == own + ([("err-00001", "helpful", 2, "2/three/0")] if tag_successes else [])


@pytest.mark.parametrize("pipelined", [False, True])
def test_the_playbook_is_pruned_before_anyone_reads_it(chat: Chat, tmp_path: Path, pipelined: bool) -> None:
    lines = {
        "curate": [ADD, f"add err: {B_RULE}"],
        "reflect": ["lesson: a", "lesson: b\nharmful: err-00001", "lesson: c"],
    }
    world = World(tmp_path, chat, "resd", SCRIPT | lines, playbook__frequency=2, pipelined=pipelined)
    for _ in range(3):
        [attempt] = world.update("one")
    assert len(world.asked("reflect")) == 1
    assert world.asked("reflect")[0].startswith(f"rules:\nerr-00002: {B_RULE}\ntask")
    assert world.asked("curate")[0].startswith(f"rules:\nerr-00002: {B_RULE}\nlesson")
    assert A_RULE not in (world.teacher(attempt) or "")
    [removal] = world.events("remove")
    assert (removal["id"], removal["reason"], removal["step"]) == ("err-00001", "harmful", 3)
    assert (world.metrics["playbook/removed"], world.metrics["playbook/size"]) == (1, 1)


@pytest.mark.parametrize("trim", [True, False])
def test_the_budget_holds_after_curation_if_it_is_to(chat: Chat, tmp_path: Path, trim: bool) -> None:
    many = "\n".join(f"add err: rule number {i}" for i in range(5))
    settings: dict[str, Any] = {"playbook__max_entries": 3, "playbook__trim_after_curation": trim}
    world = World(tmp_path, chat, "resd", SCRIPT | {"curate": [many, "none"]}, **settings)
    [attempt] = world.update("one")
    read = (world.teacher(attempt) or "").count("rule number")
    assert read == world.metrics["playbook/size"] == (3 if trim else 5)
    assert (world.metrics["playbook/added"], world.metrics["playbook/removed"]) == (5, 2 if trim else 0)
    world.update("one")
    assert world.asked("reflect")[0].count("rule number") == 3  # without trimming the limit is enforced here
    assert world.metrics["playbook/removed"] == (0 if trim else 2)
    kept = {line.split(":")[0] for line in world.asked("reflect")[0].splitlines() if "rule number" in line}
    assert kept == {f"err-0000{i}" for i in range(1, 6)} - {event["id"] for event in world.events("remove")}


@pytest.mark.parametrize("method", ["prioritized", "staleness", "reset"])
def test_what_is_pruned_follows_the_method(chat: Chat, tmp_path: Path, method: str) -> None:
    tags = ["lesson: a", "lesson: b\nhelpful: err-00001", "lesson: c"]
    lines = {"curate": [ADD, f"add err: {B_RULE}", "none"], "reflect": tags}
    world = World(tmp_path, chat, "resd", SCRIPT | lines, playbook__concise=method, playbook__frequency=2)
    for _ in range(3):
        world.update("one")
    left = {"prioritized": [A_RULE], "staleness": [A_RULE, B_RULE], "reset": []}
    assert list(world.counters()) == left[method]


SWITCHES = {
    "playbook": A,
    "previous_trial": "wrong",
    "feedback": "one is not wrong",
    "reflection": "about one",
    "solution": "right before",
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_takes_one_part_from_the_teacher(chat: Chat, tmp_path: Path, switch: str) -> None:
    tries = {"one": ["right before", "wrong"]}
    changes: dict[str, Any] = {"teacher_prompt__feedback_with_solution": True, f"teacher_prompt__{switch}": False}
    world = World(tmp_path, chat, "resd", SCRIPT | tries, **changes)
    world.update("one")
    [attempt] = world.update("one")
    left = {name: "" if name == switch else text for name, text in SWITCHES.items()}
    expected = prompt(
        "one", left["playbook"], left["previous_trial"], left["feedback"], left["reflection"], left["solution"]
    )
    assert world.teacher(attempt) == expected
    assert len(world.asked("reflect")) == len(world.asked("curate")) == 1  # the loop itself goes on


def test_nothing_privileged_is_no_teacher(chat: Chat, tmp_path: Path) -> None:
    off = {f"teacher_prompt__{name}": False for name in ("feedback", "reflection", "solution")}
    world = World(tmp_path, chat, "resd", SCRIPT, **off)
    attempts = world.update("one", "three")
    assert [world.teacher(a) for a in attempts] == [None, None]
    assert len(world.learned) == 2  # they count in the average


def test_success_weights_follow_equation_2(chat: Chat, tmp_path: Path) -> None:
    for name in ("resd", "sdpo"):
        changes: dict[str, Any] = {"success_weighting__enabled": True, "success_weighting__a": 2.0}
        world = World(tmp_path, chat, name, SCRIPT | {"four": "wrong"}, success_weighting__b=0.5, **changes)
        attempts = world.update("one", "two", "three", "four")
        raw = [0.25**0.5, 0.25**0.5, 0.75**2, 0.25**0.5]
        expected = [4 * value / sum(raw) for value in raw]
        assert [s.weight for s in world.learned] == pytest.approx(expected)
        assert [a.sample.weight for a in attempts if a.sample] == pytest.approx(expected)
        plain = World(tmp_path, chat, name, SCRIPT, success_weighting__enabled=False)
        plain.update("one", "three")
        assert [s.weight for s in plain.learned] == [1.0, 1.0]


def test_lost_verdicts_are_counted_and_nothing_else(chat: Chat, tmp_path: Path) -> None:
    for name in ("resd", "sdpo", "grpo"):
        world = World(tmp_path, chat, name, SCRIPT | {"one": ["lost", "wrong", "right"]}, group=3)
        attempts = world.update("one")
        assert [a.response for a in attempts] == ["wrong", "right"]
        assert [chat.decode(s.response_ids) for s in world.learned] == ["wrong", "right"]
        assert (world.metrics["verify/lost"], world.metrics["rollout/lost"]) == (1, 0)
        assert world.metrics["interactions"] == 3
        assert world.metrics["train/per_task"] == 0.5
        assert not any("lost" in asked.text for asked in world.engine.asked)


def test_interactions_add_up(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "resd", SCRIPT, group=2)
    for updates in (1, 2, 3):
        world.update("one", "three")
        assert world.metrics["interactions"] == 4 * updates


def test_a_prompt_beyond_the_limit_is_not_tried(chat: Chat, tmp_path: Path) -> None:
    for name in ("resd", "sdpo", "grpo"):
        world = World(tmp_path, chat, name, SCRIPT, group=2)
        attempts = world.update("one", "x" * 1000, "two")
        assert [a.problem.id for a in attempts] == ["one", "one", "two", "two"]
        assert (world.metrics["rollout/lost"], world.metrics["interactions"]) == (2, 4)
        assert len(world.asked("try")) == 4


def test_a_problem_that_fills_the_teacher_s_prompt_has_no_teacher(chat: Chat, tmp_path: Path) -> None:
    long = "x" * 300
    for name in ("resd", "sdpo"):
        world = World(tmp_path, chat, name, SCRIPT, teacher_prompt__max_tokens=250)
        one, other, _ = world.update("one", long, "two")
        assert (world.metrics["teacher/too_long"], world.metrics["teacher/truncated"]) == (1, 0)
        assert world.teacher(other) is None
        assert "one is not wrong" in (world.teacher(one) or "")
        assert len(world.learned) == 3


def test_a_teacher_s_prompt_is_shortened_to_its_limit(chat: Chat, tmp_path: Path) -> None:
    lines = "\n".join(f"line {i}" for i in range(60))
    room = 300
    world = World(tmp_path, chat, "resd", SCRIPT | {"one": lines, "two": "bad"}, teacher_prompt__max_tokens=room)
    world.engine.script["reflect"] = "lesson: short"
    attempts = world.update("one", "two")
    assert world.metrics["teacher/truncated"] == 1  # the feedback quotes the response
    for attempt in attempts:
        assert attempt.sample is not None
        assert len(attempt.sample.teacher_prompt_ids or ()) <= room
    assert len(chat.encode(attempts[0].teacher_prompt or "")) > room - 20


def test_seeds_differ_between_attempts_roles_updates_and_runs(chat: Chat, tmp_path: Path) -> None:
    def seeds(seed: int) -> list[int]:
        world = World(tmp_path, chat, "resd", SCRIPT, group=2, seed=seed)
        found = []
        for _ in range(2):
            world.update("one", "three")
            found += [asked.request.seed for asked in world.engine.asked]
        return found

    assert len(set(seeds(7) + seeds(8))) == 2 * len(seeds(7))
    assert seeds(7) == seeds(7)


def test_requests_keep_to_the_limits_of_their_setting(chat: Chat, tmp_path: Path) -> None:
    writing = SAMPLING.model_dump() | {"max_response": 50, "temperature": 0.3, "top_p": 0.4}
    world = World(tmp_path, chat, "resd", SCRIPT, writing=writing)
    world.update("one", "three")
    world.update("one", "three")
    for asked in world.engine.asked:
        limits = (asked.request.max_tokens, asked.request.temperature, asked.request.top_p)
        assert limits == ((200, 0.9, 0.8) if asked.role == "try" else (50, 0.3, 0.4))
    assert {asked.role for asked in world.engine.asked} == {"try", "reflect", "tag", "curate"}


def test_a_question_beyond_the_limit_is_shortened_and_counted(chat: Chat, tmp_path: Path) -> None:
    writing = SAMPLING.model_dump() | {"max_prompt": 120}
    long = "wrong " * 30
    world = World(tmp_path, chat, "resd", SCRIPT | {"one": long}, writing=writing)
    one, two = world.update("one", "two")
    assert (world.metrics["reflect/truncated"], world.metrics["reflect/too_long"]) == (1, 0)
    assert len(world.asked("reflect")) == 2
    assert max(len(asked.request.prompt_ids) for asked in world.engine.asked if asked.role == "reflect") <= 120
    assert one.reflection is not None
    assert two.reflection is not None


def test_a_lesson_beyond_the_limit_is_shortened_for_the_curator(chat: Chat, tmp_path: Path) -> None:
    writing = SAMPLING.model_dump() | {"max_prompt": 120}
    world = World(tmp_path, chat, "resd", SCRIPT | {"reflect": "lesson: " + "look at it " * 40}, writing=writing)
    world.update("one")
    assert (world.metrics["curate/truncated"], world.metrics["curate/too_long"]) == (1, 0)
    [asked] = [asked for asked in world.engine.asked if asked.role == "curate"]
    assert len(asked.request.prompt_ids) <= 120


def test_a_question_whose_problem_is_too_long_is_counted_and_not_asked(chat: Chat, tmp_path: Path) -> None:
    writing = SAMPLING.model_dump() | {"max_prompt": 40}
    world = World(tmp_path, chat, "resd", SCRIPT, writing=writing)
    one, two = world.update("one", "two")
    assert (world.metrics["reflect/too_long"], world.metrics["reflect/invalid"]) == (2, 2)
    assert world.asked("reflect") == []
    assert one.reflection is two.reflection is None
    assert world.teacher(one) is not None


def test_a_loss_says_that_thinking_never_ended(thinking: Chat, tmp_path: Path) -> None:
    lines = {"one": "so</think>wrong", "two": "so</think>right", "reflect": ["well</think>lesson: a b", "well and"]}
    world = World(tmp_path, thinking, "resd", SCRIPT | lines | {"three": "so</think>wrong"})
    first, _, last = world.update("one", "two", "three")
    assert (world.metrics["reflect/thinking_cut"], world.metrics["reflect/invalid"]) == (1, 1)
    assert [attempt.reflection and attempt.reflection.text for attempt in (first, last)] == ["a b", ""]


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_statement_that_was_cut_off_is_none(chat: Chat, tmp_path: Path, pipelined: bool) -> None:
    """A model that repeats itself up to the limit would fill playbook and teacher's prompt with that."""
    lines: dict[str, Line] = {
        "reflect": ["lesson: whole\nlesson: and then" + CUT, f"lesson: and then and then{CUT}"],
        "curate": f"add err: first rule here\nadd err: and then{CUT}",
    }
    world = World(tmp_path, chat, "resd", SCRIPT | lines, pipelined=pipelined)
    one, two = world.update("one", "two")
    assert [attempt.reflection and attempt.reflection.text for attempt in (one, two)] == ["whole", ""]
    assert (world.metrics["reflect/cut"], world.metrics["reflect/invalid"]) == (2, 1)
    assert (world.metrics["curate/cut"], list(world.counters())) == (1, ["first rule here"])


def test_unusable_answers_are_counted(chat: Chat, tmp_path: Path) -> None:
    lines = {
        "reflect": ["lesson: fine", "helpful: err-00001 nonsense"],
        "curate": f"{ADD}\n{ADD}\nhello",
        "tag": "what",
    }
    world = World(tmp_path, chat, "resd", SCRIPT | lines)
    world.update("one")
    assert (world.metrics["curate/invalid"], world.metrics["curate/duplicates"]) == (1, 1)
    assert world.metrics["reflect/invalid"] == 0
    assert world.metrics["playbook/added"] == 1
    world.update("one", "three")
    assert world.metrics["reflect/invalid"] == 2  # no lesson, and a word that is no id
    assert world.metrics["tag/invalid"] == 1
    assert world.counters() == {A_RULE: (1, 0)}


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_pipelined_run_learns_the_same(chat: Chat, tmp_path: Path, group: int) -> None:
    tries = {"one": ["wrong", "right", "wrong", "wrong"], "two": ["bad", "lost", "right", "bad"]}
    found = []
    for pipelined in (False, True):
        folder = tmp_path / str(pipelined)
        folder.mkdir()
        script = SCRIPT | {name: list(lines) for name, lines in tries.items()}
        world = World(folder, chat, "resd", script, group=group, pipelined=pipelined)
        for _ in range(2):
            world.update("one", "two", "three")
            asked = {(asked.role, asked.text, asked.request.seed) for asked in world.engine.asked}
            found.append((asked, len(world.engine.asked), world.learned, world.metrics, world.algorithm.state()))
    for plain, piped in zip(found[:2], found[2:], strict=True):
        assert piped == plain  # each question once, and none in vain


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    """A chat whose template opens the thinking."""
    folder = tmp_path_factory.mktemp("thinking")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
    tokenizer.save_pretrained(folder)
    return Chat(model_settings(str(folder)))


def test_thinking_is_asked_for_and_never_shown(thinking: Chat, tmp_path: Path) -> None:
    lines: dict[str, Line] = {
        "one": ["thought</think>wrong", "thought</think>right one", "only thought"],
        "reflect": ["thought</think>lesson: about it", "lesson: only thought"],
        "curate": ["add err: only thought here", f"thought</think>{ADD}"],
        "tag": ["helpful: err-00001", "thought</think>helpful: err-00001"],
    }
    world = World(tmp_path, thinking, "resd", lines)
    [attempt] = world.update("one")
    assert world.asked("reflect") == [prompt("one", "", "wrong", "one is not wrong", ending="write the lesson")]
    assert world.teacher(attempt) == prompt("one", "", "wrong", "one is not wrong", "about it")
    assert (attempt.teacher_prompt or "").endswith("<|im_start|>assistant\n<think>\n")
    assert world.counters() == {}
    [attempt] = world.update("one")
    assert world.teacher(attempt) == prompt("one", "", "right one", solution="right one")
    [attempt] = world.update("one")
    assert world.teacher(attempt) == prompt("one", "", solution="right one")
    assert world.metrics["reflect/invalid"] == 1
    world.engine.script["reflect"] = "thought</think>lesson: about it"
    world.update("one")
    assert world.counters() == {A_RULE: (0, 0)}
    world.engine.script["one"] = "thought</think>right one"
    for helpful in (0, 1):
        world.update("one")
        assert world.asked("tag") == [prompt("one", A, solution="right one", ending="tag the rules")]
        assert world.counters() == {A_RULE: (helpful, 0)}


class Lenient(Judge):
    """Reads thoughts, too."""

    def submit(self, index: int, answer: tuple[Problem, str, bool]) -> None:
        problem, response, truncated = answer
        super().submit(index, (problem, response.removeprefix("<think>"), truncated))


def test_a_success_that_never_left_its_thinking_is_no_solution(thinking: Chat, tmp_path: Path) -> None:
    script: dict[str, Line] = {"one": ["right but only thought", "x</think>wrong"]}
    world = World(tmp_path, thinking, "resd", script, verifier=Lenient())
    [attempt] = world.update("one")
    assert attempt.passed
    assert world.teacher(attempt) is None
    [attempt] = world.update("one")
    assert world.teacher(attempt) == prompt("one", "", "wrong", "one is not wrong")
