"""The local task: rows of a file, a function that judges, and what is said when either cannot be used."""

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from test_train import metrics, of_kind
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.config import CONF, validate
from resd.task import Task
from resd.train import train
from resd.types import Problem, UserError, Verdict
from resd.verify import examine

ROWS: list[Any] = [
    {"split": "train", "prompt": "Say one.", "answer": "one", "id": "first", "family": "numbers"},
    {"split": "train", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}]},
    {"split": "test", "prompt": "Say three.", "answer": "three"},
]


# ------------------------------------------------------------ verifiers, imported by the task as `test_local:…`


def right(row: dict[str, Any], response: str) -> bool:
    return response == row.get("answer")


def gives(row: dict[str, Any], response: str) -> Any:
    """What the row says, so that one function tries every kind of result."""
    return row["gives"]


def verdict(row: dict[str, Any], response: str) -> Verdict:
    return Verdict(0.5, False, 1, 2, "half of it")


def raises(row: dict[str, Any], response: str) -> bool:
    return 1 / len(response) > 0


def takes_one(row: dict[str, Any]) -> bool:
    return True


not_a_function = 3


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def load(source: str, function: str = "right", **options: Any) -> Task:
    return envs.load("local", source=source, verifier=f"test_local:{function}", **options)


# ----------------------------------------------------------------------------------------------------------------


def test_a_file_says_the_split_and_a_folder_has_a_file_for_each(tmp_path: Path) -> None:
    task = load(write(tmp_path / "rows.jsonl", ROWS))
    assert isinstance(task, Task)
    first, second = task.problems("train")
    assert (first.id, first.statement, first.family) == ("first", "Say one.", "numbers")
    assert (second.id, second.statement, second.family) == ("train-2", "Two?", "")
    assert [each.statement for each in task.problems("test")] == ["Say three."]
    assert task.prompt(first) == [{"role": "user", "content": "Say one."}]
    assert task.prompt(second) == ROWS[1]["prompt"]

    write(tmp_path / "train.jsonl", [{"prompt": "in train"}])
    write(tmp_path / "test.jsonl", [{"prompt": "in test"}])
    task = load(str(tmp_path))
    assert [task.problems(split)[0].statement for split in ("train", "test")] == ["in train", "in test"]


def test_the_task_travels_to_another_process(tmp_path: Path) -> None:
    task = pickle.loads(pickle.dumps(load(write(tmp_path / "rows.jsonl", ROWS), noun="word")))
    problem = pickle.loads(pickle.dumps(task.problems("train")[0]))
    assert task.noun == "word"
    assert task.verify(problem, "one") == Verdict(1.0, True, 1, 1, "", "one")
    assert task.verify(problem, "two") == Verdict(0.0, False, 0, 1, "The word is wrong.", "two")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, Verdict(1.0, True, 1, 1, "", "x")),
        (1, Verdict(1.0, True, 1, 1, "", "x")),
        (0, Verdict(0.0, False, 0, 1, "The answer is wrong.", "x")),
        (0.75, Verdict(0.75, False, 0, 1, "The answer is wrong.", "x")),
        ((False, "It is too long."), Verdict(0.0, False, 0, 1, "It is too long.", "x")),
        ((0.5, ""), Verdict(0.5, False, 0, 1, "The answer is wrong.", "x")),
        ((1.0, "Well done."), Verdict(1.0, True, 1, 1, "", "x")),  # feedback is empty exactly when all is right
    ],
)
def test_what_a_function_may_give(tmp_path: Path, given: Any, expected: Verdict) -> None:
    task = load(write(tmp_path / "rows.jsonl", ROWS), "gives")
    assert task.verify(Problem("x", "?", cases=[{"gives": given}]), "x") == expected


def test_a_function_may_give_a_verdict(tmp_path: Path) -> None:
    task = load(write(tmp_path / "rows.jsonl", ROWS), "verdict")
    assert task.verify(task.problems("train")[0], "x") == verdict({}, "")


@pytest.mark.parametrize("given", [None, "yes", 2, -0.1, float("nan"), (True, None), (True, "", ""), ["x"]])
def test_what_it_may_not_give(tmp_path: Path, given: Any) -> None:
    task = load(write(tmp_path / "rows.jsonl", ROWS), "gives")
    with pytest.raises(
        UserError, match=r"verifier=test_local:gives gave .*: return True or False, a reward from 0 to 1"
    ):
        task.verify(Problem("x", "?", cases=[{"gives": given}]), "x")


def test_a_function_that_an_empty_response_breaks_is_found_out(tmp_path: Path) -> None:
    task = load(write(tmp_path / "rows.jsonl", ROWS), "raises")
    with pytest.raises(UserError, match=r"fails on an empty response to problem 'first'.*ZeroDivisionError"):
        examine(task, task.problems("train"), 60.0)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("test_local", "cannot be imported .*: write package.module:function"),
        ("no_such_module:right", "cannot be imported .*no_such_module"),
        ("test_local:wrong", "cannot be imported .*no attribute 'wrong'"),
        ("test_local:not_a_function", "must be a function of a row and a response"),
        ("test_local:takes_one", "must be a function of a row and a response .*too many positional"),
        ("", "cannot be imported"),
    ],
)
def test_wrong_verifiers(tmp_path: Path, verifier: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("local", source=write(tmp_path / "rows.jsonl", ROWS), verifier=verifier)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "{"], "line 4 is not JSON"),
        ([*ROWS, [1]], "line 4: expected an object"),
        ([*ROWS, {"prompt": "?"}], 'line 4: split must be "train" or "test", not None; or give a folder'),
        ([*ROWS, {"split": "dev", "prompt": "?"}], "not 'dev'"),
        ([*ROWS, {"split": "train"}], "line 4: prompt must be a text, or a list of messages .*, not None"),
        ([*ROWS, {"split": "train", "prompt": " "}], "prompt must be a text"),
        ([*ROWS, {"split": "train", "prompt": []}], "prompt must be a text"),
        (
            [*ROWS, {"split": "train", "prompt": [{"role": "user", "content": "a", "tools": []}]}],
            "line 4: .* all texts",
        ),
        ([*ROWS, {"split": "train", "prompt": [{"role": "user"}]}], "prompt must be a text"),
        ([*ROWS, ROWS[0]], "line 4: the id 'first' occurs twice"),
        ([*ROWS, *({"split": "train", "prompt": "?", "id": id_} for id_ in (7, "7"))], "the id '7' occurs twice"),
        ([*ROWS, {"split": "train", "prompt": "?", "id": [1]}], "line 4: id must be a text or a number"),
        ([*ROWS, {"split": "train", "prompt": "?", "id": True}], "line 4: id must be a text or a number"),
        ([*ROWS, '{"id": ' + "9" * 5000 + "}"], "line 4 cannot be read"),
        (ROWS[2:], 'has no train problem: add rows with "split": "train"'),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "rows.jsonl", rows)).problems("train")


