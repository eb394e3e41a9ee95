"""Function calling: a judge that agrees with canonical JSON, hostile answers, rows of others, splits without a common
entity."""

import copy
import json
import random
from collections import Counter
from typing import Any

import pytest

from resd import envs
from resd.envs.function_calling.calls import MAX_CHARS, MAX_DEPTH
from resd.envs.function_calling.draw import Item
from resd.task import Task
from resd.types import Problem, Verdict

TASK = envs.load("function_calling")
TEST = TASK.problems("test")

WEATHER = {
    "name": "weather",
    "description": "",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1},
            "limit": {"type": "number"},
            "wind": {"type": "boolean", "default": False},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "hours": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["city"],
    },
}
PING = {"name": "ping", "description": "", "parameters": {}}


def problem(*calls: dict[str, Any], tools: Any = (WEATHER, PING)) -> Problem:
    return Problem("known", "", cases=[Item("?", tools, calls)] * len(calls))


def call(name: str = "weather", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def checked(task: Task, asked: Problem, response: str, truncated: bool = False) -> Verdict:
    """A verdict, with what holds of every one."""
    said = task.verify(asked, response, truncated)
    assert said.cases_total == len(asked.cases)
    assert bool(said.feedback) != said.passed == (said.cases_passed == said.cases_total)
    said.feedback.encode()
    assert len(said.feedback) < 2500
    assert said.answer is None or len(said.answer) <= MAX_CHARS
    return said


def judged(given: Any, *wanted: dict[str, Any]) -> Verdict:
    """Of calls, or of a text, against one plain call or several."""
    text = given if isinstance(given, str) else json.dumps(given)
    return checked(TASK, problem(*(wanted or (call(city="Rome"),))), text)


# ------------------------------------------------------------------------------------------------------ the oracle


def plain(calls: Any, tools: Any) -> list[str]:
    """Calls as sorted texts of canonical JSON, with defaults filled in: equal lists are equal calls."""
    known = {tool["name"]: tool["parameters"].get("properties", {}) for tool in tools}

    def leaf(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, list):
            return [leaf(each) for each in value]
        return value.strip() if isinstance(value, str) else value

    lines = []
    for each in calls:
        full = {name: leaf(value) for name, value in each["arguments"].items()}
        for name, schema in known.get(each["name"], {}).items():
            if full.get(name) is None:
                full.pop(name, None)
                if "default" in schema:
                    full[name] = leaf(schema["default"])
        lines.append(json.dumps([each["name"], full], sort_keys=True))
    return sorted(lines)


def oracle(given: Any, item: Item) -> int:
    """How many calls are matched, by crossing off lines one by one."""
    left, matched = plain(item.calls, item.tools), 0
    for line in plain(given, item.tools):
        if line in left:
            left.remove(line)
            matched += 1
    return max(0, matched - max(0, len(given) - len(item.calls)))


def altered(value: Any, source: random.Random) -> Any:
    """Something near a value, sometimes only another way to write it."""
    match value:
        case bool():
            return source.choice([not value, int(value), str(value).lower()])
        case int():
            return source.choice([float(value), value + 1, value + 0.5, str(value), value == 1, -value])
        case float():
            return source.choice([value + 0.25, str(value), int(value), value])
        case str():
            return source.choice([f" {value} ", value + "s", value.upper(), value[:-1], [value], None])
        case list():
            return source.choice(
                [value[::-1], value[:-1], value * 2, [altered(value[0], source), *value[1:]], value[0]]
            )
    return 0


def mutated(item: Item, source: random.Random) -> list[dict[str, Any]]:
    calls = copy.deepcopy([*item.calls])
    schemas = {tool["name"]: tool["parameters"]["properties"] for tool in item.tools}
    for _ in range(source.choice((0, 1, 1, 2, 3))):
        if not calls:
            break
        each = source.choice(calls)
        arguments, name = each["arguments"], source.choice([*each["arguments"], "other"])
        match source.randrange(9):
            case 0 | 1 | 2 if name in arguments:
                arguments[name] = altered(arguments[name], source)
            case 3:
                arguments.pop(name, None)
            case 4:
                arguments[source.choice(["other", "days"])] = source.choice([0, None, "x"])
            case 5:
                for key, schema in schemas.get(each["name"], {}).items():
                    if key not in arguments and "default" in schema:
                        arguments[key] = source.choice([schema["default"], None])
            case 6:
                source.shuffle(calls)
            case 7:
                calls = source.choice([calls[1:], [*calls, copy.deepcopy(each)], [*calls, call("other")]])
            case 8:
                each["name"] = source.choice([*schemas, each["name"].upper(), f" {each['name']}"])
    return calls


def test_the_judge_agrees_with_canonical_json_on_many_answers() -> None:
    source, seen = random.Random(0), Counter[bool]()
    for number in range(11_000):
        asked = TEST[number % len(TEST)]
        item = asked.cases[0]
        given = mutated(item, source)
        stripped = [{**each, "name": each["name"].strip()} for each in given]
        said = checked(TASK, asked, json.dumps(given, indent=source.choice((None, 1))))
        assert said.cases_passed == oracle(stripped, item), (given, item.calls)
        assert said.passed == (plain(stripped, item.tools) == plain(item.calls, item.tools)), (given, item.calls)
        seen[said.passed] += 1
    assert min(seen.values()) > 2500, seen


# ---------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("right", "given", "same"),
    [
        (call(city="Rome"), call(city=" Rome\n"), True),
        (call(city="Rome"), call(city="rome"), False),
        (call(city="Rome"), call(city="Rome", days=1, wind=False, unit="C"), True),
        (call(city="Rome", days=1), call(city="Rome"), True),
        (call(city="Rome"), call(city="Rome", days=2), False),
        (call(city="Rome", days=2), call(city="Rome", days=2.0), True),
        (call(city="Rome", days=2), call(city="Rome", days=2.5), False),
        (call(city="Rome", days=2), call(city="Rome", days="2"), False),
        (call(city="Rome", limit=1), call(city="Rome", limit=1.0), True),
        (call(city="Rome", limit=1.5), call(city="Rome", limit=1.5), True),
        (call(city="Rome", limit=1), call(city="Rome", limit=True), False),
        (call(city="Rome", days=1), call(city="Rome", days=True), False),
        (call(city="Rome", wind=True), call(city="Rome", wind=1), False),
        (call(city="Rome", wind=False), call(city="Rome", wind=0), False),
        (call(city="Rome", wind=False), call(city="Rome", wind=None), True),
        (call(city="Rome"), call(city="Rome", limit=None), True),
        (call(city="Rome"), call(city="Rome", other=None), False),
        (call(city="Rome", limit=0), call(city="Rome", limit=-0.0), True),
        (call(city="Rome", limit=10**22), call(city="Rome", limit=1e22), True),
        (call(city="Rome", limit=2**53 + 1), call(city="Rome", limit=float(2**53)), False),
        (call(city="Rome", hours=[1, 2]), call(city="Rome", hours=[1.0, 2]), True),
        (call(city="Rome", hours=[1, 2]), call(city="Rome", hours=[2, 1]), False),
        (call(city="Rome", hours=[]), call(city="Rome"), False),
        (call(city="Rome", more={"a": [1, True]}), call(city="Rome", more={"a": [1, True]}), True),
        (call(city="Rome", more={"a": [1, True]}), call(city="Rome", more={"a": [1, 1]}), False),
        (call("ping"), call("ping"), True),
        (call("ping"), call("Ping"), False),
    ],
)
def test_what_is_the_same_call(right: dict[str, Any], given: dict[str, Any], same: bool) -> None:
    assert judged([given], right).passed == same
    assert judged(given, right).passed == same  # one object is one call


