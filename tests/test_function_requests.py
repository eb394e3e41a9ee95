"""Where problems of function calling come from: requests that are drawn, rows of a file; and the task as a whole."""

import csv
import json
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.function_calling.draw import WORDS
from resd.envs.function_calling.schemas import FUNCTIONS, REQUIRED
from resd.envs.function_calling.tools import Type, tool
from resd.task import SelfTesting, Task
from resd.types import UserError

TASK = envs.load("function_calling")
PROBLEMS = {split: TASK.problems(split) for split in ("train", "test")}

ROW = {
    "id": 7,
    "query": "Weather in Rome for 3 days, and the time in Oslo?",
    "tools": [
        {
            "name": "weather",
            "description": "",
            "parameters": {
                "city": {"type": "str", "description": "", "default": "Paris"},
                "days": {"type": "int, optional", "description": ""},
                "parts": {"type": "List[str]", "description": ""},
            },
        },
        {"name": "clock.now", "description": "", "parameters": {"zone": {"type": "Optional[str]", "description": ""}}},
    ],
    "answers": [
        {"name": "weather", "arguments": {"city": "Rome", "days": 3, "parts": ["day"]}},
        {"name": "clock.now", "arguments": {"zone": "Oslo"}},
    ],
}
TEXTS = {name: cell if isinstance(cell, (str, int)) else json.dumps(cell) for name, cell in ROW.items()}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    match path.suffix:
        case ".csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        case ".json":
            path.write_text(json.dumps(rows))
        case ".parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
        case _:
            path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def read(tmp_path: Path, row: dict[str, Any], name: str = "rows.jsonl", **options: Any) -> Task:
    """The task of a good row and this one, in that order."""
    good = {**TEXTS, "id": 1, "split": "train"}
    return envs.load("function_calling", source=written(tmp_path / name, [good, {**row, "split": "test"}]), **options)


# ---------------------------------------------------------------------------------------------------------- requests


def entities(value: Any) -> set[Any]:
    """The leaves of arguments that are no flags."""
    if isinstance(value, list):
        return set().union(*map(entities, value))
    return set() if isinstance(value, bool) else {value}


def test_forty_functions_of_all_types_are_declared_well() -> None:
    assert len(FUNCTIONS) == len({function.name for function in FUNCTIONS}) == 40
    kinds = set()
    for function in FUNCTIONS:
        declared = function.declaration()
        assert json.loads(json.dumps(declared)) == declared
        read_back = tool(declared)
        assert list(read_back.parameters) == [parameter.name for parameter in function.parameters]
        for parameter in function.parameters:
            found = read_back.parameters[parameter.name]
            assert found.required == (parameter.default is REQUIRED)
            assert found.required or found.type.admits(parameter.default), (function.name, parameter.name)
            kinds.add("enum" if found.type.choices else f"{found.type.kind} {found.type.items}")
    assert kinds == {
        *("string None", "integer None", "number None", "boolean None", "enum"),
        *("array a string", "array an integer", "array a number"),
    }


def test_every_function_is_asked_for_and_arguments_fit_their_types() -> None:
    for split, problems in PROBLEMS.items():
        called = set()
        for problem in problems:
            item = problem.cases[0]
            assert 1 <= len(item.tools) <= 4
            assert 1 <= len(item.calls) == len(problem.cases) <= 3
            known = {each["name"]: tool(each) for each in item.tools}
            for call in item.calls:
                parameters = known[call["name"]].parameters
                called.add(call["name"])
                assert {name for name, each in parameters.items() if each.required} <= call["arguments"].keys()
                assert all(parameters[name].type.admits(value) for name, value in call["arguments"].items()), call
            assert TASK.verify(problem, problem.privileged).passed
            assert problem.statement.endswith(f"Request: {item.query}")
        assert len(called) == 40, split
        assert len({problem.cases[0].query for problem in problems}) == len(problems)
    assert {len(problem.cases) for problem in PROBLEMS["test"]} == {1, 2, 3}


