"""What is left of a text without its thinking, and in what time."""

import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.envs.answers import tagged
from resd.thinking import after_thinking, cut_in_thinking, strip_thinking

PIECES = st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<", "think>", "<answer>", "</answer>"]))
BLOCK = re.compile(r"<think>.*?</think>", re.DOTALL)


@pytest.mark.parametrize(
    ("text", "opened", "said"),
    [
        ("  answer ", False, "answer"),
        ("<think>a</think>answer", False, "answer"),
        ("<think>a</think>one<think>b\n</think> two", False, "one two"),
        ("a</think>answer", False, "answer"),
        ("a</think>b</think>answer", False, "answer"),
        ("<think>a<think>b</think>c</think>answer", False, "answer"),
        ("<think>cut", False, ""),
        ("answer<think>cut", False, "answer"),
        ("cut", True, ""),
        ("a</think>answer", True, "answer"),
    ],
)
def test_thinking_is_removed(text: str, opened: bool, said: str) -> None:
    assert strip_thinking(text, opened) == said


@given(PIECES.map("".join))
def test_blocks_are_those_of_a_plain_regular_expression(text: str) -> None:
    assert after_thinking(text) == BLOCK.sub("", text).rpartition("</think>")[2]
    assert strip_thinking(text) == after_thinking(text).partition("<think>")[0].strip()


@given(PIECES.map("".join), st.booleans())
def test_no_think_tag_survives(text: str, opened: bool) -> None:
    said = strip_thinking(text, opened)
    assert "<think>" not in said
    assert "</think>" not in said


@pytest.mark.parametrize(
    ("text", "opened", "cut"),
    [
        ("", False, False),
        ("", True, True),
        ("a", True, True),
        ("a</think>b", True, False),
        ("<think>a", False, True),
        ("<think>a</think>b", False, False),
        ("a</think>b<think>c", True, True),
    ],
)
def test_thinking_that_never_ends_is_known(text: str, opened: bool, cut: bool) -> None:
    assert cut_in_thinking(text, opened) == cut


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "<answer>", "<think><answer>", "<"])
def test_time_grows_with_length(piece: str) -> None:
    def seconds(count: int) -> float:
        start = process_time()
        for read in (strip_thinking, cut_in_thinking, tagged):
            read(piece * count)
        return process_time() - start

    assert seconds(200_000) < 40 * seconds(20_000) + 0.5  # quadratic: a hundred times