def test_order_does_not_matter_and_number_does() -> None:
    rome, oslo = call(city="Rome"), call(city="Oslo", days=3)
    assert judged([oslo, rome], rome, oslo).passed
    assert judged([rome, rome], rome, rome).passed
    assert judged([rome], rome, rome).cases_passed == 1
    assert judged([rome, rome], rome, oslo).cases_passed == 1
    assert judged([rome, oslo, rome], rome, oslo).cases_passed == 1  # one too many takes one away
    assert judged([rome, oslo, *[call("ping")] * 30], rome, oslo).cases_passed == 0
    assert judged([rome, call("x")], rome, oslo).cases_passed == 1


@pytest.mark.parametrize(
    "form", ["{}", "```json\n{}\n```", "Calls:\n```\n{}\n```\nDone.", "```\n[]\n```\n ```x\n{}\n```", "\n {} \n"]
)
def test_a_fence_may_stand_around_it(form: str) -> None:
    asked = call(city="Rome")
    for text in (json.dumps([asked], indent=2), json.dumps(asked)):
        assert judged(form.replace("{}", text), asked).passed


def test_thinking_does_not_count() -> None:
    right = json.dumps([call(city="Rome")])
    assert judged(f"<think>[]\n```\n[]\n```</think>{right}").passed
    for response in (f"<think>{right}</think>", f"<think>{right}", f"<think>```\n{right}\n```"):
        assert judged(response).error == "no_answer"
    cut = checked(TASK, problem(call(city="Rome")), right[:-3], truncated=True)
    assert (cut.error, cut.feedback) == ("truncated", "The response was cut off at its maximum length; be briefer.")


