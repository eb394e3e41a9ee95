"""Sets of rows for the local task: formats, folders, the hub, columns, splits, and what is said of each mistake."""

import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd import envs
from resd.envs import rows as reading
from resd.types import Problem, UserError

QUESTIONS = [{"question": f"What is {n} + {n}?", "answer": 2 * n, "key": f"q{n}", "wrong": [n, 0]} for n in range(20)]
COLUMNS = {"prompt": "question", "id": "key"}


def right(row: dict[str, Any], response: str) -> bool:
    return response == str(row["answer"])


def load(source: Path | str, **options: Any) -> Any:
    return envs.load("local", source=str(source), verifier="test_sets:right", **options)


def write(path: Path, rows: list[dict[str, Any]] = QUESTIONS) -> Path:
    """The rows in the format that the name of the file says."""
    path.parent.mkdir(exist_ok=True, parents=True)
    end = path.suffix
    if end == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif end == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif end in (".csv", ".tsv"):
        separator = {".csv": ",", ".tsv": "\t"}[end]
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        path.write_text("".join(separator.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(source: Path | str, **options: Any) -> tuple[list[str], list[str]]:
    task = load(source, **{"columns": COLUMNS, **options})
    train, test = ([each.id for each in task.problems(split)] for split in ("train", "test"))
    return train, test


@pytest.mark.parametrize("end", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_problems_and_sides(tmp_path: Path, end: str) -> None:
    train, test = ids(write(tmp_path / f"rows.{end}"))
    assert sorted(train + test) == sorted(row["key"] for row in QUESTIONS)
    assert test == ["q4", "q5", "q7", "q15", "q17", "q18", "q19"]  # as from any other format, or process
    task = pickle.loads(pickle.dumps(load(tmp_path / f"rows.{end}", columns=COLUMNS)))
    problem = task.problems("train")[0]
    assert task.prompt(problem) == [{"role": "user", "content": "What is 0 + 0?"}]
    kept = problem.cases[0]
    assert (kept["question"], kept["prompt"]) == ("What is 0 + 0?", "What is 0 + 0?")
    assert kept["answer"] == ("0" if end in ("csv", "tsv") else 0)
    assert kept["wrong"] == ("[0, 0]" if end in ("csv", "tsv") else [0, 0])
    assert task.verify(problem, "0").passed


@pytest.mark.parametrize("end", ["jsonl", "csv"])
def test_packed_files(tmp_path: Path, end: str) -> None:
    plain = write(tmp_path / f"rows.{end}")
    (tmp_path / f"rows.{end}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert ids(tmp_path / f"rows.{end}.gz") == ids(plain)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_spreadsheets_write(tmp_path: Path, encoding: str, separator: str) -> None:
    cells = [
        ["", "key", "question", "answer"],
        ["0", "a", '"Wie heißt, auf Deutsch;\nthe ""day""?"', "Tag"],
        ["1", "b", "Zwei | drei?" if separator != "|" else "Zwei?", ""],
    ]
    text = "\r\n".join(separator.join(line) for line in cells) + "\r\n\r\n"
    (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
    task = load(tmp_path / "rows.csv", columns=COLUMNS)
    found = {each.id: each for split in ("train", "test") for each in task.problems(split)}
    assert found["a"].statement == 'Wie heißt, auf Deutsch;\nthe "day"?'
    assert set(found["a"].cases[0]) == {"key", "id", "question", "prompt", "answer"}
    assert found["b"].cases[0]["answer"] == ""


def test_parquet_keeps_nested_cells_and_nan_is_none(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]
    rows = [
        {"split": split, "prompt": chat, "id": None, "family": None, "answer": answer, "tests": [[1, 2], [3]]}
        for split, answer in (("train", float("nan")), ("train", None), ("train", 2.5), ("test", 1.0))
    ]
    task = load(write(tmp_path / "rows.parquet", rows))
    problems = task.problems("train")
    assert [each.id for each in problems] == ["train-1", "train-2", "train-3"]
    assert [each.cases[0]["answer"] for each in problems] == [None, None, 2.5]
    assert problems[0].cases[0]["tests"] == [[1, 2], [3]]
    assert [dict(message) for message in task.prompt(problems[0])] == chat


def test_parquet_cells_that_python_has_no_value_for_are_texts(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = {
        "late": pyarrow.array([400_000_000_000], pyarrow.timestamp("s")),
        "day": pyarrow.array([4_000_000], pyarrow.date32()),
        "short": pyarrow.array([1], pyarrow.timestamp("ns")),
    }
    parquet.write_table(pyarrow.table({"key": ["a"], **cells}), tmp_path / "rows.parquet")
    ((_, row),) = reading.read(tmp_path / "rows.parquet")
    assert row["key"] == "a"
    assert str(row["late"]).startswith("14645-06-30 15:06:40")
    assert (row["day"], str(row["short"])) == ("12921-08-18", "1970-01-01 00:00:00.000000001")


@pytest.mark.parametrize("kind", ["zone", "bytes"])
def test_parquet_cells_that_cannot_be_read_name_file_and_column(tmp_path: Path, kind: str) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffers = [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")]
    cells = {
        "zone": pyarrow.array([1], pyarrow.timestamp("us", tz="Mars/Phobos")),
        "bytes": pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers),
    }
    parquet.write_table(pyarrow.table({"key": ["a"], kind: cells[kind]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=rf"rows\.parquet: the column '{kind}' cannot be read \(.*\): leave it out, or"):
        list(reading.read(tmp_path / "rows.parquet"))


# ----------------------------------------------------------------------------------------- folders and the hub


@pytest.mark.parametrize("name", ["ROWS.CSV", "rows.Jsonl", "Rows.PARQUET", "rows.CSV.GZ"])
def test_the_end_of_a_name_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    small = write(tmp_path / name.lower().removesuffix(".gz"))
    if name.endswith("GZ"):
        small.write_bytes(gzip.compress(small.read_bytes()))
    (tmp_path / "capitals").mkdir()
    capital = small.rename(tmp_path / "capitals" / name)
    assert ids(capital) == ids(write(tmp_path / "plain.jsonl"))
    capital.rename(tmp_path / "capitals" / f"test{name[4:]}")
    assert ids(tmp_path / "capitals") == ids(tmp_path / "plain.jsonl")
    assert len([*reading.read_file(str(tmp_path / "capitals"), "test")]) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("one", "other"), [("train.jsonl", "train.jsonl.gz"), ("a-00000-of-00001.csv", "a-00000-of-00001.CSV")]
)
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path / "test.jsonl", QUESTIONS[:2])
    write(tmp_path / one, QUESTIONS[2:5])
    write(tmp_path / "elsewhere" / other.lower(), QUESTIONS[2:5]).rename(tmp_path / other)
    with pytest.raises(UserError, match=f" has both ({one}|{other}) and ({one}|{other}): leave one of them out"):
        ids(tmp_path)


def test_a_folder_with_files_of_any_format_and_in_parts(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", QUESTIONS[:3])
    write(tmp_path / "test.tsv", QUESTIONS[3:5])
    assert ids(tmp_path) == (["q0", "q1", "q2"], ["q3", "q4"])
    hub = tmp_path / "hub"
    write(hub / "data/train-00001-of-00002.jsonl", QUESTIONS[2:4])
    write(hub / "data/train-00000-of-00002.jsonl", QUESTIONS[:2])
    write(hub / "data/validation-00000-of-00001.jsonl", QUESTIONS[4:5])
    (hub / "dataset_infos.json").write_text("{}")
    assert ids(hub, splits={"test": "validation"}) == (["q0", "q1", "q2", "q3"], ["q4"])
    with pytest.raises(UserError, match=r"has the splits train, validation and no test: write task\.options\.splits\."):
        ids(hub)
    with pytest.raises(UserError, match=r"splits\.test=dev is not in .*: it has train, validation"):
        ids(hub, splits={"test": "dev"})


def test_a_set_of_one_split_is_divided_as_a_file_is(tmp_path: Path) -> None:
    alone = ids(write(tmp_path / "rows.jsonl"))
    write(tmp_path / "folder/test.jsonl")
    assert ids(tmp_path / "folder") == alone
    write(tmp_path / "folder/train.jsonl", QUESTIONS[:1])
    assert ids(tmp_path / "folder", splits={"train": "test", "test": "test"}) == alone


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_a_folder_that_datasets_has_saved(tmp_path: Path, library: Any) -> None:
    whole = library.Dataset.from_list(QUESTIONS)
    whole.save_to_disk(tmp_path / "one")
    library.DatasetDict(train=whole.select(range(3)), test=whole.select([3])).save_to_disk(tmp_path / "both")
    assert ids(tmp_path / "both") == (["q0", "q1", "q2"], ["q3"])
    assert ids(tmp_path / "one") == ids(write(tmp_path / "rows.jsonl"))
    assert load(tmp_path / "both", columns=COLUMNS).problems("train")[0].cases[0]["wrong"] == [0, 0]


def test_a_name_of_the_hub(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, subset: str | None) -> Any:
        asked.append((name, subset))
        if subset is None:
            raise ValueError("Config name is missing.\nPlease pick one among: ['main']")
        return library.DatasetDict(train=library.Dataset.from_list(QUESTIONS))

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    train, test = ids("openai/gsm8k", subset="main")
    assert (len(train), len(test)) == (13, 7)
    assert set(asked) == {("openai/gsm8k", "main")}
    with pytest.raises(UserError, match=r"cannot be loaded as a data set \(Config name is missing. Please .*subset$"):
        ids("openai/gsm8k")
    with pytest.raises(UserError, match=r"gsm8k \(train\), row 1 has no column 'problem', .*: its columns are q"):
        ids("openai/gsm8k", subset="main", columns={"prompt": "problem"})


@pytest.mark.parametrize("source", ["data/rows.jsonl", "data/rows.parquet", "data/rows.csv.gz", "words", "/no/where"])
def test_a_file_that_is_not_there_is_no_name_of_the_hub(source: str) -> None:
    with pytest.raises(UserError, match="is neither a file nor a folder: write a JSONL, JSON, CSV"):
        load(source)


@pytest.mark.parametrize(("package", "end"), [("pyarrow", "parquet"), ("datasets", "")])
def test_a_package_that_is_missing(package: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    source = tmp_path / "rows.parquet" if end else "owner/name"
    where = "" if end else "^source=owner/name is no file or folder here, and as a name of the hub "
    with pytest.raises(UserError, match=f"{where}needs the package {package}: run pip install {package}"):
        load(source).problems("train")


# -------------------------------------------------------------------------------------------------------- splits


@given(st.lists(st.text(), min_size=2, max_size=30, unique=True), st.floats(0.01, 0.99), st.text())
def test_sides_are_disjoint_whole_and_stay_when_rows_are_added(prompts: list[str], share: float, more: str) -> None:
    task = load(__file__, test_share=share)

    def sides(texts: list[str]) -> dict[str, str]:
        return dict(zip(texts, task.rows.divided([("", {"prompt": text}) for text in texts]), strict=True))

    found = sides(prompts)
    assert set(found.values()) == {"train", "test"}
    assert sides(prompts[::-1]) == found
    grown = sides(list(dict.fromkeys([*prompts, more])))
    changed = [text for text in prompts if grown[text] != found[text]]
    assert len(changed) <= 1  # the one that had to stand in for an empty side


def test_the_share_is_a_share() -> None:
    task = load(__file__, test_share=0.1)
    sides = task.rows.divided([("", {"id": n, "prompt": "?"}) for n in range(5000)])
    assert 400 < sides.count("test") < 600


def test_equal_prompts_are_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n % 10}?"} for n in range(40)]
    task = load(write(tmp_path / "rows.jsonl", rows), test_share=0.5)
    train, test = ({each.statement for each in task.problems(split)} for split in ("train", "test"))
    assert train | test == {row["prompt"] for row in rows}
    assert not train & test


def test_rows_may_say_their_split_in_other_words(tmp_path: Path) -> None:
    rows = [{**row, "fold": fold} for row, fold in zip(QUESTIONS, "aabbcc", strict=False)]
    source, columns = write(tmp_path / "rows.jsonl", rows), {**COLUMNS, "split": "fold"}
    assert ids(source, columns=columns, splits={"train": "a", "test": "c"}) == (["q0", "q1"], ["q4", "q5"])
    train, test = ids(source, columns=columns, splits={"train": "b", "test": "b"})
    assert sorted(train + test) == ["q2", "q3"]
    numbered = write(tmp_path / "numbered.jsonl", [{**row, "fold": n % 3} for n, row in enumerate(QUESTIONS[:6])])
    assert ids(numbered, columns=columns, splits={"train": 1, "test": 2}) == (["q1", "q4"], ["q2", "q5"])
    with pytest.raises(UserError, match="has no row of the split dev: it has a, b, c"):
        ids(source, columns=columns, splits={"train": "a", "test": "dev"})
    with pytest.raises(UserError, match=r"line 1: split must be .*, not 'a'; .*task\.options\.splits\.test=NAME"):
        ids(source, columns=columns)


# ------------------------------------------------------------------------------------------ columns and mistakes


def test_a_template_makes_the_prompt(tmp_path: Path) -> None:
    template = "{{ question }}{% for number in wrong %}\n- {{ number }}{% endfor %}{% if hint %} {{ hint }}{% endif %}"
    source = write(tmp_path / "rows.jsonl", [{**row, "hint": None} for row in QUESTIONS])
    task = pickle.loads(pickle.dumps(load(source, template=template, columns={"id": "key"})))
    problem: Problem = task.problems("train")[0]
    assert problem.statement == "What is 0 + 0?\n- 0\n- 0"
    assert problem.cases[0]["prompt"] == problem.statement
    for wrong, message in {
        "{{ question": r"^template='\{\{ question' cannot be read as Jinja",
        "{{ qestion }}": r"line 1: the template cannot be filled \('qestion' is undefined\): its columns are question",
        "{{ hint }}": r"line 1: the template shows a cell that is empty",
        "{{ question / 2 }}": r"line 1: the template cannot be filled \(unsupported operand",
        "{% if hint %}x{% endif %}": r"line 1: prompt must be a text",
    }.items():
        with pytest.raises(UserError, match=message):
            load(source, template=wrong).problems("train")


CSV = "key,question,answer\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "", r"source='.*r\.csv' has no rows: add some"),
        ("r.csv", CSV, "has no rows"),
        ("r.jsonl", "\n \n", "has no rows"),
        ("r.json", "[]", "has no rows"),
        ("r.csv", CSV + "a,b?\n", r"r\.csv, line 2 has 2 cells, and the header 3: write cells that contain ','"),
        ("r.csv", CSV + "a,b,c\nd,e, f,g\n", r"r\.csv, line 3 has 4 cells"),
        ("r.csv", CSV + 'a,"b\nb",c\nd,e\n', r"r\.csv, line 4 has 2 cells"),
        ("r.csv", CSV + 'a,"b?,c\n', r"r\.csv, line 2 is no row of a CSV file: unexpected end of data"),
        ("r.csv", "key,key\na,b\n", r"line 1: two columns are called 'key'"),
        ("r.csv", CSV + "a,?,1\nb,,2\n", r"r\.csv, line 3: prompt must be a text, .* not ''"),
        ("r.csv", CSV + "a,?,1\na,!,2\n", r"r\.csv, line 3: the id 'a' occurs twice"),
        ("r.csv", "key,task\na,b\n", r"line 2 has no column 'question', which columns\.prompt names: its columns are"),
        ("r.csv", CSV.encode() + b"a,gr\xfc\xdfe?,1\n", r"must be a CSV file in UTF-8, but .*: line 2 has bytes"),
        ("r.json", '[{"key": 1},\n {"key" 2}]', r"r\.json, line 2 is not JSON: Expecting ':' delimiter at column 9"),
        ("r.json", '{\n"data": []\n}', r"r\.json is one object, not rows: write \[ROW, ROW, …\], or one row a line"),
        ("r.xlsx", b"PK\x03\x04\xff\xfe", r"r\.xlsx does not end in .*\.csv .*, and cannot be read as JSONL in UTF-8"),
        ("r.csv.gz", b"no gzip", r"r\.csv\.gz must be a CSV file .* cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_name_file_and_row(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        ids(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"line 1: prompt must be a text, .*; its columns are question, .*: write task\.options\.columns\.p",
        ),
        ({"test_share": 0}, "test_share=0 is no share: write a number above 0 and below 1"),
        ({"test_share": 1}, "is no share"),
        ({"test_share": "half"}, "is no share"),
        ({"splits": {"dev": "x"}}, r"splits has train and test, and no dev"),
        ({"splits": "train"}, r"splits='train' has no names: write splits\.NAME=VALUE"),
        ({"columns": {"prompt": [3]}}, r"columns\.prompt=\[3\] is no name"),
        ({"columns": {"prompt": True}}, r"columns\.prompt=True is no name"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = write(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=message):
        load(source, **options).problems("train")


def test_tasks_with_files_of_their_own_read_these_formats_too(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", QUESTIONS[:2])
    assert [row["key"] for _, row in reading.read_file(str(tmp_path), "test")] == ["q0", "q1"]
