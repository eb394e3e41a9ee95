"""Teacher prompts: what each switch removes, what counts as privileged, and what a budget costs."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.formats import JsonFormat, LinesFormat
from resd.context.playbook import Playbook, Style
from resd.context.render import Prompts
from resd.context.shorten import CUT_MARK
from resd.context.teacher_prompt import Composed, Parts, TeacherPrompt
from resd.types import Attempt, Problem, Reflection, UserError, Verdict

STYLES: list[Style] = ["full", "compact"]
PROBLEM = "accept RB"
SDPO_PARTS = Parts(playbook=False, previous_trial=False, reflection=False)
NONE = Parts(playbook=False, previous_trial=False, feedback=False, reflection=False, solution=False)


def words(text: str) -> int:
    return len(text.split())


def attempt(
    response: str = "thought</think>TRIAL", feedback: str = "FEEDBACK", reflection: str | None = "LESSON"
) -> Attempt:
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": PROBLEM}]
    verdict = Verdict(0.0, False, 0, 1, feedback)
    lesson = None if reflection is None else Reflection(reflection)
    return Attempt("0", Problem("p", ""), prompt, "", [], [], [], response, False, verdict, lesson)


def compose(
    style: Style, parts: Parts, of: Attempt, playbook: str = "", solution: str | None = None, budget: int = 10_000
) -> Composed | None:
    return TeacherPrompt(Prompts(style, "program"), parts, budget, words).compose(of, playbook, solution)


def text_of(composed: Composed | None) -> str:
    assert composed is not None
    return composed.messages[-1]["content"]


def test_the_compact_prompt_is_exactly_this() -> None:
    playbook = Playbook()
    playbook.add("err", "mind the end", 1)
    composed = compose("compact", Parts(), attempt(), playbook.render("compact"))
    assert text_of(composed) == (
        "rules:\nerr-00001: mind the end\ntask:\naccept RB\nprevious:\nTRIAL\nfeedback:\nFEEDBACK\n"
        "lesson:\nLESSON\nwrite the program"
    )
    solved = compose("compact", Parts(), attempt("TRIAL", "", None), solution="SOLVED")
    assert text_of(solved) == "task:\naccept RB\nprevious:\nTRIAL\nsolution:\nSOLVED\nwrite the program"


@pytest.mark.parametrize("style", STYLES)
def test_only_the_last_user_message_changes_and_the_playbook_comes_first(style: Style) -> None:
    of = attempt()
    composed = compose(style, Parts(), of, "err-00001: RULE")
    assert composed is not None
    assert composed.messages[0] == of.prompt[0]
    assert [message["role"] for message in composed.messages] == ["system", "user"]
    assert of.prompt[1]["content"] == PROBLEM
    order = [text_of(composed).index(word) for word in ("RULE", PROBLEM, "TRIAL", "FEEDBACK", "LESSON", "program")]
    assert order == sorted(order)
    assert "thought" not in text_of(composed)


CONTENT = {
    "playbook": "RULE",
    "previous_trial": "TRIAL",
    "feedback": "FEEDBACK",
    "reflection": "LESSON",
    "solution": "SOLVED",
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("switch", CONTENT)
def test_each_switch_removes_exactly_its_part(style: Style, switch: str) -> None:
    everything = Parts(feedback_with_solution=True)
    given_to = (attempt(), "err-00001: RULE", "SOLVED")
    whole = text_of(compose(style, everything, *given_to))
    assert all(content in whole for content in CONTENT.values())
    without = text_of(compose(style, replace(everything, **{switch: False}), *given_to))
    assert [name for name, content in CONTENT.items() if content not in without] == [switch]
    remaining = without.splitlines()
    for line in whole.splitlines():  # what is left is the whole prompt minus one run of lines
        if remaining and line == remaining[0]:
            remaining.pop(0)
    assert remaining == []


@pytest.mark.parametrize("style", STYLES)
def test_feedback_gives_way_to_a_solution(style: Style) -> None:
    assert "FEEDBACK" not in text_of(compose(style, Parts(), attempt(), solution="SOLVED"))
    assert "FEEDBACK" in text_of(compose(style, Parts(), attempt(), solution=""))
    unsolved = replace(Parts(), solution=False)
    assert "FEEDBACK" in text_of(compose(style, unsolved, attempt(), solution="SOLVED"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("feedback", "solution", "contains", "privileged"),
    [
        ("FEEDBACK", None, ["FEEDBACK"], True),
        ("", "SOLVED", ["SOLVED"], True),
        ("FEEDBACK", "SOLVED", ["SOLVED"], True),
        ("", None, [], False),
    ],
)
def test_sdpo_reads_feedback_or_a_solution_and_never_the_attempt(
    style: Style, feedback: str, solution: str | None, contains: list[str], privileged: bool
) -> None:
    composed = compose(style, SDPO_PARTS, attempt(feedback=feedback), "err-00001: RULE", solution)
    assert composed is not None
    assert [content for content in CONTENT.values() if content in text_of(composed)] == contains
    assert composed.privileged == privileged
    assert (text_of(composed) == PROBLEM) == (not privileged)


@pytest.mark.parametrize(
    ("feedback", "reflection", "solution", "playbook", "privileged"),
    [
        ("", None, None, "", False),
        ("", None, None, "err-00001: RULE", False),
        ("", "", None, "err-00001: RULE", False),
        ("FEEDBACK", None, None, "", True),
        ("", "LESSON", None, "", True),
        ("", None, "SOLVED", "", True),
    ],
)
def test_what_counts_as_privileged(
    feedback: str, reflection: str | None, solution: str | None, playbook: str, privileged: bool
) -> None:
    of = attempt("", feedback, reflection)
    composed = compose("full", Parts(), of, playbook, solution)
    assert composed is not None
    assert composed.privileged == privileged
    off = compose("full", replace(NONE, playbook=True), of, playbook, solution)
    assert off is not None
    assert not off.privileged


def test_a_trial_cut_inside_thinking_is_not_shown() -> None:
    prompts = Prompts("compact", "program", LinesFormat(thinking_opened=True))
    composed = TeacherPrompt(prompts, Parts(), 100, words).compose(attempt("SECRET"))
    assert "SECRET" not in text_of(composed)
    assert "previous" not in text_of(composed)


LINES = st.lists(st.sampled_from(["a", "b c", "", "d e f g", "## h"]), max_size=12).map("\n".join)


@given(
    style=st.sampled_from(STYLES),
    parts=st.builds(Parts, **{field.name: st.booleans() for field in fields(Parts)}),
    texts=st.tuples(LINES, LINES, LINES, LINES, LINES),
    budget=st.integers(0, 150),
)
def test_a_prompt_keeps_its_budget_its_problem_and_its_directive(
    style: Style, parts: Parts, texts: tuple[str, ...], budget: int
) -> None:
    response, feedback, reflection, playbook, solution = texts
    of = attempt(response, feedback, reflection)
    whole = compose(style, parts, of, playbook, solution)
    composed = compose(style, parts, of, playbook, solution, budget)
    if composed is None:
        assert budget < words(f"be brief {PROBLEM}")
        return
    text = text_of(composed)
    assert sum(words(message["content"]) for message in composed.messages) <= budget
    assert text == PROBLEM or (PROBLEM in text and text.splitlines()[-1] == text_of(whole).splitlines()[-1])
    assert (composed.truncated == 0) == (composed == whole)


# Words: 2 of the system message, 5 rules, 3 task, 4 previous, 5 feedback, 4 lesson, 3 directive; a cut adds its mark.
@pytest.mark.parametrize(
    ("budget", "gone", "truncated"),
    [
        (26, "", 0),
        (25, "t1 t2", 1),
        (24, "t1 t2 t3", 1),
        (22, "t1 t2 t3", 1),
        (21, "t1 t2 t3 r2", 2),
        (19, "t1 t2 t3 r1 r2", 2),
        (16, "t1 t2 t3 r1 r2 f3 f4", 3),
        (12, "t1 t2 t3 r1 r2 f1 f2 f3 f4", 3),
        (11, "t1 t2 t3 r1 r2 f1 f2 f3 f4 l2 l3", 4),
        (10, "t1 t2 t3 r1 r2 f1 f2 f3 f4 l1 l2 l3", 4),
        (4, "t1 t2 t3 r1 r2 f1 f2 f3 f4 l1 l2 l3", 4),
    ],
)
def test_parts_are_lost_in_this_order(budget: int, gone: str, truncated: int) -> None:
    of = attempt("t1\nt2\nt3", "f1\nf2\nf3\nf4", "l1\nl2\nl3")
    composed = compose("compact", Parts(), of, "A: r1\nB: r2", budget=budget)
    assert composed is not None
    everything = ["t1", "t2", "t3", "r1", "r2", "f1", "f2", "f3", "f4", "l1", "l2", "l3"]
    assert [word for word in everything if word not in text_of(composed)] == gone.split()
    assert composed.truncated == truncated


def test_a_shortened_trial_keeps_its_end_and_feedback_its_beginning() -> None:
    long = "\n".join(f"w{i}" for i in range(50))
    trial = text_of(compose("compact", Parts(), attempt(long, "FEEDBACK", None), budget=30))
    assert f"{CUT_MARK}\nw" in trial
    assert "w49\nfeedback" in trial
    feedback = text_of(compose("compact", Parts(), attempt("", long, None), budget=30))
    assert "feedback:\nw0\n" in feedback
    assert feedback.endswith(f"{CUT_MARK}\nwrite the program")


SDPO_WITH_PLAYBOOK = replace(SDPO_PARTS, playbook=True)


def test_a_playbook_cut_leaves_no_heading_without_entries_and_half_a_solution_is_none() -> None:
    playbook = Playbook()
    playbook.add("strategies", "keep", 1)
    playbook.add("others", "lose " * 50, 1)
    whole = text_of(compose("full", SDPO_WITH_PLAYBOOK, attempt(), playbook.render("full")))
    composed = text_of(compose("full", SDPO_WITH_PLAYBOOK, attempt(), playbook.render("full"), budget=words(whole)))
    assert "## Strategies\n- str-00001 (helpful 0, harmful 0): keep\n" in composed
    assert "Others" not in composed
    solved = compose("compact", SDPO_PARTS, attempt(), solution="SOLVED\n" * 50, budget=30)
    assert solved == Composed(attempt().prompt, parts=frozenset(), truncated=1)


def test_compact_prompts_refuse_json() -> None:
    with pytest.raises(UserError, match=r"model\.output_format=lines"):
        Prompts("compact", "program", JsonFormat())
