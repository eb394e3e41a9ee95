"""The texts of all roles: the compact ones to the byte, and what content can do to the full ones."""

from resd.context.render import Prompts

COMPACT = Prompts("compact", "program")


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
