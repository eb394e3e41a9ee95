"""What a word of the command line names, however Hydra lets it be written."""

import pytest

from resd.word import key_value


@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
@pytest.mark.parametrize(("key", "value"), [("steps", "4"), ("task.options.a", "b=c"), ("task@forgetting.task", "x")])
def test_signs_are_no_part_of_a_name_and_the_first_equals_ends_it(sign: str, key: str, value: str) -> None:
    assert key_value(f"{sign}{key}={value}") == (key, value)
    assert key_value(f"{sign}{key}") == (key, "")
    assert key_value(f"{sign}{key}={value}=") == (key, f"{value}=")