def test_splits_share_no_entity() -> None:
    constants = {
        choice
        for function in FUNCTIONS
        for p in function.parameters
        if not isinstance(p.kind, str)
        for choice in p.kind
    }
    found: dict[str, set[Any]] = {}
    for split in PROBLEMS:
        tasks = [envs.load("function_calling", seed=seed) for seed in range(2)]
        problems = [problem for task in tasks for problem in task.problems(split)]
        calls = [call for problem in problems for call in problem.cases[0].calls]
        found[split] = set().union(*(entities([*call["arguments"].values()]) for call in calls)) - constants
        others = [
            word for words in WORDS.values() for word in words["test" if split == "train" else "train"].split("|")
        ]
        queries = "\n".join(problem.cases[0].query for problem in problems)
        assert not [word for word in others if word in queries]
    assert not found["train"] & found["test"]
    assert min(map(len, found.values())) > 500


def test_what_is_said_is_what_is_meant() -> None:
    """Of dates, times and numbers, which a request says in other words than the call."""
    months = [f"{date(2027, month, 1):%B}" for month in range(1, 13)]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    for problem in PROBLEMS["test"]:
        item = problem.cases[0]
        for value in entities([list(call["arguments"].values()) for call in item.calls]):
            match value:
                case int():
                    said = [str(value), *words[value : value + 1]]
                case float():
                    said = [f"{value:.2f}", f"{value:g}"]
                case str() if value[4:5] == value[7:8] == "-":
                    year, month, day = value.split("-")
                    said = [f"{int(day)} {months[int(month) - 1]} {year}"]
                case str() if value[2:3] == ":":
                    hour, minute = value.split(":")
                    said = [f"{int(hour) % 12 or 12}:{minute} {'pm' if int(hour) >= 12 else 'am'}"]
                case _:
                    said = [value]
            assert any(each in item.query for each in said), (value, item.query)


def test_a_seed_gives_the_same_problems_for_ever() -> None:
    assert envs.load("function_calling").problems("test") == PROBLEMS["test"]
    first = PROBLEMS["train"][0].cases[0]
    assert first.query == "Measure the air quality in Langdon with respect to soot."
    assert first.calls == [{"name": "air_quality", "arguments": {"city": "Langdon", "pollutant": "soot"}}]
    other = {problem.cases[0].query for problem in envs.load("function_calling", seed=1).problems("train")}
    assert len(other & {problem.cases[0].query for problem in PROBLEMS["train"]}) < 100


def test_sizes_are_options() -> None:
    task = envs.load("function_calling", offered=2, calls=1, train=50, test=20, prompt="compact")
    problems = task.problems("train")
    assert (len(problems), len(task.problems("test"))) == (50, 20)
    assert {len(problem.cases[0].tools) for problem in problems} == {1, 2}
    assert {len(problem.cases) for problem in problems} == {1}
    (asked,) = task.prompt(problems[0])
    head, *signatures, query = asked["content"].split("\n")
    assert (head, query) == ("Call functions.", problems[0].cases[0].query)
    assert [line.partition("(")[0] for line in signatures] == [each["name"] for each in problems[0].cases[0].tools]


# -------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("end", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("cells", [ROW, TEXTS], ids=["nested", "texts"])
def test_published_columns_are_read_from_any_format(tmp_path: Path, end: str, cells: dict[str, Any]) -> None:
    if cells is ROW and end == "csv":
        pytest.skip("its cells are texts")
    source = written(tmp_path / f"rows.{end}", [{**cells, "id": n} for n in range(40)])
    task = envs.load("function_calling", source=source)
    train, test = (task.problems(split) for split in ("train", "test"))
    assert len(train) + len(test) == 40
    assert not {problem.id for problem in train} & {problem.id for problem in test}
    for problem in (train[0], test[0]):
        assert len(problem.cases) == 2
        assert problem.cases[0].calls == ROW["answers"]
        assert ROW["query"] in task.prompt(problem)[0]["content"]
        assert task.verify(problem, json.dumps(ROW["answers"][::-1])).passed
        assert task.verify(problem, json.dumps(ROW["answers"][1:])).cases_passed == 1
    task.self_test()


