"""The problems of the Manufactoria task, their solutions, the strict evaluator, prompts, and data from files."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resd import envs
from resd.envs.manufactoria import Manufactoria, grade, parse, solution
from resd.envs.manufactoria.goal import FAMILIES, Goal
from resd.envs.manufactoria.problems import all_problems, goal_of, split_problems
from resd.envs.manufactoria.strict import grade_strictly, rounds
from resd.task import Task
from resd.types import Problem, UserError

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ROOT.parent / "shared/data/manufactoria_problems_public.jsonl"
needs_data = pytest.mark.skipif(not PUBLIC.is_file(), reason="the shared data is not there")

ROW = {
    "id": "one",
    "problem_family": "contains_substring",
    "criteria": "Accept if the tape contains the substring 'R' (must be consecutive); reject otherwise.",
    "ground_truth": [{"input": "R", "expected_output": "", "expected_accepted": True, "check_output": False}],
}


def fenced(program: str) -> str:
    return f"```manufactoria\n{program}\n```"


def problem(id_: str) -> Problem:
    return next(problem for problem in all_problems() if problem.id == id_)


def public() -> list[dict[str, Any]]:
    return [row for row in map(json.loads, PUBLIC.read_text().splitlines()) if row.get("inferred_split")]


# --------------------------------------------------------------------------------------------------- problems


def test_the_split_is_disjoint_and_complete() -> None:
    train, test = split_problems("train"), split_problems("test")
    assert (len(train), len(test)) == (742, 132)
    assert len({problem.id for problem in train + test}) == len({problem.statement for problem in train + test}) == 874
    counts = [[sum(problem.family == family for problem in half) for family in FAMILIES] for half in (train, test)]
    assert counts == [[163, 292, 287], [31, 48, 53]]


@needs_data
def test_problems_are_the_published_ones() -> None:
    own = {problem.id: problem for problem in all_problems()}
    train = {problem.id for problem in split_problems("train")}
    assert len(public()) > 400
    for row in public():
        goal = goal_of(own[row["id"]])
        assert (own[row["id"]].statement, goal.name, goal.family) == (
            row["criteria"],
            row["name"],
            row["problem_family"],
        )
        assert (row["id"] in train) == (row["inferred_split"] == "train")
        for record in row["ground_truth"]:
            assert goal.accepts(record["input"]) == record["expected_accepted"], row["id"]


@needs_data
def test_drawn_suites_resemble_the_published_ones() -> None:
    drawn = {problem.id: problem.cases for problem in all_problems()}
    pairs = [(drawn[row["id"]], row["ground_truth"]) for row in public()]
    assert mean(len(own) for own, _ in pairs) == pytest.approx(mean(len(cases) for _, cases in pairs), abs=0.5)
    assert mean(map(accepted_share, drawn.values())) == pytest.approx(0.35, abs=0.02)
    assert all(record.keys() == cases[0].keys() for own, cases in pairs for record in own)


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def accepted_share(cases: Any) -> float:
    return mean(record["expected_accepted"] for record in cases)


def test_every_suite_has_both_verdicts_and_distinct_tapes() -> None:
    for each in all_problems(seed=23):  # which has a suite that needs topping up
        tapes = [record["input"] for record in each.cases]
        n_accepted = sum(record["expected_accepted"] for record in each.cases)
        assert len(set(tapes)) == len(tapes) <= 35
        assert min(n_accepted, len(tapes) - n_accepted) >= 3
        assert all(len(tape) <= 39 and set(tape) <= set("RBYG") for tape in tapes)


def test_the_seed_changes_cases_and_nothing_else() -> None:
    one, other = split_problems("test", seed=0), split_problems("test", seed=1)
    assert [problem.id for problem in one] == [problem.id for problem in other]
    assert sum(a.cases != b.cases for a, b in zip(one, other, strict=True)) > 130


def test_problems_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import hashlib; from resd.envs.manufactoria.problems import split_problems;"
        "print(hashlib.sha256(repr([split_problems(s) for s in ('train', 'test')]).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr([split_problems("train"), split_problems("test")]).encode()).hexdigest()
    for hash_seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


def test_the_automaton_agrees_with_the_predicate() -> None:
    for each in all_problems()[::17]:
        goal = goal_of(each)
        for tape in rounds()[0]:
            state: tuple[int, ...] | None = goal.start
            for colour in tape:
                state = state and goal.advance(state, colour)
            assert (state is None) == goal.accepts(tape), (each.id, tape)


def test_goals_read_their_own_words() -> None:
    for each in all_problems():
        assert goal_of(each).criteria == each.statement
    assert Goal.from_criteria("Accept if the tape starts with R; reject otherwise.") is None


# ----------------------------------------------------------------------------------------- solutions and judges


def test_solutions_pass_their_suites_and_trivial_programs_fail() -> None:
    for each in all_problems():
        assert grade(fenced(solution(each)), each.cases).passed, each.id
        for target in ("end", "NONE"):
            verdict = grade(fenced(f"START start:\n    NEXT {target}\n\nEND end"), each.cases)
            assert not verdict.passed
            assert 0 < verdict.case_fraction < 1


@needs_data
def test_solutions_pass_the_published_suites() -> None:
    own = {problem.id: problem for problem in all_problems()}
    for row in public():
        assert grade(fenced(solution(own[row["id"]])), row["ground_truth"]).passed, row["id"]


def test_solutions_pass_strictly() -> None:
    assert sum(map(len, rounds())) == 200 + sum(4**length for length in range(8))
    for each in all_problems()[::25]:
        verdict = grade_strictly(fenced(solution(each)), goal_of(each))
        assert verdict.passed, each.id
        assert verdict.cases_total == sum(map(len, rounds()))


def test_strict_finds_what_a_suite_misses() -> None:
    """Most suites of counting problems are passed by another problem's solution, which is still wrong."""
    counts = [(each, goal_of(each)) for each in all_problems() if each.family == "contains_count"]
    missed = []
    for one, goal in counts:
        for other, rival in counts:
            if rival != goal and all(rival.accepts(each["input"]) == each["expected_accepted"] for each in one.cases):
                missed.append((one, goal, fenced(solution(other))))
                break
    assert len(missed) > len(counts) // 2
    for one, goal, answer in missed:
        assert grade(answer, one.cases).passed
        verdict = grade_strictly(answer, goal)
        assert not verdict.passed, one.id
        assert 0 < verdict.cases_passed < verdict.cases_total
        assert verdict.feedback


