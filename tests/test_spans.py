"""Spans of a response, and which tokens lie in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.spans import last_block, tokens_in


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("no fence", "no fence"),
        ("```\nx = 1\n```", "x = 1\n"),
        (
            "one\n```python\na\n```\ntwo\n```\ndef f():\n    pass\n\ndef g(): ...\n```\nend",
            "def f():\n    pass\n\ndef g(): ...\n",
        ),
        ("```\na\n```\n```\nnever closed", "a\n"),
        ("```\n```", ""),
        ("", ""),
    ],
)
def test_the_last_code_fence(text: str, inside: str) -> None:
    start, end = last_block(text)
    assert text[start:end] == inside


def test_a_token_counts_if_it_has_a_part_in_the_span() -> None:
    pieces = ["so:\n", "```", "\nx", " = ", "1\n`", "``", ""]
    assert tokens_in([last_block("".join(pieces))], pieces) == [False, False, True, True, True, False, False]


@given(st.lists(st.text(max_size=3), max_size=12), st.lists(st.integers(0, 30), max_size=8))
def test_a_token_is_inside_as_its_characters_are(pieces: list[str], places: list[int]) -> None:
    places = sorted(places)
    spans = list(zip(places[::2], places[1::2], strict=False))
    covered = {i for start, end in spans for i in range(start, end)}
    position, expected = 0, []
    for piece in pieces:
        expected.append(any(i in covered for i in range(position, position + max(1, len(piece)))))
        position += len(piece)
    assert tokens_in(spans, pieces) == expected
