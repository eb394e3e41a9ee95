"""argparse, whose complaints are one sentence too: `report`, `plan` and `doctor` have options instead of settings."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from resd.types import UserError

T = TypeVar("T", int, float)


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse prints its usage and exits."""

    def parse(self, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """The options, and the words that are none, settings among them. Raises UserError for an unknown option."""
        chosen, others = self.parse_known_args(arguments)
        for word in others:
            if word.startswith("-"):
                flag = word.partition("=")[0]
                near = difflib.get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.6)
                there = ", ".join(name for name in self._option_string_actions if name.startswith("--"))
                self.error(
                    f"{flag} is not an option: " + (f"did you mean {near[0]}?" if near else f"there are {there}")
                )
        return chosen, others

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def several(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    """A type of argument: numbers above 0 with commas between them."""

    def read(text: str) -> list[T]:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if not numbers or min(numbers) <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not a number above 0, nor several with commas")
        return numbers

    return read