def test_strict_on_answers_that_are_no_program() -> None:
    each = problem("has-count-000")
    assert grade_strictly("no", goal_of(each)).error == "no_answer"
    assert grade_strictly(fenced("START"), goal_of(each)).error == "parse"


def test_strict_finds_a_mistake_on_long_tapes_only() -> None:
    """Rejects every tape whose first red comes after seven other colours."""
    each = problem("has-substring-000")
    nodes = "".join(
        f"PULLER_RB a{n}:\n    [R] {'end' if n < 7 else 'NONE'}\n    [B] a{n + 1}\n    [EMPTY] b{n}\n"
        f"PULLER_YG b{n}:\n    [Y] a{n + 1}\n    [G] a{n + 1}\n"
        for n in range(8)
    )
    program = f"START start:\n    NEXT a0\nEND end\n{nodes}PULLER_RB a8:\n    [R] NONE"
    assert all(parse(program).accepts(tape) == ("R" in tape) for length in rounds()[1:] for tape in length)
    assert not grade_strictly(fenced(program), goal_of(each)).passed


# --------------------------------------------------------------------------------------------- prompts and task


def test_prompts_end_with_the_criteria() -> None:
    each = problem("has-count-116")
    (full,), (compact,) = Manufactoria().prompt(each), Manufactoria(prompt="compact").prompt(each)
    for message in (full, compact):
        assert message["role"] == "user"
        assert message["content"].endswith(each.statement)
    assert len(compact["content"]) < len(each.statement) + 40
    assert not any(word in compact["content"] for word in ("PULLER", "EMPTY", "[R]", "```"))
    for told in ("PULLER_RB", "PULLER_YG", "PAINTER_GREEN", "EMPTY", "NONE", "```manufactoria", "#"):
        assert told in full["content"]
    for not_told in ("1000", "visit", "four", "{"):
        assert not_told not in full["content"]