def test_types_and_defaults_of_published_rows(tmp_path: Path) -> None:
    task = read(tmp_path, {**TEXTS, "answers": '[{"name": "weather", "arguments": {"days": 2, "parts": []}}]'})
    (problem,) = task.problems("test")
    for arguments, feedback in {
        '{"days": 2, "parts": [], "city": "Paris"}': "",
        '{"days": 2, "parts": [], "city": "Rome"}': 'city is "Rome", which',
        '{"days": "2", "parts": []}': 'days must be an integer, not "2"',
        '{"days": 2, "parts": [1]}': "parts must be an array of which each is a string, not [1]",
        '{"days": 2}': "the argument parts is missing",
    }.items():
        said = task.verify(problem, f'{{"name": "weather", "arguments": {arguments}}}')
        assert said.passed == (not feedback)
        assert feedback in said.feedback


@pytest.mark.parametrize(
    ("declared", "right", "wrong"),
    [
        ("int", [1, 2.0], [1.5, True, "1"]),
        ("float, optional", [1, 2.5], [True, "1"]),
        ("List[List[int]]", [[[1]], []], [[1], [["1"]]]),
        ("Tuple[float, ...]", [[1.5]], [["x"], 1]),
        ("Optional[bool]", [True], [1, "true"]),
        ("Dict[str, int]", [{}], [[]]),
        ("Union[int, str]", [1, "x", []], []),
        (["string", "null"], ["x"], [1]),
        (None, [1, "x", {}], []),
        ("list[" * 20 + "int" + "]" * 20, [[], [[]]], [1, [1]]),
        ("list[" * 900, [[], 1], []),  # not a name of a type
    ],
)
def test_names_of_types(declared: Any, right: list[Any], wrong: list[Any]) -> None:
    found = tool({"name": "f", "parameters": {"x": {"type": declared}}}).parameters["x"].type
    assert isinstance(found, Type)
    assert all(map(found.admits, right))
    assert not any(map(found.admits, wrong))


