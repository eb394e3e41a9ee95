"""The curator with a scripted writer: one call per problem, one snapshot, duplicates merged, faults counted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from resd.context.curate import Curation, Curator
from resd.context.playbook import Playbook
from resd.context.render import Prompts
from resd.context.shorten import Budget
from resd.types import Attempt, Generate, Problem, Question, Reflection

LINES = Prompts("compact", "program")
JSON = Prompts("full", "program")


def attempt(problem: str, lesson: str | None) -> Attempt:
    reflection = None if lesson is None else Reflection(lesson)
    prompt = [{"role": "user", "content": "solve"}]
    return Attempt("0", Problem(problem, ""), prompt, "", [], [], [], "PROGRAM", False, reflection=reflection)


def scripted(answer: Callable[[str], str | None], seen: list[str]) -> Generate:
    def generate(questions: Sequence[Question]) -> list[str | None]:
        assert all(question.role == "curate" for question in questions)
        seen.extend(question.messages[0]["content"] for question in questions)
        return [answer(question.messages[0]["content"]) for question in questions]

    return generate


def test_the_first_usable_reflection_of_each_problem_is_curated() -> None:
    seen: list[str] = []
    attempts = [attempt("p", None), attempt("p", ""), attempt("q", "L1"), attempt("p", "L2"), attempt("p", "L3")]
    assert Curator(scripted(lambda text: "none", seen), LINES).curate(attempts, Playbook(), 1) == Curation()
    assert seen == ["lesson:\nL1\nadd new rules", "lesson:\nL2\nadd new rules"]


def test_all_curators_see_one_snapshot_and_duplicates_merge_within_a_step() -> None:
    playbook = Playbook()
    playbook.add("common_mistakes", "known rule", 1)
    seen: list[str] = []
    answers = {
        "L1": "add heuristics: fresh rule\nadd err: Known rule.",
        "L2": "add strategies: FRESH rule\nnonsense\nadd strategies: other rule",
        "L3": None,
    }
    curator = Curator(scripted(lambda text: next(a for k, a in answers.items() if k in text), seen), LINES)
    attempts = [replace(attempt(lesson, lesson), id=lesson) for lesson in answers]
    curation = curator.curate(attempts, playbook, 5)
    assert curation == Curation(("heu-00002", "str-00003"), duplicates=2, invalid=2)
    assert [(entry.text, entry.created) for entry in playbook.entries] == [
        ("known rule", 1),
        ("fresh rule", 5),
        ("other rule", 5),
    ]
    assert all(text.startswith("rules:\nerr-00001: known rule\nlesson:\n") for text in seen)
    assert [event.get("attempt") for event in playbook.drain_events()] == [None, "L1", "L2"]


def test_one_hostile_output_does_not_hurt_the_others() -> None:
    outputs = iter(
        [
            json.dumps({"operations": [{"type": "add", "section": ["a"], "text": {"b": None}}, 3, None]}),
            json.dumps({"operations": [{"type": "add", "section": "formulas", "text": "F = m a"}]}),
            "{" * 100,
        ]
    )
    playbook = Playbook()
    seen: list[str] = []
    curator = Curator(scripted(lambda text: next(outputs), seen), JSON)
    curation = curator.curate([attempt(problem, "lesson") for problem in "pqr"], playbook, 1)
    assert curation == Curation(("for-00001",), duplicates=0, invalid=4)


def test_slips_are_counted_once_an_output() -> None:
    slip = '{"operations": [{"section": "err", "text": "mind\\nthe end",}, {"section": "err", "text": "go on"}]}'
    good = json.dumps({"operations": [{"type": "add", "section": "err", "text": "look twice"}]})
    outputs = iter([slip, good])
    curation = Curator(scripted(lambda text: next(outputs), []), JSON).curate(
        [attempt("p", "lesson"), attempt("q", "lesson")], Playbook(), 1
    )
    assert curation == Curation(("err-00001", "err-00002", "err-00003"), repaired=1)


def test_the_full_prompt_shows_the_problem_and_is_shortened_to_its_budget() -> None:
    seen: list[str] = []
    long = attempt("p", "\n".join(f"l{i}" for i in range(100)))
    Curator(scripted(lambda text: None, seen), JSON).curate([long], Playbook(), 1)
    assert "<problem>\nsolve\n</problem>" in seen[0]
    budget = Budget(len(seen[0].split()) - 50, lambda text: len(text.split()))
    Curator(scripted(lambda text: None, seen), JSON, budget).curate([long], Playbook(), 1)
    assert len(seen[1].split()) <= budget.tokens
    assert "l0\n" in seen[1]
    assert "l99" not in seen[1]
    assert seen[1].splitlines()[-1] == seen[0].splitlines()[-1]


def test_the_full_prompt_counts_entries_and_hides_the_response() -> None:
    playbook = Playbook()
    playbook.add("formulas", "F = m a", 1)
    playbook.tag("for-00001", "helpful", 1)
    seen: list[str] = []
    Curator(scripted(lambda text: None, seen), JSON).curate([attempt("p", "L1"), attempt("q", "L2")], playbook, 2)
    assert "1 helpful, 0 harmful, 0 unused" in seen[0]
    assert seen[1].startswith(seen[0].partition("L1")[0])
    assert not any("PROGRAM" in text for text in seen)