def test_the_example_in_the_prompt_is_right() -> None:
    example = parse(
        Manufactoria().prompt(problem("has-count-000"))[0]["content"].split("```")[-2].removeprefix("manufactoria")
    )
    assert [tape for tape in rounds()[0] if example.accepts(tape)] == ["R"]


def test_the_prompt_says_when_the_output_counts() -> None:
    asked = Problem("x", "Append R.", cases=[{"input": "", "check_output": True}])
    assert "with the tape that the task asks for" in Manufactoria().prompt(asked)[0]["content"]
    assert "with the tape that" not in Manufactoria().prompt(problem("has-count-000"))[0]["content"]


def test_the_docstring_shows_a_correct_program() -> None:
    import resd.envs.manufactoria as package

    _, criteria, rest = (package.__doc__ or "").split("\n    ", 2)
    program = "\n".join(
        line.removeprefix("    ") for line in rest[rest.index("START") :].split("\n\nThe package")[0].split("\n")
    )
    goal = Goal.from_criteria(criteria)
    assert goal is not None
    assert grade_strictly(fenced(program), goal).passed


@pytest.mark.parametrize("evaluator", ["suite", "strict"])
def test_the_task(evaluator: str) -> None:
    task = pickle.loads(pickle.dumps(envs.load("manufactoria", evaluator=evaluator, family="contains_ordered")))
    assert isinstance(task, Task)
    problems = task.problems("test")
    assert len(problems) == 48
    assert task.verify(problems[0], fenced(solution(problems[0]))).passed
    wrong = task.verify(problems[0], fenced("START start:\n    NEXT end\n\nEND end"))
    assert not wrong.passed
    assert task.verify(problems[0], "hm", truncated=True).error == "truncated"


