"""The work of an office, in five families: what is asked, and what a right reply has to say.

An item is drawn from its split's own names, words and numbers, so that train and test share none. What is right is
decided by code: every value of `required` stands whole in the reply, and nothing of `wrong` does, which is
what somebody would say who mixes things up, and what an echo of the question repeats.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from resd.task import Split

SIZES: Mapping[Split, int] = {"train": 64, "test": 40}  # of each family


@dataclass(frozen=True)
class Item:
    """`required` by what it is called; `content` says all of it and keeps to no style."""

    family: str
    statement: str
    required: Mapping[str, str]
    wrong: tuple[str, ...]
    content: str


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
_CAUSES: Mapping[Split, str] = {
    "train": "disk full|memory exhausted|network down|certificate expired|queue blocked",
    "test": "password changed|port closed|database locked|file missing",
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
        text = words[self.split]
        return self.random.choice([word.strip() for word in text.split("|")] if "|" in text else text.split())

    def number(self, low: int, high: int) -> str:
        return str(self.random.randrange(low, high, 2) + self.odd)

    def time(self) -> str:
        return f"{self.random.randrange(10, 24)}:{self.random.randrange(10, 60, 2) + self.odd}"

    def day(self) -> date:
        """A day whose ordinal is odd for test; the years of both splits are the same."""
        first = date(2027, 1, 1).toordinal() // 2 * 2
        return date.fromordinal(first + self.random.randrange(2, 1400, 2) + self.odd)


def _ticket(draw: Draw) -> Item:
    first, last, number = draw.word(_FIRST), draw.word(_NAMES), draw.number(10000, 99998)
    promise = draw.random.choice(["replace it", "refund it", "repair it", "collect it"])
    return Item(
        "ticket",
        f"Customer: {first} {last}. Order: {number}. The {draw.word(_THINGS)} is broken, we will {promise}.\n"
        "Write one sentence to the customer, with name and order number.",
        {"customer": last, "order number": number},
        (f"Customer: {first}", "one sentence to the customer"),
        f"{last} order {number}",
    )


def _commit(draw: Draw) -> Item:
    noun, old, number = draw.word(_NOUNS), draw.word(_VERBS), draw.number(100, 9998)
    new = next(verb for verb in iter(lambda: draw.word(_VERBS), "") if verb != old)
    return Item(
        "commit",
        f"Issue {number}: the function {old}_{noun} is renamed to {new}_{noun}.\n"
        "Write the commit message in one line, with the issue number.",
        {"issue number": number, "new name": f"{new}_{noun}"},
        ("commit message in one line",),
        f"{new}_{noun} for issue {number}",
    )


def _log(draw: Draw) -> Item:
    time, service, cause = draw.time(), draw.word(_SERVICES), draw.word(_CAUSES)
    return Item(
        "log",
        f"Write one log line: at {time} the service {service} stopped, {cause}.",
        {"time": time, "service": service},
        ("one log line",),
        f"{time} {service} stopped",
    )


def _date(draw: Draw) -> Item:
    last, old = draw.word(_NAMES), draw.day()
    new = old + timedelta(days=2 * draw.random.randrange(1, 30))
    return Item(
        "date",
        f"Mail to {last}: we cannot meet on {old.isoformat()}, let us meet on {new.isoformat()}.\n"
        "What is the new date?",
        {"date": new.isoformat()},
        (old.isoformat(), "the new date?"),
        f"new date {new.isoformat()}",
    )


def _label(draw: Draw) -> Item:
    town, number = draw.word(_TOWNS), draw.number(10000, 99998)
    return Item(
        "label",
        f"Parcel {number} with a {draw.word(_THINGS)} from {draw.word(_NAMES)} goes to {town}.\n"
        "Write one short line with parcel number and town.",
        {"parcel number": number, "town": town},
        ("one short line",),
        f"{number} {town}",
    )


FAMILIES: Mapping[str, Callable[[Draw], Item]] = {
    "ticket": _ticket,
    "commit": _commit,
    "log": _log,
    "date": _date,
    "label": _label,
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