# --------------------------------------------------------------------------------------------------------- feedback


@pytest.mark.parametrize(
    ("given", "feedback"),
    [
        ([call("wether", city="Rome")], "Call 1: there is no function wether, only weather, ping."),
        (
            [call(town="Rome")],
            "Call 1 (weather): there is no argument town, only city, days, limit, wind, unit, hours.",
        ),
        ([call(days=1)], "Call 1 (weather): the argument city is missing."),
        ([call(city="Rome", days="3")], 'Call 1 (weather): days must be an integer, not "3".'),
        ([call(city="Rome", days=2.5)], "Call 1 (weather): days must be an integer, not 2.5."),
        ([call(city="Rome", wind=1)], "Call 1 (weather): wind must be a boolean, not 1."),
        ([call(city="Rome", unit="K")], 'Call 1 (weather): unit must be one of C, F, not "K".'),
        ([call(city="Rome", hours=["1"])], 'hours must be an array of which each is an integer, not ["1"].'),
        ([call(city="Oslo")], 'Call 1 (weather): city is "Oslo", which is not what is asked for.'),
        ([call(city="Rome", limit=2)], "Call 1 (weather): limit is 2, and is not asked for."),
        ([call(city="Rome"), call("ping")], "Call 2 (ping): such a call is not asked for."),
        ([], "A call of weather is missing."),
        (
            '[{"name": "weather", "arguments": {"city": "Rome", "city": "Oslo"}}]',
            "Call 1: arguments: the key city occurs twice.",
        ),
        ('[{"name": "weather", "arguments": {"limit": NaN}}]', "Call 1: arguments.limit: NaN is no value of JSON."),
        (
            '[{"name": "weather", "arguments": {"hours": [1, -Infinity]}}]',
            "Call 1: arguments.hours[1]: -Infinity is no",
        ),
        (
            '[{"name": "weather", "arguments": {"limit": 1e999}}]',
            "Call 1: arguments.limit: 1e999 is too large a number.",
        ),
        ('[{"name": "weather"}]', "Call 1: the key arguments is missing."),
        (
            [call(city=json.loads("[" * 18 + "]" * 18))],
            f"Call 1: arguments.city{'[0]' * 16}: nested more than 16 deep.",
        ),
        ([call(city=json.loads("[" * 90 + "]" * 90))], "[0]: nested more than 16 deep."),
        ([{**call(city="Rome"), "id": 1}], "Call 1: the key id is none of name and arguments."),
        ([{"name": "weather", "arguments": '{"city": "Rome"}'}], "Call 1: arguments must be an object, not "),
        ([[call(city="Rome")]], "Call 1: an object with name and arguments is wanted, not a list."),
        (
            '[{"name": "weather", "arguments": {"city": "Rome"}}',
            "It is no JSON at offset 51, its end: Expecting ',' deli",
        ),
        ('[{"name": weather}]', 'It is no JSON at offset 10, before "weather}]": Expecting value.'),
        ('[] {"name"', "It is no JSON at offset 3, before "),
        ("3", "It must be a JSON list of calls, not 3."),
    ],
)
def test_feedback_says_what_is_wrong_and_where(given: Any, feedback: str) -> None:
    said = judged(given)
    assert feedback in said.feedback
    text = given if isinstance(given, str) else json.dumps(given)
    bit = envs.load("function_calling", feedback="bit").verify(problem(call(city="Rome")), text)
    assert bit.feedback == "The answer is wrong."
    assert (bit.reward, bit.cases_passed, bit.error) == (said.reward, said.cases_passed, said.error)


def test_feedback_compares_with_the_nearest_call_that_is_missing() -> None:
    wanted = (call(city="Oslo", days=2), call(city="Rome", days=3, unit="F"))
    said = judged([call(city="Rome", days=3)], *wanted)
    assert said.feedback == (
        'Call 1 (weather): the argument unit is left out, and its default "C" is not what is asked for.\n'
        "A call of weather is missing."
    )
    many = judged([call("ping")] * 50, *wanted)
    assert many.feedback.endswith("44 more things are wrong.")


def test_rewards_are_as_asked() -> None:
    asked = problem(call(city="Rome"), call("ping"))
    for reward, expected in (("sparse", 0.0), ("dense", 0.5)):
        task = envs.load("function_calling", reward=reward)
        assert task.verify(asked, json.dumps([call("ping")])).reward == expected
        assert task.verify(asked, json.dumps([call("ping"), call(city="Rome")])).reward == 1


