"""The work of an office, in five families: what is asked, and what a right reply has to say.

An item is drawn from its split's own names, words and numbers, so that train and test share none. What is right is
decided by code: every value of `required` stands in the reply, none of `wrong` does. The wrong ones are what somebody
would say who mixes things up, and what an echo of the question repeats.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from resd.task import Split

SIZES: Mapping[Split, int] = {"train": 64, "test": 40}  # of each family
_ASKED = " Keep to the house style."


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
_STREETS: Mapping[Split, str] = {
    "train": "Mill Lane|Oak Road|Church Street|Harbour Way|Garden Close|Bridge Street",
    "test": "Station Road|King Street|River Walk|Elm Avenue",
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
    promise = draw.random.choice(["send a new one", "refund the price", "repair it", "collect it"])
    asked = "Write the reply to the customer in one short sentence."
    return Item(
        "ticket",
        f"Ticket of {first} {last}, order {number}: the {draw.word(_THINGS)} is broken. We will {promise}.\n{asked}",
        {"customer": last, "order number": number},
        (f"Ticket of {first}", "one short sentence"),
        f"{last} order {number}",
    )


def _commit(draw: Draw) -> Item:
    noun, number = draw.word(_NOUNS), draw.number(100, 9998)
    old = draw.word(_VERBS)
    new = next(verb for verb in iter(lambda: draw.word(_VERBS), "") if verb != old)
    asked = "Write the commit message in one short line."
    return Item(
        "commit",
        f"Issue {number}: the function {old}_{noun} is now called {new}_{noun}.\n{asked}",
        {"issue number": number, "new name": f"{new}_{noun}"},
        ("one short line",),
        f"{new}_{noun} for issue {number}",
    )


def _log(draw: Draw) -> Item:
    time, service, cause = draw.time(), draw.word(_SERVICES), draw.word(_CAUSES)
    asked = "Write one short log line about it."
    return Item(
        "log",
        f"At {time} the service {service} stopped: {cause}.\n{asked}",
        {"time": time, "service": service},
        ("one short log line",),
        f"{time} {service} stopped",
    )


def _date(draw: Draw) -> Item:
    last, old = draw.word(_NAMES), draw.day()
    new = old + timedelta(days=2 * draw.random.randrange(1, 30))
    asked = "Write the name and the new date, as YYYY-MM-DD."
    return Item(
        "date",
        f"Mail to {last}: we cannot meet on {_written(old)}, let us meet on {_written(new)}.\n{asked}",
        {"name": last, "date": new.isoformat()},
        (old.isoformat(), "YYYY-MM-DD"),
        f"{last} {new.isoformat()}",
    )


def _address(draw: Draw) -> Item:
    town, street, postcode = draw.word(_TOWNS), draw.word(_STREETS), draw.number(10000, 99998)
    house, last = draw.number(2, 98), draw.word(_NAMES)
    asked = "Write only the postcode and the town."
    return Item(
        "address",
        f"Mail: deliver it to {last}, {house} {street}, {postcode} {town}, before noon.\n{asked}",
        {"postcode": postcode, "town": town},
        (street,),
        f"{postcode} {town}",
    )


def _written(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"


FAMILIES: Mapping[str, Callable[[Draw], Item]] = {
    "ticket": _ticket,
    "commit": _commit,
    "log": _log,
    "date": _date,
    "address": _address,
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
            yield Item(item.family, item.statement + _ASKED, item.required, (*item.wrong, "house style"), item.content)
