"""BouncingSim as a task: what programs of known quality get, judging, feedback, rows, options, and whole runs."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import hostile
import pytest
from bouncing_programs import FLAGS, fenced, program
from hydra import compose, initialize_config_dir
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.config import CONF, Config, validate
from resd.envs.bouncingsim import BouncingSim
from resd.envs.bouncingsim.grade import Case, Result, extract
from resd.envs.bouncingsim.rows import from_facts, parse_assertion
from resd.envs.bouncingsim.scenes import TIMES, draw
from resd.envs.bouncingsim.simulator import trace
from resd.task import Task
from resd.train import train
from resd.types import Problem, UserError, Verdict
from resd.verify import Verifier

PUBLIC = Path(__file__).resolve().parents[2] / "shared/data/bouncingsim_public.jsonl"
needs_data = pytest.mark.skipif(not PUBLIC.is_file(), reason="the shared data is not there")

PATIENT = 20.0  # seconds of a call, more than a harmless program takes on the busiest machine


def problem(level: str = "easy", number: int = 0) -> Problem:
    task = BouncingSim(level=level)
    return from_facts("one", draw(level, f"0:{level}:test:{number}"), level, task._ask)


# ------------------------------------------------------------------------------------------------------ judging


TABLE = {  # share of tests and of scenes passed, in percent: easy, medium
    "straight": ((23.3, 0), (15.8, 0)),
    "walls only": ((69.4, 46.5), (38.3, 4)),
    "equal masses": ((89.9, 73), (67.3, 26)),
    "exact": ((99.7, 99.5), (100, 100)),
}


@needs_data
@pytest.mark.parametrize("kind", FLAGS)
def test_programs_that_know_a_part_of_the_physics(kind: str) -> None:
    task = BouncingSim(source=str(PUBLIC), level="all", seconds=PATIENT)
    verdicts: dict[str, list[Verdict]] = {"easy": [], "medium": []}
    for each in task.problems("test"):
        verdicts[each.family].append(task.verify(each, fenced(program(each.cases[0].facts, kind))))
    for found, expected in zip(verdicts.values(), TABLE[kind], strict=True):
        shares = (sum(v.case_fraction for v in found), sum(v.passed for v in found))
        assert [100 * share / len(found) for share in shares] == pytest.approx(expected, abs=3)
        assert all(bool(v.feedback) != v.passed for v in found)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("no block", None),
        ("```python\nx = 1", None),
        ("```python\nx = 1\n```", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("<think>```python\nx = 1\n```</think>", "x = 1"),
        ("```python\nx = 1\n``` then ```python\ny = 2\n``` and ```python", "y = 2"),
    ],
)
def test_the_last_block_is_the_answer(response: str, answer: str | None) -> None:
    assert extract(response) == answer
    if answer is None:
        for truncated, kind in ((False, "no_answer"), (True, "truncated")):
            verdict = BouncingSim(seconds=PATIENT).verify(problem(), response, truncated)
            assert (verdict.reward, verdict.passed, verdict.cases_total, verdict.error) == (0.0, False, 15, kind)
            assert verdict.feedback


def table_of(each: Problem, change: str = "[x, y]") -> str:
    """A program that repeats the true positions, changed."""
    known = {case.time: case.positions for case in each.cases}
    return f"def predict_position(t):\n    return [{change} for x, y in {known}[t]]"


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ("[x, y]", 15),
        ("(x, y, 'a label')[:2]", 15),
        ("[x, y, 7]", 15),
        ("[x + 50, y]", 15),
        ("[x, y - 50.01]", 0),
        ("[x + 49, y] if t < 1 else [x, y + 51]", 9),
        ("[x, y] if t != 0.5 else [x, float('nan')]", 14),
        ("[x, y] if t != 0.5 else q", 14),
        ("[str(x), y]", 0),
        ("[[x], [y]]", 0),
        ("x", 0),
    ],
)
def test_tolerance_and_form(change: str, passed: int) -> None:
    each = problem()
    for reward in ("sparse", "dense"):
        verdict = BouncingSim(reward=reward, seconds=PATIENT).verify(each, fenced(table_of(each, change)))
        assert (verdict.cases_passed, verdict.cases_total, verdict.passed) == (passed, 15, passed == 15)
        assert verdict.reward == (passed / 15 if reward == "dense" else float(passed == 15))


def test_the_mean_counts() -> None:
    """With three balls, one may be 150 m off."""
    each = problem()
    source = (
        table_of(each).replace("[[x, y] for x, y in ", "(lambda p: [[p[0][0], p[0][1] + {0}], *p[1:]])(")[:-1] + ")"
    )
    assert BouncingSim(seconds=PATIENT).verify(each, fenced(source.replace("{0}", "149"))).passed
    assert BouncingSim(seconds=PATIENT).verify(each, fenced(source.replace("{0}", "151"))).cases_passed == 0


HOSTILE = hostile.VALUES | hostile.ENDINGS | hostile.MEMORY


def test_hostile_programs_earn_nothing() -> None:
    task, each = BouncingSim(reward="dense", seconds=0.2), problem()
    right = fenced(table_of(each))
    for name, source in HOSTILE.items():
        verdict = task.verify(each, fenced(source))
        assert (verdict.reward, verdict.cases_passed) == (0.0, 0), name
        assert verdict.feedback
        verdict.feedback.encode()
    assert BouncingSim(seconds=PATIENT).verify(each, right).passed


def test_a_program_cannot_find_what_is_expected() -> None:
    """The true positions are nowhere in the process that runs it."""
    each = problem()
    x = each.cases[7].positions[0][0]
    source = f"""
