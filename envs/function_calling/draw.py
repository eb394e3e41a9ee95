"""Requests in English and the calls they ask for, drawn from entities of which train and test share none.

A request names the values of all arguments that it wants other than by default, some of them in other words than the
call: dates and times are spoken, small numbers may be words. Names and texts are the split's own; numbers, days and
minutes of train are even, those of test odd, also before the decimal point. Constants of the functions (values of an
enumeration, flags, defaults) are the same on both sides.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Any

from resd.envs.function_calling.schemas import FUNCTIONS, REQUIRED, Function, Parameter
from resd.task import Split

Said = tuple[Any, str]  # a value, and how a request says it


@dataclass(frozen=True, slots=True)
class Item:
    """A request, the functions it comes with as they are declared, and the calls that are right."""

    query: str
    tools: Sequence[Mapping[str, Any]]
    calls: Sequence[Mapping[str, Any]]


WORDS: Mapping[str, Mapping[Split, str]] = {
    "person": {
        "train": "Abara|Bellini|Castell|Dvorak|Eklund|Farkas|Grabner|Hoxha|Ivanova|Jansen|Kowal|Lindqvist|Moreau",
        "test": "Aalto|Bianchi|Cabrera|Demir|Eriksen|Fontaine|Galli|Horvat|Ibarra|Jonker",
    },
    "city": {
        "train": "Ashford|Brenley|Corfield|Dunmere|Eastham|Fernley|Glenby|Hartwell|Kilmore|Langdon|Marwick|Norbury",
        "test": "Tilbrook|Upwood|Valehurst|Westmere|Yarlow|Applegate|Birchby|Cranmore",
    },
    "street": {
        "train": "Mill Road|Station Street|Church Lane|Park Avenue|Bridge Street|Garden Walk|Castle Hill",
        "test": "Harbour View|Market Square|Orchard Way|Abbey Close|Temple Row",
    },
    "place": {
        "train": "Golden Lion|Blue Anchor|Old Bakery|Rosa and Sons|Green Door|Little Spoon|Red Kettle",
        "test": "Silver Fork|White Swan|Corner House|Four Seasons Inn|Black Olive",
    },
    "firm": {
        "train": "Northwind|Halden Glass|Mercer Print|Orbit Energy|Pine Telecom|Quarry Stone|Tidewater",
        "test": "Summit Water|Velvet Media|Copperfield Tools|Zenith Cargo|Lumen Gas",
    },
    "product": {
        "train": "lamp|kettle|blender|keyboard|suitcase|mirror|toaster|jacket|camera|printer",
        "test": "backpack|monitor|carpet|radio|tent|bicycle pump",
    },
    "food": {
        "train": "rice|lentils|spinach|tomatoes|eggs|butter|mushrooms|carrots|onions|pasta",
        "test": "beans|leeks|potatoes|salmon|apples|yoghurt|barley",
    },
    "title": {
        "train": "Budget review|Weekly sync|Launch plan|Rent for May|Family dinner|Sales figures|Garden party",
        "test": "Hiring round|Safety drill|Summer trip|Board papers|Choir practice|Quarter results",
    },
    "song": {
        "train": "Silent Harbour|Paper Moonlight|Ninety Miles|Winter Coat|Dancing Shoes|Lonely Lighthouse|Copper Sky",
        "test": "Broken Compass|Velvet Rain|Morning Ferry|Glass Mountain|Hollow Drum",
    },
    "text": {
        "train": "water the plants|the parcel has arrived|bring the blue folder|the train is late|feed the cat"
        "|the key is under the mat|call the plumber|dinner is ready",
        "test": "return the library books|the meeting moved upstairs|renew the passport|the car is repaired"
        "|collect the laundry|the door is open",
    },
}
_LISTS = {
    "people": "person",
    "products": "product",
    "foods": "food",
    "songs": "song",
    "codes": "code",
    "amounts": "amount",
}
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_QUOTED = {"title", "song", "text"}
_JOINTS = ("Then", "Also,", "After that,", "And")
_DAYS = date(2027, 1, 1).toordinal() // 2 * 2  # an even one, from which on days are drawn


class Draw:
    """What one split can draw."""

    def __init__(self, split: Split, random: Random) -> None:
        self.split, self.random, self.odd = split, random, int(split == "test")

    def item(self, offered: int, wanted: int) -> Item:
        """At most so many functions and calls, of which at least one is called."""
        n_calls = self.random.randint(1, wanted)
        functions = self.random.sample(FUNCTIONS, self.random.randint(1, offered))
        called = [self.random.choice(functions) for _ in range(n_calls)]
        drawn = [self._call(function) for function in called]
        sentences = [text for _, text in drawn]
        for index in range(1, n_calls):
            joint, text = self.random.choice(_JOINTS), sentences[index]
            sentences[index] = f"{joint} {text[0].lower()}{text[1:]}"
        return Item(" ".join(sentences), [each.declaration() for each in functions], [call for call, _ in drawn])

    def _call(self, function: Function) -> tuple[dict[str, Any], str]:
        """A call, and a sentence that asks for it."""
        arguments: dict[str, Any] = {}
        words = [self.random.choice(function.openings)]
        for parameter in function.parameters:
            if parameter.default is REQUIRED or self.random.random() < 0.5:
                value, text = self._argument(parameter)
                while parameter.kind != "flag" and value in arguments.values():  # no flight from a city to itself
                    value, text = self._argument(parameter)
                arguments[parameter.name] = value
                words.append(text)
        return {"name": function.name, "arguments": arguments}, " ".join(words) + "."

    def _argument(self, parameter: Parameter) -> Said:
        kind, clause = parameter.kind, parameter.clause
        if kind == "flag":
            if parameter.default is not REQUIRED:
                return not parameter.default, clause
            true, _, false = clause.partition("|")
            return self.random.choice([(True, true), (False, false)])
        if isinstance(kind, tuple):
            value, text = (self.random.choice(kind),) * 2
        else:
            value, text = self.value(kind)
        return value, clause.format(text)

    def value(self, kind: str) -> Said:
        """A value of a pool."""
        if kind in _LISTS:
            drawn: dict[str, Said] = {}
            while len(drawn) < 2 + self.random.randrange(2):
                one = self.value(_LISTS[kind])
                drawn[one[1]] = one
            texts = list(drawn)
            return [value for value, _ in drawn.values()], f"{', '.join(texts[:-1])} and {texts[-1]}"
        if kind in self._numbers:
            return self._numbers[kind](self)
        word = self.random.choice(WORDS[kind][self.split].split("|"))
        if kind == "street":
            word = f"{word} {self._integer(2, 98)}"
        return word, f'"{word}"' if kind in _QUOTED else word

    def _integer(self, low: int, high: int) -> int:
        """From the even number `low` to the even number `high`, or one above it."""
        return self.random.randrange(low, high + 1, 2) + self.odd

    def _count(self) -> Said:
        number = self._integer(2, 10)
        return number, self.random.choice([_SMALL[number], str(number)])

    def _code(self) -> Said:
        number = self._integer(10_000, 99_998)
        return number, str(number)

    def _percent(self) -> Said:
        number = self._integer(10, 98)
        return number, str(number)

    def _year(self) -> Said:
        number = self._integer(1950, 2018)
        return number, str(number)

    def _amount(self) -> Said:
        number = self._integer(10, 98) + self.random.choice([0.0, 0.25, 0.5, 0.75])
        return number, f"{number:.2f}" if number % 1 else self.random.choice([f"{number:.0f}", f"{number:.2f}"])

    def _date(self) -> Said:
        day = date.fromordinal(_DAYS + self._integer(2, 1400))
        return day.isoformat(), f"{day.day} {day:%B} {day.year}"

    def _time(self) -> Said:
        hour, minute = self.random.randrange(1, 24), self._integer(0, 58)
        return f"{hour:02}:{minute:02}", f"{(hour - 1) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}"

    _numbers: Mapping[str, Callable[["Draw"], Said]] = {
        "count": _count,
        "code": _code,
        "percent": _percent,
        "year": _year,
        "amount": _amount,
        "date": _date,
        "time": _time,
    }


def items(split: Split, offered: int, wanted: int, seed: int) -> Iterator[Item]:
    """Without end, no request twice, and none that wants the same call twice."""
    draw, seen = Draw(split, Random(f"function_calling/{seed}/{split}")), set()
    while True:
        item = draw.item(offered, wanted)
        calls = {json.dumps(call, sort_keys=True) for call in item.calls}
        if item.query not in seen and len(calls) == len(item.calls):
            seen.add(item.query)
            yield item