def test_a_byte_order_mark_line_ends_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    text = "".join(f"{json.dumps(row)}\r\n\r\n" for row in ROWS) + " \n\n"
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    task = load(str(tmp_path / "rows.jsonl"))
    assert [each.statement for each in task.problems("train")] == ["Say one.", "Two?"]
    assert [each.statement for each in task.problems("test")] == ["Say three."]


def test_a_file_may_be_one_array(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS, indent=1))
    assert [each.id for each in load(str(tmp_path / "rows.json")).problems("train")] == ["first", "train-2"]
    (tmp_path / "rows.json").write_text(json.dumps([{"split": "train", "prompt": "?"}, 3]))
    with pytest.raises(UserError, match="entry 2: expected an object"):
        load(str(tmp_path / "rows.json")).problems("train")


def test_an_id_that_says_nothing_is_a_missing_one(tmp_path: Path) -> None:
    rows = [{"split": "train", "prompt": "?", "id": empty} for empty in (None, None, float("nan"), float("nan"), "")]
    problems = load(write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "family": None}])).problems("train")
    assert [each.id for each in problems] == [f"train-{number}" for number in range(1, 7)]
    assert {each.family for each in problems} == {""}


def test_numbers_are_ids(tmp_path: Path) -> None:
    rows = [{"split": "train", "prompt": "?", "id": number, "family": 3} for number in (0, 1, 1.5, "01")]
    problems = load(write(tmp_path / "rows.jsonl", rows)).problems("train")
    assert [each.id for each in problems] == ["0", "1", "1.5", "01"]
    assert {each.family for each in problems} == {"3"}


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "rows.jsonl", ROWS)
    assert len(load("~/rows.jsonl").problems("train")) == 2
    for task in ("manufactoria", "bouncingsim", "finer", "ifeval"):
        if task != "ifeval" or importlib.util.find_spec("langdetect"):
            assert envs.load(task, source="~/rows.jsonl").source == f"{tmp_path}/rows.jsonl"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"source='~/nothing' is neither"):
        load("~/nothing")


def test_wrong_sources(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="is neither a file nor a folder: write a JSONL, JSON, CSV, TSV or Parquet file"
    ):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"has no file of rows: give a folder with train\.jsonl and test\.jsonl"):
        load(str(tmp_path)).problems("train")


@pytest.mark.parametrize("end", ["", " \ud83d<|im_end|>"])
def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, end: str) -> None:
    """Also on texts that end within a character, as programs that cut them leave them."""
    rows = [{"split": s, "prompt": f"Say {n}.{end}", "id": f"{s}{n}{end}"} for n in range(4) for s in ("train", "test")]
    source = write(tmp_path / "rows.jsonl", rows)
    train_on(
        tiny_model, tmp_path, "task=local", f"task.options.source={source}", "task.options.verifier=test_local:right"
    )
    attempts = [json.loads(line) for line in (tmp_path / "run/attempts/step_000001.jsonl").read_text().splitlines()]
    asked = end.replace("\ud83d", "\N{REPLACEMENT CHARACTER}")
    assert {a["prompt"].partition("Say ")[2][1:].partition("<|im_end|>\n")[0] for a in attempts} == {f".{asked}"}


BYTES = ("rollout.max_prompt=3000", "rollout.max_response=12", "model.max_prompt=4000")


def train_on(model: Path, tmp_path: Path, *task: str, limits: tuple[str, ...] = BYTES) -> None:
    """Two updates of RESD on a task, with a model whose answers are noise: both happen, and no sample is lost."""
    overrides = [
        *("batch_size=4", "inner_updates=2", "steps=2"),
        *("evaluation.samples=1", "evaluation.before=false", "evaluation.limit=4", "on_empty=warn"),
        *(f"model.path={model}", f"run_dir={tmp_path / 'run'}"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(validate(compose("config", [*task, *overrides, *limits])))
    rows = of_kind(metrics(tmp_path / "run"), "train")
    assert [row["step"] for row in rows] == [1, 2]
    assert sum(row["rollout/lost"] + row["verify/lost"] for row in rows) == 0
    assert rows[-1]["interactions"] == 8


def test_what_is_null_in_a_message_is_not_there(tmp_path: Path) -> None:
    """As a column of Parquet has it for every message, once one has a name."""
    message = {"role": "user", "content": "Two?", "name": None}
    rows = [*ROWS, {"split": "train", "prompt": [message], "answer": "two"}]
    task = load(write(tmp_path / "rows.jsonl", rows))
    last = [*task.problems("train")][-1]
    assert task.prompt(last) == [{"role": "user", "content": "Two?"}]
