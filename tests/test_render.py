"""The texts of all roles: the compact ones to the byte, and what content can do to the full ones."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.json_format import JsonFormat
from resd.context.playbook import Style
from resd.context.render import Prompts

COMPACT = Prompts("compact", "program")
FULL = Prompts("full", "program")


def test_compact_prompts_are_exactly_these() -> None:
    """`nano` was pretrained on them."""
    assert COMPACT.teacher("P") == "task:\nP\nwrite the program"
    slots = {"playbook": "R", "previous_trial": "T", "feedback": "F", "reflection": "L", "solution": "S"}
    assert COMPACT.teacher(" P\n", **slots) == (
        "rules:\nR\ntask:\nP\nprevious:\nT\nfeedback:\nF\nlesson:\nL\nsolution:\nS\nwrite the program"
    )
    assert COMPACT.reflect("P", "A", "F", "R") == "rules:\nR\ntask:\nP\nprevious:\nA\nfeedback:\nF\nwrite the lesson"
    assert COMPACT.reflect("P", "", "") == "task:\nP\nwrite the lesson"
    assert COMPACT.tag("P", "A", "R") == "rules:\nR\ntask:\nP\nsolution:\nA\ntag the rules"
    assert COMPACT.curate("L") == "lesson:\nL\nadd new rules"
    assert COMPACT.curate("L", "R", "1 helpful") == "rules:\nR\nlesson:\nL\nadd new rules"
    assert COMPACT.teacher("<b>{{ x }}") == "task:\n<b>{{ x }}\nwrite the program"


def full_prompts(*texts: str) -> list[str]:
    a, b, c, d, e = texts
    return [
        FULL.teacher(a, playbook=b, previous_trial=c, feedback=d, reflection=e, solution=a),
        FULL.reflect(a, b, c, d, e),
        FULL.tag(a, b, c, d),
        FULL.curate(a, b, "1 helpful", c, d),
    ]


TAGS = ["problem", "playbook", "attempt", "feedback", "analysis", "solution", "context"]
SPELLED = st.lists(
    st.sampled_from(["x", "\n", "# Task\n", "<PROBLEM>", *(f"</{t}{end}" for t in TAGS for end in (">", "_2>", " >"))]),
    min_size=1,
    max_size=6,
).map("".join)  # fmt: skip


@given(st.tuples(SPELLED, SPELLED, SPELLED, SPELLED, SPELLED))
def test_content_cannot_close_what_stands_around_it(texts: tuple[str, ...]) -> None:
    for prompt, harmless in zip(full_prompts(*texts), full_prompts(*"abcde"), strict=True):
        blocks = re.findall(r"^<([a-z]+)>$", harmless, re.MULTILINE)
        position = 0
        for name in blocks:
            opening = re.compile(rf"^<({name}(?:_\d+)?)>$", re.MULTILINE)
            mine = next(m for m in opening.finditer(prompt, position) if not any(f"<{m[1]}>" in text for text in texts))
            assert prompt.count(f"<{mine[1]}>") == prompt.count(f"</{mine[1]}>") == 1
            position = prompt.index(f"</{mine[1]}>")
        assert prompt.splitlines()[-1] == harmless.splitlines()[-1]


def test_contents_stand_in_their_blocks() -> None:
    reflect = FULL.reflect("P", "A", "F", "R")
    for name, text in {"problem": "P", "attempt": "A", "feedback": "F", "playbook": "R"}.items():
        assert f"<{name}>\n{text}\n</{name}>" in reflect
    assert not re.search("^#", reflect, re.MULTILINE)
    assert "<problem>\nP\n</problem>" in FULL.curate("L", "R", "1 helpful", "P")


@pytest.mark.parametrize("role", ["reflect", "tag", "curate"])
def test_the_form_is_said_first_and_last(role: str) -> None:
    form = JsonFormat()
    prompt = {"reflect": FULL.reflect("P", "A", "F"), "tag": FULL.tag("P", "A", "R"), "curate": FULL.curate("L")}[role]
    assert prompt.index(form.instructions(role)) < prompt.index("P" if role != "curate" else "<analysis>")  # type: ignore[arg-type]
    assert prompt.endswith(form.reminder(role))  # type: ignore[arg-type]


@pytest.mark.parametrize("style", ["full", "small", "compact"])
def test_what_is_not_given_is_not_there(style: Style) -> None:
    prompts = Prompts(style, "answer")
    assert prompts.reflect("P", "A", "F") == prompts.reflect("P", "A", "F", "", "")
    assert prompts.tag("P", "A", "R") == prompts.tag("P", "A", "R", "")
    assert prompts.curate("L") == prompts.curate("L", "", "", "", "")
    parts = ("playbook", "previous_trial", "feedback", "reflection", "solution", "demonstration", "hint")
    assert prompts.teacher("P") == prompts.teacher("P", **dict.fromkeys(parts, ""))
    assert not prompts.question("reflect", "k", "text").truncated


def test_what_a_step_shares_comes_first() -> None:
    for one, other in zip(full_prompts("p", "R", "x", "y", "z"), full_prompts("q", "R", "x", "y", "z"), strict=True):
        shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        assert one.startswith("You" if "get a problem" in one or "look after" in one else "An attempt")
        assert shared > 300
    left, right = FULL.reflect("p", "A", "F", "RULE"), FULL.reflect("q", "B", "G", "RULE")
    assert "</playbook>" in left[: next(i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b)]