def test_rows_without_an_id_are_divided_by_their_query(tmp_path: Path) -> None:
    rows = [{**{k: v for k, v in TEXTS.items() if k != "id"}, "query": f"Rome {n % 9}?"} for n in range(45)]
    task = envs.load("function_calling", source=written(tmp_path / "rows.jsonl", rows), test_share=0.4)
    train, test = ({problem.cases[0].query for problem in task.problems(split)} for split in ("train", "test"))
    assert train | test == {f"Rome {n}?" for n in range(9)}
    assert not train & test


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no query": ({"query": " "}, "query must be a text, not ' '"),
    "no text": ({"query": 3}, "query must be a text, not 3"),
    "tools no JSON": ({"tools": '[{"name": }]'}, "tools cannot be read. It is no JSON at offset 10"),
    "tools no list": ({"tools": '{"name": "x"}'}, "tools must be a list, or JSON of one"),
    "tools null": ({"tools": None}, "tools must be a list, or JSON of one, not None"),
    "no tools": ({"tools": "[]"}, "tools is empty; a row needs a function at least"),
    "a nameless tool": ({"tools": '[{"parameters": {}}]'}, "a function needs an object with a name"),
    "parameters": ({"tools": '[{"name": "f", "parameters": [1]}]'}, "the parameters of f must be an object"),
    "a parameter": ({"tools": '[{"name": "f", "parameters": {"x": "int"}}]'}, "the parameter x of f must be an object"),
    "two tools": ({"tools": '[{"name": "f"}, {"name": "f", "parameters": {"x": {}}}]'}, "tools declare f twice"),
    "answers no JSON": ({"answers": "weather('Rome')"}, "answers cannot be read. It is no JSON at offset 0"),
    "answers a number": ({"answers": 5}, "answers must be a list, or JSON of one"),
    "no answers": ({"answers": "[]"}, "answers is empty; leave out rows that want no call"),
    "no arguments": ({"answers": '[{"name": "weather"}]'}, "call 1 of answers cannot be used: the key arguments is"),
    "other function": (
        {"answers": '[{"name": "f", "arguments": {}}]'},
        "answers call 'f', and tools have only weather,",
    ),
    "other argument": (
        {"answers": '[{"name": "weather", "arguments": {"town": "Rome"}}]'},
        "answers give weather the argument 'town', which it has not",
    ),
    "NaN": (
        {"answers": '[{"name": "weather", "arguments": {"days": NaN}}]'},
        "arguments.days: NaN is no value of JSON",
    ),
    "a key twice": (
        {"answers": '[{"name": "weather", "arguments": {"days": 1, "days": 2}}]'},
        "arguments: the key days occurs twice",
    ),
    "too long": (
        {"answers": json.dumps([{"name": "weather", "arguments": {"city": "x" * 20_000}}])},
        "answers have more than 20000 characters",
    ),
    "deep": ({"answers": "[" * 5000 + "]" * 5000}, "answers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_one_sentence_with_their_number(tmp_path: Path, name: str) -> None:
    cells, message = BAD[name]
    task = read(tmp_path, {**TEXTS, **cells})
    assert len(task.problems("train")) == 1
    with pytest.raises(UserError) as raised:
        task.problems("test")
    said = str(raised.value)
    assert message in said
    assert "rows.jsonl, line 2: " in said
    assert "\n" not in said


def test_columns_and_ids_that_are_missing_or_occur_twice(tmp_path: Path) -> None:
    lacking = written(tmp_path / "rows.jsonl", [{name: cell for name, cell in TEXTS.items() if name != "answers"}])
    with pytest.raises(UserError, match=r"line 1 has no column 'answers': it has id, query, tools"):
        envs.load("function_calling", source=lacking).problems("train")
    twice = written(tmp_path / "rows.json", [{**TEXTS, "split": "test"}] * 2)
    with pytest.raises(UserError, match=r"entry 2: the id '7' occurs twice"):
        envs.load("function_calling", source=twice).problems("test")
    with pytest.raises(UserError, match="is neither a file nor a folder"):
        envs.load("function_calling", source="nowhere.jsonl")


# ---------------------------------------------------------------------------------------------------------- the task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offered": 5}, "offered=5 is out of range: write a whole number from 1 to 4"),
        ({"calls": 0}, "calls=0 is out of range: write a whole number from 1 to 3"),
        ({"train": "many"}, "train='many' is out of range"),
        ({"seed": True}, "seed=True"),
        ({"feedback": "gold"}, "feedback='gold' is unknown: write one of diagnostic, bit"),
        ({"reward": "half"}, "write one of sparse, dense"),
        ({"prompt": "long"}, "write one of full, compact"),
        ({"source": __file__, "test_share": 1}, "test_share=1 is no share"),
        ({"functions": 3}, "it takes source, offered"),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("function_calling", **options)


def test_it_is_a_task_that_travels() -> None:
    task, problem = pickle.loads(pickle.dumps((TASK, PROBLEMS["test"][0])))
    assert isinstance(task, Task)
    assert isinstance(task, SelfTesting)
    assert task.verify(problem, problem.privileged).passed
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/function_calling.yaml").read_text())
    assert envs.load(written["name"], **{**written["options"], "prompt": "full"}).problems("test") == PROBLEMS["test"]


def test_a_broken_judge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    TASK.self_test()
    monkeypatch.setattr("resd.envs.function_calling.grade.canonical", lambda value: id(value))
    with pytest.raises(UserError, match="the judge of function_calling fails"):
        TASK.self_test()
    monkeypatch.setattr("resd.envs.function_calling.grade.canonical", lambda value: "same")
    with pytest.raises(UserError, match="the judge of function_calling passes"):
        TASK.self_test()


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=function_calling", "task.options.offered=2")
