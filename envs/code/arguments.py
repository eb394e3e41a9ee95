"""What the functions of the bank take: for each kind how one is drawn, and the edges that are tried besides."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

_LETTERS = "aaabbcdeeiklmnoorstu"
_SIGNS = "abcdeABCDE 0123.,!-"


@dataclass(frozen=True)
class Kind:
    draw: Callable[[Random], Any]
    edges: tuple[Any, ...]


def _between(least: int, most: int) -> Kind:
    return Kind(lambda random: random.randint(least, most), (least, most))


def _ints(random: Random) -> list[int]:
    """Up to nine numbers, often equal ones."""
    most = random.choice((2, 4, 9, 20))
    return [random.randint(-most, most) for _ in range(random.randint(1, 9))]


def _positives(random: Random) -> list[int]:
    return [abs(number) + 1 for number in _ints(random)]


def _rows(random: Random) -> list[list[int]]:
    return [[random.randint(-5, 9) for _ in range(random.randint(0, 4))] for _ in range(random.randint(1, 4))]


def _word(random: Random) -> str:
    return "".join(random.choices(_LETTERS, k=random.randint(1, 7)))


def _words(random: Random) -> list[str]:
    """Some of them twice."""
    words = [_word(random) for _ in range(random.randint(1, 5))]
    words += random.sample(words, random.randint(0, len(words) // 2))
    random.shuffle(words)
    return words


def _start(random: Random) -> str:
    return "".join(random.choices("abeot", k=random.choice((1, 1, 2))))


def _doubled(random: Random) -> str:
    """Few letters, in runs."""
    return "".join(random.choice("abc") * random.randint(1, 3) for _ in range(random.randint(1, 5)))


def _mirrored(random: Random) -> str:
    """Often the same from both sides, but for blanks and case."""
    word = _word(random)
    whole = word + random.choice((word[::-1], word[-2::-1], word))
    return " ".join((whole[:2].upper(), whole[2:])) if random.random() < 0.5 else whole


def _brackets(random: Random) -> str:
    text = ""
    for _ in range(random.randint(1, 4)):
        text = random.choice((f"({text})", f"[{text}]", text + "()", "[]" + text, text + random.choice("()[]")))
    return text


def _near(random: Random) -> int:
    return random.choice((random.randint(1, 30), random.randint(1, 12) ** 2, random.randint(1, 6) ** 3))


Ints = Annotated[list[int], Kind(_ints, ([], [0], [-3], [2, 2, 2], [1, 2, 3, 4], [4, 2, 0, -2], [-1, -5, -1]))]
Positives = Annotated[list[int], Kind(_positives, ([], [1], [7], [3, 3], [1, 2, 3, 4, 5]))]
Rows = Annotated[list[list[int]], Kind(_rows, ([], [[]], [[1]], [[], [2, 3]], [[1, 2], [1, 2]]))]
Int = Annotated[int, _between(-20, 20)]
Little = Annotated[int, _between(0, 6)]
Count = Annotated[int, _between(1, 5)]
Size = Annotated[int, _between(0, 20)]
Natural = Annotated[int, _between(0, 60)]
Positive = Annotated[int, _between(1, 60)]
Long = Annotated[int, Kind(lambda random: random.randint(0, 10 ** random.randint(1, 6)), (0, 9, 10, 1000, 11211))]
Signed = Annotated[int, Kind(lambda random: random.randint(-9999, 9999), (0, -1, 7, -120, 1000))]
Near = Annotated[int, Kind(_near, (1, 2, 64))]
Hour = Annotated[int, _between(0, 23)]
Minute = Annotated[int, _between(0, 59)]
Year = Annotated[
    int, Kind(lambda random: random.randint(18, 24) * 100 + random.choice((0, 0, 4, 7, 50, 96)), (1900, 2000))
]
Side = Annotated[int, _between(1, 4)]

Word = Annotated[str, Kind(_word, ("", "a", "oo", "abc"))]
Start = Annotated[str, Kind(_start, ("", "a", "to"))]
Doubled = Annotated[str, Kind(_doubled, ("", "a", "aa", "abab"))]
Mirrored = Annotated[str, Kind(_mirrored, ("", "x", "ab", "A a"))]
Phrase = Annotated[str, Kind(lambda random: " ".join(_words(random)), ("", "a", "to be", "one one two"))]
Mixed = Annotated[
    str, Kind(lambda random: "".join(random.choices(_SIGNS, k=random.randint(1, 12))), ("", " ", "A", "7", "a1-B2"))
]
Brackets = Annotated[str, Kind(_brackets, ("", "(", "()", ")(", "([)]"))]
Words = Annotated[list[str], Kind(_words, ([], ["a"], ["b", "a"], ["see", "saw", "see"], [""]))]
