"""The reflector with a scripted writer: what it is shown, what comes back, and what is counted."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from resd.context.formats import JsonFormat
from resd.context.playbook import Playbook
from resd.context.reflect import Reflector, apply_tags, count_invalid
from resd.context.render import Prompts, split_problem
from resd.context.shorten import Budget
from resd.types import Attempt, Generate, Problem, Question, Reflection, UserError, Verdict

LINES = Prompts("compact", "program")
JSON = Prompts("full", "program")


def attempt(problem: str, response: str, feedback: str = "") -> Attempt:
    verdict = Verdict(float(not feedback), not feedback, 0, 1, feedback)
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"solve {problem}"}]
    return Attempt(f"0/{problem}", Problem(problem, problem), prompt, "", [], [], [], response, False, verdict)


def scripted(answer: Callable[[str], str | None], calls: list[tuple[list[str], str, Any]]) -> Generate:
    """Answers each prompt by a rule and notes each call: user texts, role, schema."""

    def generate(questions: Sequence[Question]) -> list[str | None]:
        if not questions:
            return []
        assert all([message["role"] for message in question.messages] == ["user"] for question in questions)
        assert len({(question.role, question.key) for question in questions}) == len(questions)
        texts = [question.messages[0]["content"] for question in questions]
        calls.append((texts, questions[0].role, questions[0].schema))
        return [answer(text) for text in texts]

    return generate


def playbook() -> Playbook:
    book = Playbook()
    book.add("common_mistakes", "mind the end", 1)
    return book


def test_a_batch_is_one_call_that_shows_playbook_response_and_feedback() -> None:
    calls: list = []
    outputs = {"one": "lesson: x\nhelpful: err-00001 nonsense", "two": None, "three": "<think>cut"}
    reflector = Reflector(scripted(lambda text: next(o for k, o in outputs.items() if k in text), calls), LINES)
    attempts = [attempt(name, "a thought</think>START", f"{name} failed") for name in outputs]
    reflections = reflector.reflect(attempts, playbook())
    assert reflections == [Reflection("x", {"err-00001": "helpful"}, 1), None, Reflection("", {}, 1)]
    assert count_invalid(reflections) == 3
    [(texts, role, schema)] = calls
    assert (role, schema) == ("reflect", None)
    assert texts[0] == (
        "rules:\nerr-00001: mind the end\ntask:\nsolve one\nprevious:\nSTART\nfeedback:\none failed\nwrite the lesson"
    )


def test_the_json_reflector_passes_its_schema_and_shares_its_beginning() -> None:
    calls: list = []
    answer = '{"lesson": "l", "tags": [{"id": "err-00001", "tag": "harmful"}]}'
    reflections = Reflector(scripted(lambda text: answer, calls), JSON).reflect(
        [attempt("one", "A", "bad"), attempt("two", "B", "worse")], playbook()
    )
    assert reflections == [Reflection("Lesson: l", {"err-00001": "harmful"}, 0)] * 2
    [(texts, role, schema)] = calls
    assert (role, schema) == ("reflect", JsonFormat().schema("reflect"))
    shared = texts[0].partition("solve one")[0]
    assert texts[1].startswith(shared)
    assert "mind the end" in shared
    assert JSON.format.instructions("reflect") in shared


def test_an_attempt_cut_inside_thinking_shows_no_thinking() -> None:
    prompts = Prompts("full", "program", JsonFormat(thinking_opened=True))
    calls: list = []
    reflections = Reflector(scripted(lambda text: "also cut", calls), prompts).reflect(
        [attempt("one", "SECRET", "no answer")], Playbook()
    )
    assert reflections == [Reflection("", {}, 1)]
    [([text], _, _)] = calls
    assert "SECRET" not in text
    assert "ended before it gave an answer" in text
    assert "<playbook>" not in text


@pytest.mark.parametrize("prompts", [LINES, JSON], ids=["compact", "full"])
def test_success_tags_come_from_the_first_attempt_at_each_problem(prompts: Prompts) -> None:
    calls: list = []
    good = "helpful: err-00001" if prompts is LINES else '{"tags": [{"id": "err-00001", "tag": "helpful"}]}'
    reflector = Reflector(scripted(lambda text: good if "FIRST" in text else None, calls), prompts)
    attempts = [attempt("one", "FIRST"), attempt("one", "SECOND"), attempt("two", "OTHER")]
    first, _, other = (each.id for each in attempts)
    assert reflector.tag(attempts, playbook()) == {first: ({"err-00001": "helpful"}, 0, 0), other: ({}, 1, 0)}
    [(texts, role, schema)] = calls
    assert (role, schema) == ("tag", prompts.format.schema("tag"))
    assert not any("SECOND" in text for text in texts)


def test_nothing_to_ask_asks_nothing() -> None:
    calls: list = []
    reflector = Reflector(scripted(lambda text: "", calls), LINES)
    assert reflector.reflect([], playbook()) == []
    assert reflector.tag([], playbook()) == {}
    assert reflector.tag([attempt("one", "A")], Playbook()) == {}
    assert calls == []


def test_tags_are_applied_in_order_and_unknown_ids_counted() -> None:
    book = playbook()
    twice = ("7/a/0", {"err-00001": "helpful"})  # a batch may have a problem twice
    assert apply_tags(book, [twice, ("7/b/0", {"err-00009": "harmful", "err-00001": "harmful"}), twice], step=7) == 1
    assert [event["attempt"] for event in book.drain_events()[-3:]] == ["7/a/0", "7/b/0", "7/a/0"]
    [entry] = book.entries
    assert (entry.helpful, entry.harmful, entry.last_tagged) == (2, 1, 7)


def test_the_problem_is_the_last_user_message() -> None:
    messages = [{"role": role, "content": role[0] + str(i)} for i, role in enumerate(["system", "user", "user"])]
    assert split_problem(messages) == (2, "u2")
    assert split_problem([*messages, {"role": "assistant", "content": "START"}]) == (2, "u2")
    with pytest.raises(UserError, match="role user"):
        split_problem(messages[:1])


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("prompts", [LINES, JSON], ids=["compact", "full"])
def test_a_question_that_is_too_long_is_shortened(prompts: Prompts) -> None:
    """A long program loses its beginning, then the playbook its last entries, then feedback its end."""
    response = "\n".join(f"a{i}" for i in range(200))
    long = attempt("PROBLEM", response, "\n".join(f"f{i}" for i in range(200)))
    silent: Generate = lambda questions: []  # noqa: E731
    whole = Reflector(silent, prompts).question(long, playbook())
    size = words(whole.messages[0]["content"])
    assert not whole.truncated
    assert Reflector(silent, prompts, Budget(size, words)).question(long, playbook()) == whole
    for budget in (size - 1, size - 150, size - 300, size - 390):
        question = Reflector(silent, prompts, Budget(budget, words)).question(long, playbook())
        text = question.messages[0]["content"]
        assert question.truncated
        assert size - 420 < words(text) <= budget
        assert "PROBLEM" in text
        assert "f0\n" in text
        assert ("a199" in text) == (budget > size - 200)
        assert text.splitlines()[-1] == whole.messages[0]["content"].splitlines()[-1]
    assert reflect_again(prompts, long) == whole


def reflect_again(prompts: Prompts, of: Attempt) -> Question:
    """Without a budget nothing is shortened."""
    return Reflector(lambda questions: [], prompts, None).question(of, playbook())


def test_rules_of_a_system_message_are_seen() -> None:
    for feedback in ("bad", ""):
        question = Reflector(lambda questions: [], JSON).question(attempt("one", "A", feedback), playbook())
        assert "<context>\nsystem: be brief\n</context>" in question.messages[0]["content"]
        compact = Reflector(lambda questions: [], LINES).question(attempt("one", "A", feedback), playbook())
        assert "be brief" not in compact.messages[0]["content"]