def test_reward_and_feedback_options() -> None:
    accept_all = fenced("START start:\n    NEXT end\n\nEND end")
    task = Manufactoria(reward="dense", feedback="official")
    verdict = task.verify(problem("has-count-000"), accept_all)
    assert verdict.reward == verdict.case_fraction > 0
    assert verdict.feedback.startswith("Test case 1: wrong answer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "long"}, "prompt='long' is unknown: write one of full, compact"),
        ({"feedback": "none"}, "write one of full, official, compact"),
        ({"evaluator": "exact"}, "write one of suite, strict"),
        ({"family": "begins_with"}, "write one of has, all, contains_count"),
        ({"reward": "binary"}, "write one of sparse, dense"),
        ({"source": "nowhere.jsonl"}, "neither a file nor a folder: write generated, hf"),
        ({"sources": "hf"}, "it takes source, family, prompt"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("manufactoria", **options)


# ------------------------------------------------------------------------------------------------------- files


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_a_file_serves_both_splits_and_a_folder_has_two(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": f"# A prompt\n\nThe task:\n{ROW['criteria']}\n"}]
    published = {key: value for key, value in ROW.items() if key != "criteria"} | {"id": "two", "messages": messages}
    write(tmp_path / "train.jsonl", ROW, "", published)
    test = write(tmp_path / "test.jsonl", published)
    assert [each.id for each in Manufactoria(str(tmp_path)).problems("train")] == ["one", "two"]
    assert {each.statement for each in Manufactoria(str(tmp_path)).problems("train")} == {ROW["criteria"]}
    assert Manufactoria(test).problems("train") == Manufactoria(str(tmp_path)).problems("test")
    (only,) = Manufactoria(test, evaluator="strict").problems("test")
    assert Manufactoria(test, evaluator="strict").verify(only, fenced(solution(only))).passed


@needs_data
def test_the_shared_problems_load_as_a_file() -> None:
    assert len(Manufactoria(str(PUBLIC)).problems("train")) == len(public())
    every = Manufactoria(str(PUBLIC), family="all").problems("train")
    assert len(every) == len(PUBLIC.read_text().splitlines())


def test_strict_needs_a_statement_that_it_knows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROW | {"criteria": "Accept if the tape is a palindrome; reject otherwise."})
    assert len(Manufactoria(path, family="all").problems("train")) == 1
    with pytest.raises(UserError, match=r"'one' states nothing that can be checked strictly: choose evaluator=suite"):
        Manufactoria(path, family="all", evaluator="strict").problems("train")


def test_malformed_rows_name_file_line_and_mistake(tmp_path: Path) -> None:
    case = ROW["ground_truth"][0]
    malformed = {
        "{": "line 2 is not JSON",
        "[1]": "expected an object with the columns",
        json.dumps(ROW): "the id 'one' occurs twice",
        json.dumps(ROW | {"id": 7}): "id must be a text, not 7",
        json.dumps(ROW | {"id": "x", "problem_family": None}): "problem_family must be a text",
        json.dumps(ROW | {"id": "x", "criteria": " "}): "criteria must be a text",
        json.dumps({k: v for k, v in ROW.items() if k != "criteria"} | {"id": "x"}): "messages must be a list",
        json.dumps(ROW | {"id": "x", "ground_truth": []}): "ground_truth must be a list of at least one",
        json.dumps(ROW | {"id": "x", "ground_truth": json.dumps([case])}): "ground_truth must be a list",
        json.dumps(ROW | {"id": "x", "ground_truth": [case, 3]}): "test case 2: expected an object",
        json.dumps(ROW | {"id": "x", "ground_truth": [case | {"input": None}]}): "test case 1: input must be a text",
        json.dumps(
            ROW | {"id": "x", "ground_truth": [case | {"check_output": 0}]}
        ): "check_output must be true or false",
    }
    for text, message in malformed.items():
        path = write(tmp_path / "rows.jsonl", ROW, text)
        with pytest.raises(UserError, match=message) as caught:
            Manufactoria(path).problems("test")
        assert f"{path}, line 2" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_without_usable_problems(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no train problem of family='has': it holds nothing"):
        Manufactoria(write(tmp_path / "rows.jsonl", "")).problems("train")
    with pytest.raises(UserError, match="of family='contains_count': it holds contains_substring"):
        Manufactoria(write(tmp_path / "rows.jsonl", ROW), family="contains_count").problems("train")
    with pytest.raises(UserError, match=r"test\.jsonl must be a JSONL file in UTF-8, but cannot be read"):
        Manufactoria(str(tmp_path)).problems("test")
    (tmp_path / "test.jsonl").write_bytes(b"\xff\xfa")
    with pytest.raises(UserError, match=r"test\.jsonl must be a JSONL file in UTF-8"):
        Manufactoria(str(tmp_path)).problems("test")


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        if name.endswith("train"):
            raise ConnectionError("no network")
        return [ROW]

    hub = ModuleType("datasets")
    hub.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert [each.id for each in Manufactoria("hf").problems("test")] == ["one"]
    with pytest.raises(UserError, match="manufactoria/has_train cannot be loaded: no network"):
        Manufactoria("hf").problems("train")
    assert asked == [("manufactoria/has_test", "train"), ("manufactoria/has_train", "train")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"source=hf needs the package datasets: run pip install datasets"):
        Manufactoria("hf").problems("train")