import gc
def predict_position(t):
    return sum(type(o) is list and {x} in [v for v in o if type(v) is float] for o in gc.get_objects())
"""
    verdict = BouncingSim(feedback="official", seconds=PATIENT).verify(each, fenced(source))
    assert verdict.error == "bad_value"
    assert "Returned: 0" in verdict.feedback


# ----------------------------------------------------------------------------------------------------- feedback


def test_default_feedback_gives_no_true_position_away() -> None:
    for number in range(8):
        each = problem("medium", number)
        for kind in ("straight", "walls only"):
            for style in ("full", "compact"):
                task = BouncingSim(feedback=style, seconds=PATIENT)
                verdict = task.verify(each, fenced(program(each.cases[0].facts, kind)))
                numbers = {float(word) for word in re.findall(r"\d+(?:\.\d+)?", verdict.feedback)}
                coarse = {number for number in numbers if number % 10 == 0}  # distances, to 10 m
                assert numbers <= {*TIMES, *range(16), 50} | coarse
                assert f"{verdict.cases_passed} of 15 tests pass" in verdict.feedback


def test_full_feedback_explains() -> None:
    each = problem()
    facts = each.cases[0].facts
    results = BouncingSim(seconds=PATIENT).verify(each, fenced(program(facts, "straight"))).feedback.splitlines()
    first = next(case for case in each.cases if f"At t = {case.time}, the first time that is off" in results[2])
    contacts = trace(facts, [first.time])[1]
    assert contacts
    assert any("had truly met by then: a wall" in line or "then: ball" in line for line in results)
    assert any("beyond a wall" in line for line in results)
    hung = "def predict_position(t):\n    while t > 1: pass\n    return [[1, 2]] * 3"
    for seconds in (0.2, 1.0, 5.0, 25.0):  # as long as this machine needs for what does not hang
        text = BouncingSim(seconds=seconds).verify(each, fenced(hung)).feedback
        if "1.1 to 1.5 timeout" in text:
            break
    assert "overlap" in text
    assert "1.1 to 1.5 timeout" in text


def test_official_feedback() -> None:
    each = problem()
    task = BouncingSim(feedback="official", seconds=PATIENT)
    text = task.verify(each, fenced(program(each.cases[0].facts, "straight"))).feedback
    failing = [int(number) for number in re.findall(r"(?m)^Test (\d+): wrong", text)]
    assert len(failing) == 3
    assert f"Passed tests: {failing[0] - 1}/15" in text
    assert f"Largest time that passes: {TIMES[failing[0] - 2]:.2f} (test {failing[0] - 1})" in text
    for number in failing:
        assert all(f"expected {list(position)}" in text for position in each.cases[number - 1].positions)
    assert len(text) <= 2000
    broken = task.verify(each, fenced(table_of(each, "[x, y] if t < 0.35 else [x, 1 / 0]"))).feedback
    assert "Test 4: Runtime error\nZeroDivisionError: division by zero\nline 2" in broken
    assert f"assert check_distance(predict_position(0.40), {each.cases[3].positions}) <= 50.0" in broken
    assert broken.count("expected") == 0
    hung = BouncingSim(feedback="official", seconds=0.2).verify(
        each, fenced("def predict_position(t):\n while 1: pass")
    )
    assert "Time limit exceeded" in hung.feedback


# --------------------------------------------------------------------------------------------------------- rows


def assertion(each: Case) -> str:
    return f"assert check_distance(predict_position({each.time:.2f}), {each.positions}) <= 50.0"


def official_row(each: Problem) -> dict[str, Any]:
    messages = [{"role": "user", "content": each.statement}]
    tests = [assertion(case) for case in each.cases]
    return {"id": each.id, "messages": messages, "ground_truth": tests, "difficulty": 1, "tolerance": 50.0}


def test_published_rows(tmp_path: Path) -> None:
    each = problem()
    (tmp_path / "test.jsonl").write_text(json.dumps(official_row(each)) + "\n")
    [loaded] = BouncingSim(source=str(tmp_path)).problems("test")
    assert loaded.statement == each.statement
    assert [(c.time, c.positions) for c in loaded.cases] == [(c.time, c.positions) for c in each.cases]
    assert BouncingSim(seconds=PATIENT).verify(loaded, fenced(table_of(each))).passed
    failed = BouncingSim(seconds=PATIENT).verify(loaded, fenced(table_of(each, "[x + 99, y]")))
    assert "0 of 15" in failed.feedback
    with pytest.raises(UserError, match=r"no test problem of level='medium'"):
        BouncingSim(source=str(tmp_path), level="medium").problems("test")


@needs_data
def test_rows_of_facts() -> None:
    problems = BouncingSim(source=str(PUBLIC), level="all").problems("test")
    assert len(problems) == 300
    assert sum(each.family == "easy" for each in problems) == 200
    assert [case.positions for case in problems[3].cases] == json.loads(PUBLIC.read_text().splitlines()[3])[
        "expected_positions"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        None,
        3,
        "assert True",
        "assert check_distance(predict_position(0.1), [[1, 2]]) < 50",
        "assert check_distance(predict_position(0.1), [[1, 2]]) <= 50; import os",
        "assert check_distance(predict_position(0.1), [[1, 2, 3]]) <= 50",
        "assert check_distance(predict_position(0.1), []) <= 50",
        "assert check_distance(predict_position(0.1), [[1, True]]) <= 50",
        "assert check_distance(predict_position('0.1'), [[1, 2]]) <= 50",
        "assert check_distance(predict_position(0.1), [[1, 1e999]]) <= 50",
        "assert check_distance(predict_position(0.1), [[1, print('run')]]) <= 50",
        "assert check_distance(predict_position(print('run')), [[1, 2]]) <= 50",
        "assert check_distance(other(0.1), [[1, 2]]) <= 50",
        "assert check_distance(predict_position(0.1), 3) <= 50",
        "(" * 10000,
        "assert check_distance(predict_position(0.1), " + "[" * 500 + "]" * 500 + ") <= 50",
    ],
)
def test_a_test_is_parsed_and_never_run(text: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_assertion(text)
    assert capsys.readouterr().out == ""


FACTS = {
    "container": {"sides": 4, "circumradius_m": 375.0, "center": [750, 750]},
    "objects": [{"sides": 5, "circumradius_m": 20.0, "position": [750, 750], "velocity": [1, 1]}],
}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "expected an object"),
        ('{"id": 3}', "a text under id"),
        ('{"id": "a"}', "ground_truth must be a list"),
        ('{"id": "a", "ground_truth": ["assert x"]}', "a test must read assert check_distance"),
        (json.dumps({**official_row(problem()), "messages": []}), "messages must be a list"),
        ('{"id": "a", "facts": []}', "a scene needs sides"),
        (json.dumps({"id": "a", "facts": {**FACTS, "gravity": [0, 1]}}), "gravity"),
        (
            json.dumps({"id": "a", "facts": FACTS, "expected_positions": [[[1, 2]]], "times": []}),
            "times must be a list",
        ),
        (json.dumps({"id": "a", "facts": FACTS, "expected_positions": [[]], "times": [1]}), "one list for each"),
        (json.dumps({"id": "a", "facts": FACTS, "expected_positions": [["ab"]], "times": [1]}), "finite numbers"),
        (json.dumps({"id": "a", "facts": FACTS}) + "\n" + json.dumps({"id": "a", "facts": FACTS}), "occurs twice"),
        ("", "has no test problem"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(UserError) as caught:
        BouncingSim(source=str(path)).problems("test")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


# --------------------------------------------------------------------------------------------------------- task


@pytest.mark.parametrize(
    "options",
    [
        {"level": "hard"},
        {"prompt": "long"},
        {"feedback": "none"},
        {"reward": 1},
        {"physics": "x"},
        {"source": "/nowhere"},
        {"seconds": 0},
        {"levle": "easy"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        envs.load("bouncingsim", **options)


def test_prompts() -> None:
    facts = draw("medium", "x")
    full, stated, compact = (
        BouncingSim(prompt=kind, physics=physics)._ask(facts)
        for kind, physics in (("full", "hinted"), ("full", "stated"), ("compact", "hinted"))
    )
    assert "each other" not in full
    assert "mass" not in full + compact
    assert "proportional to its area" in stated
    for body in facts["objects"]:
        assert f"({body['velocity'][0]:.2f}, {body['velocity'][1]:.2f})" in full
        assert f"ball {body['sides']} 20 {body['position'][0]} {body['position'][1]}" in compact
    assert f"{len(facts['objects'])} balls" in full
    assert not re.search(r"\b(50|0\.1|1\.5)\b", full)  # neither tolerance nor times


def test_in_worker_processes() -> None:
    task = BouncingSim(seconds=PATIENT)
    assert isinstance(task, Task)
    assert pickle.loads(pickle.dumps(task)).self_test().startswith("programs are held by ")
    each = problem()
    responses = [fenced(table_of(each)), "nothing", fenced(program(each.cases[0].facts, "exact"))] * 4
    verifier = Verifier(task, workers=2, timeout=60.0)
    try:
        verdicts = dict(verifier.verify([(each, response, False) for response in responses]))
    finally:
        verifier.close()
    assert [verdicts[i] and verdicts[i].reward for i in range(12)] == [1.0, 0.0, 1.0] * 4


def test_the_self_test_notices_a_broken_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    task = BouncingSim(seconds=PATIENT)
    for broken, says in ((True, "passes"), (False, "fails: ")):
        monkeypatch.setattr(Result, "passed", property(lambda _, broken=broken: broken))
        with pytest.raises(UserError, match=says):
            task.self_test()


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", list(overrides)))


def test_configurations() -> None:
    for name, level in (("bouncingsim", "easy"), ("bouncingsim_medium", "medium")):
        settings = composed(f"task={name}")
        task = envs.load(settings.task.name, **settings.task.options)
        assert isinstance(task, BouncingSim)
        assert (task.level, task.prompt_kind, task.feedback) == (level, "compact", "compact")


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    small = ["batch_size=3", "rollout.max_response=12", "rollout.max_prompt=300", "model.max_prompt=900", "steps=2"]
    small += ["evaluation.samples=1", "evaluation.limit=3", f"model.path={tiny_model}", f"run_dir={tmp_path}"]
    train(composed("task=bouncingsim", *small))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2]
    assert all(row["verify/lost"] == row["rollout/lost"] == 0 for row in rows if row["kind"] == "train")
