"""The work of an office, in five families: what is asked, and what a right reply has to say.

Each asks for one word, so that a model of half a billion parameters is right about it and only the style is to be
learned. An item is drawn from its split's own names, words and numbers: train and test share none. What is right is
decided by code: the answer stands whole in the reply, and what somebody would say who mixes things up does not, nor
who repeats the question.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from resd.task import Split

SIZES: Mapping[Split, int] = {"train": 64, "test": 40}  # of each family


@dataclass(frozen=True)
class Item:
    """`answer` is called `asked`; `wrong` stands beside it and is what somebody would say who mixes things up."""

    family: str
    statement: str
    asked: str
    answer: str
    wrong: str


_NAMES: Mapping[Split, str] = {
    "train": """Abara Bellini Castell Dvorak Eklund Farkas Grabner Hoxha Ivanova Jansen Kowal Lindqvist Moreau Nakata
        Okafor Pereira Quist Rossi Sandoval Takeda Ulrich Varga Weber Yilmaz Zeman Adler Brandt Cohen Duarte Engel
        Fischer Gupta Haddad Iversen Jovanov Keller Larsen Meyer Novak Olsen""",
    "test": """Aalto Bianchi Cabrera Demir Eriksen Fontaine Galli Horvat Ibarra Jonker Kruger Lopez Mazur Nilsen Ortega
        Petit Quiroga Ruiz Santos Tanaka Unger Vidal Wolff Xu Young""",
}
_FIRST: Mapping[Split, str] = {
    "train": "Ana Boris Carla Dario Elsa Felix Greta Hugo Ines Jonas Karin Leo Mona Nils Olga Pavel",
    "test": "Ada Bruno Clara David Emil Flora Georg Helga Ivo Julia",
}
_THINGS: Mapping[Split, str] = {
    "train": "lamp chair kettle printer jacket blender keyboard suitcase mirror toaster",
    "test": "desk fan backpack monitor carpet radio",
}
_VERBS: Mapping[Split, str] = {
    "train": "load parse merge send check build read sort",
    "test": "fetch split store clean count render",
}
_NOUNS: Mapping[Split, str] = {
    "train": "rows page user token image report price label cache event",
    "test": "file query task color folder signal",
}
_SERVICES: Mapping[Split, str] = {
    "train": "mailer indexer billing gateway scheduler catalog checkout tracker archive notifier proxy importer",
    "test": "search login payments exporter router backup inventory chat",
}
_TOWNS: Mapping[Split, str] = {
    "train": """Ashford Brenley Corfield Dunmere Eastham Fernley Glenby Hartwell Kilmore Langdon Marwick Norbury
        Oakhurst Penfield Ravenby Selwick""",
    "test": "Tilbrook Upwood Valehurst Westmere Yarlow Applegate Birchby Cranmore Denholm Elmsworth",
}


class Draw:
    """What one split can draw from. Numbers of train are even, those of test odd; so are minutes and days."""

    def __init__(self, split: Split, seed: str) -> None:
        self.split, self.random, self.odd = split, random.Random(seed), int(split == "test")

    def word(self, words: Mapping[Split, str]) -> str:
        return self.random.choice(words[self.split].split())

    def other(self, words: Mapping[Split, str], than: str) -> str:
        return next(word for word in iter(lambda: self.word(words), "") if word != than)

    def number(self, low: int, high: int) -> str:
        return str(self.random.randrange(low, high, 2) + self.odd)

    def time(self) -> str:
        return f"{self.random.randrange(10, 24)}:{self.random.randrange(10, 60, 2) + self.odd}"

    def day(self) -> date:
        """A day whose ordinal is odd for test; the years of both splits are the same."""
        first = date(2027, 1, 1).toordinal() // 2 * 2
        return date.fromordinal(first + self.random.randrange(2, 1400, 2) + self.odd)


def _ticket(draw: Draw) -> Item:
    number, customer = draw.number(10000, 99998), draw.number(100, 998)
    return Item(
        "ticket",
        f"Customer {customer}, {draw.word(_FIRST)} {draw.word(_NAMES)}: order {number}, the {draw.word(_THINGS)} is "
        "broken.\nWhat is the order number?",
        "order number",
        number,
        customer,
    )


def _commit(draw: Draw) -> Item:
    noun, old = draw.word(_NOUNS), draw.word(_VERBS)
    new = draw.other(_VERBS, old)
    return Item(
        "commit",
        f"Commit {draw.number(100, 9998)}: the function {new}_{noun} is added, {old}_{noun} is removed.\n"
        "Which function is added?",
        "function",
        f"{new}_{noun}",
        f"{old}_{noun}",
    )


def _log(draw: Draw) -> Item:
    stopped = draw.word(_SERVICES)
    started = draw.other(_SERVICES, stopped)
    return Item(
        "log",
        f"{draw.time()} {started} started\n{draw.time()} {stopped} stopped\nWhich service stopped?",
        "service",
        stopped,
        started,
    )


def _date(draw: Draw) -> Item:
    old = draw.day()
    new = old + timedelta(days=2 * draw.random.randrange(1, 30))
    return Item(
        "date",
        f"Mail to {draw.word(_NAMES)}: we cannot meet on {old.isoformat()}, let us meet on {new.isoformat()}.\n"
        "What is the new date?",
        "date",
        new.isoformat(),
        old.isoformat(),
    )


def _parcel(draw: Draw) -> Item:
    town = draw.word(_TOWNS)
    origin = draw.other(_TOWNS, town)
    return Item(
        "parcel",
        f"Parcel {draw.number(10000, 99998)} with a {draw.word(_THINGS)} goes from {origin} to {town}.\n"
        "Which town does it go to?",
        "town",
        town,
        origin,
    )


FAMILIES: Mapping[str, Callable[[Draw], Item]] = {
    "ticket": _ticket,
    "commit": _commit,
    "log": _log,
    "date": _date,
    "parcel": _parcel,
}


def items(split: Split) -> Iterator[Item]:
    """The items of a split, family by turns, no statement twice."""
    draws = {family: Draw(split, f"{family}/{split}") for family in FAMILIES}
    seen: set[str] = set()
    for _ in range(SIZES[split]):
        for family, make in FAMILIES.items():
            item = make(draws[family])
            while item.statement in seen:
                item = make(draws[family])
            seen.add(item.statement)
            yield item