# ---------------------------------------------------------------------------------------------------------- hostile

RIGHT = json.dumps(call(city="Rome"))
INNER = '{"name": "weather", "arguments": %s}'
HOSTILE = {
    "empty": ("", "no_answer"),
    "blank": (" \n\t", "no_answer"),
    "no calls": ("[]", None),
    "null": ("null", "parse"),
    "deep lists": ("[" * 9_000 + "]" * 9_000, "too_deep"),
    "deep objects": ('{"a":' * 3_000 + "1" + "}" * 3_000, "too_deep"),
    "open for ever": ("[" * 10**6, "too_long"),
    "deep argument": (INNER % f'{{"city": {"[" * (MAX_DEPTH + 2)}{"]" * (MAX_DEPTH + 2)}}}', None),
    "a million characters": (RIGHT + " " * 10**6 + "x", "too_long"),
    "a million spaces inside": ("[" + " " * 10**6 + RIGHT + "]", "too_long"),
    "huge integer": (INNER % f'{{"city": "Rome", "days": {"9" * 10_000}}}', None),
    "huge integer alone": ("9" * 10_000, "parse"),
    "huge exponent": (INNER % '{"city": "Rome", "days": 1e999999999}', None),
    "NaN": (INNER % '{"city": "Rome", "limit": NaN}', None),
    "NaN as the name": ('{"name": NaN, "arguments": {"city": "Rome"}}', None),
    "infinity alone": ("-Infinity", "parse"),
    "duplicate argument": (INNER % '{"city": "Oslo", "city": "Rome"}', None),
    "duplicate name": ('{"name": "ping", "name": "weather", "arguments": {"city": "Rome"}}', "parse"),
    "duplicate arguments": (f'[{RIGHT[:-1]}, "arguments": {{"city": "Rome"}}}}]', None),
    "escaped duplicate": (INNER % '{"city": "Rome", "\\u0063ity": "Rome"}', None),
    "boolean for an integer": (INNER % '{"city": "Rome", "days": true}', None),
    "integer for a boolean": (INNER % '{"city": "Rome", "wind": 0}', None),
    "text for a number": (INNER % '{"city": "Rome", "days": "1"}', None),
    "unicode digits": (INNER % '{"city": "Rome", "days": １}', "parse"),
    "lone surrogate": (INNER % '{"city": "Rome\\ud800"}', None),
    "surrogate as a key": (INNER % '{"city": "Rome", "\\udfff": 1}', None),
    "surrogate as a name": ('{"name": "\\ud83d", "arguments": {}}', None),
    "raw surrogate": (INNER % '{"city": "\ud800"}', None),
    "null character": (INNER % '{"city": "Rome\\u0000"}', None),
    "raw line break": (INNER % '{"city": "Ro\nme"}', "parse"),
    "look-alike letters": (INNER % '{"city": "Rоme"}', None),
    "zero-width space": (INNER % '{"city": "Rome\\u200b"}', None),
    "single quotes": (str(call(city="Rome")), "parse"),
    "trailing comma": (f"[{RIGHT},]", "parse"),
    "comment": (f"[{RIGHT} /* ! */]", "parse"),
    "byte order mark": ("\ufeff" + "x", "parse"),
    "several answers": (f"{RIGHT}\n{RIGHT}", "parse"),
    "right, then wrong": (f"```\n{RIGHT}\n```\n```\n[]\n```", None),
    "words around": (f"Sure! {RIGHT}", "parse"),
    "python": ("weather(city='Rome')", "parse"),
    "import": ("__import__('os')", "parse"),
    "every call": (json.dumps([call(city=city) for city in ("Rome", "Oslo", "Bonn")]), None),
    "many calls": (json.dumps([json.loads(RIGHT)] * 300), None),
    "extra argument": (INNER % '{"city": "Rome", "": ""}', None),
    "null argument": (INNER % '{"city": null}', None),
    "arguments as text": (json.dumps({"name": "weather", "arguments": '{"city": "Rome"}'}), None),
    "list of a list": (f"[[{RIGHT}]]", None),
    "call in a call": (INNER % f'{{"city": {RIGHT}}}', None),
    "many fences": ("```\n" * 200_000, "no_answer"),
    "thinking": (f"<think>{RIGHT}</think>", "no_answer"),
    "thinking without end": (f"<think>{RIGHT}" * 1000, "no_answer"),
    "key of a prototype": (INNER % '{"city": "Rome", "__proto__": {}}', None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_their_verdict(name: str) -> None:
    response, error = HOSTILE[name]
    said = judged(response)
    assert not said.passed
    assert (said.error, said.reward, said.cases_passed) == (error, 0, 0)
