"""The border of the sandbox: several arguments go in, texts come out where they are wanted, and nothing like them."""

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.envs.sandbox import Outcome, call

PATIENT = 60.0  # more than harmless programs take on the busiest machine
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of what Linux offers")


def run(source: str, *arguments: Any, **options: Any) -> list[Outcome]:
    return call(source, "f", arguments or [1], PATIENT, **options)


def test_calls_may_have_several_arguments() -> None:
    source = "def f(x, y=7): return [y, x]"
    assert run(source, [1, 2], [[3], "ab"], [4], spread=True, texts=True) == [
        Outcome([2, 1]),
        Outcome(["ab", [3]]),
        Outcome([7, 4]),
    ]
    (outcome,) = run(source, [1, 2, 3], spread=True)
    assert "takes from 1 to 2 positional arguments" in outcome.detail


@given(st.recursive(st.integers(-9, 9) | st.booleans() | st.none() | st.text(max_size=20), st.lists))
@settings(max_examples=30)
def test_texts_cross_the_border_where_they_are_wanted(value: Any) -> None:
    assert repr(run("def f(x): return x", value, texts=True)) == repr([Outcome(value)])
    (outcome,) = run("def f(x): return x", [value, "a"])
    assert outcome.error == "bad_value"


@pytest.mark.parametrize(
    ("expression", "detail"),
    [
        ("'x' * 1001", "more than 1000 characters"),
        ("['\\ud800']", "half a character"),
        ("type('T', (str,), {'__eq__': lambda *_: True})('x')", "a value of type T is no number, text or list"),
        ("{'a': 1}", "type dict"),
        ("b'a'", "type bytes"),
        ("float('nan')", "not a finite number"),
        ("type('B', (int,), {})(1)", "type B"),
    ],
)
def test_what_looks_like_a_text_or_a_number_stays_inside(expression: str, detail: str) -> None:
    (outcome,) = run(f"def f(x): return {expression}", texts=True)
    assert outcome.error == "bad_value"
    assert detail in outcome.detail


def test_replies_written_by_a_program_are_checked_as_values_are() -> None:
    for reply in ('{"value": "' + "x" * 1001 + '"}', '{"value": {"a": 1}}', '{"value": "\\\\ud800"}', '{"value": NaN}'):
        (outcome,) = run(f"import os\nos.write(3, b'{reply}')\ndef f(x): return 1", texts=True)
        assert (outcome.value, outcome.error) == (None, "bad_value"), reply
