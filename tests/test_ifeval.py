"""IFEval: the library's checks through our task, strict and loose, data in both sets of columns, without a network."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from test_train import SMALL, finish, metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.config import CONF, validate
from resd.task import Task
from resd.train import train
from resd.types import Problem, UserError, Verdict

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/ifeval_100.parquet"
needs_data = pytest.mark.skipif(
    not DATA.is_file() or importlib.util.find_spec("pyarrow") is None, reason="the shared data or pyarrow is not there"
)
library = ("lm_eval", "nltk", "langdetect", "immutabledict")
needs_library = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in library), reason="needs the extra ifeval"
)
ROW: dict[str, Any] = {
    "key": 7,
    "prompt": "Name a colour. Use no commas and at least three words.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least", "keywords": None}],
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(response: str, id: str, truncated: bool = False, **arguments: Any) -> Verdict:
    problem = Problem("x", "Say hi.", cases=[{"id": id, "arguments": arguments}])
    return envs.load("ifeval").verify(problem, response, truncated)


# ------------------------------------------------------------------------------------------------------ checks


@needs_library
def test_the_self_test_knows_every_check() -> None:
    from resd.envs.ifeval import KNOWN, verifier

    assert sorted(name for name, *_ in KNOWN) == sorted(verifier().instructions_registry.INSTRUCTION_DICT)
    envs.load("ifeval").self_test()


@needs_library
def test_missing_sentences_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nltk's data a check raises, which counts as not followed: only the self-test tells."""
    import nltk

    from resd.envs.ifeval import verifier

    util = verifier().instructions_registry.instructions.instructions_util
    monkeypatch.setattr(nltk.data, "path", [])
    util._get_sentence_tokenizer.cache_clear()
    nltk.data.clear_cache()
    try:
        with pytest.raises(UserError, match="number_sentences does not tell right from wrong"):
            envs.load("ifeval").self_test()
    finally:
        util._get_sentence_tokenizer.cache_clear()


@needs_library
def test_nothing_is_fetched(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import sys\n"
        "from resd import envs\n"
        "envs.load('ifeval').self_test()\n"
        "print([name for name in ('datasets', 'torch') if name in sys.modules])\n"
    )
    bare = {k: v for k, v in os.environ.items() if k != "NLTK_DATA"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@needs_library
@pytest.mark.parametrize(
    ("response", "strict", "loose"),
    [
        ("Hi. *Is that all?*", False, True),  # asterisks
        ("Hi. Is that all?\nBest regards", False, True),  # last line
        ("Hi. Is that all?", True, True),
        ("Is that all? Hi.", False, False),
        ("", False, False),
        ("<think>Is that all?</think>", False, False),
        ("<think>Well.</think>Hi. Is that all?", True, True),
        ("Well.</think>Hi. Is that all?", True, True),
    ],
)
def test_strict_and_loose(response: str, strict: bool, loose: bool) -> None:
    verdict = judge(response, "startend:end_checker", end_phrase="Is that all?")
    assert (verdict.passed, verdict.scores["per_task_loose"]) == (strict, float(loose))
    assert (verdict.reward, verdict.scores["per_case_loose"]) == (float(strict), float(loose))
    assert bool(verdict.feedback) == (not strict)


@needs_library
def test_each_instruction_is_a_case(tmp_path: Path) -> None:
    task = envs.load("ifeval", source=str(write(tmp_path / "rows.jsonl", ROW)))
    assert isinstance(task, Task)
    (problem,) = task.problems("test")
    assert problem.id == "ifeval-7"
    assert task.prompt(problem) == [{"role": "user", "content": ROW["prompt"]}]
    assert problem.cases[1]["arguments"] == {"num_words": 3, "relation": "at least"}
    verdict = task.verify(problem, "Blue or red")
    assert (verdict.passed, verdict.reward, verdict.feedback) == (True, 1.0, "")
    verdict = task.verify(problem, "Blue, dark red", truncated=True)
    assert (verdict.passed, verdict.reward, verdict.cases_passed, verdict.cases_total) == (False, 0.5, 1, 2)
    assert "1 of 2" in verdict.feedback
    assert "no_comma" in verdict.feedback
    assert "number_words" not in verdict.feedback
    assert verdict.feedback.startswith("The response was cut off")


@needs_library
def test_language_detection_does_not_vary() -> None:
    unclear = "da in no am do la per si"
    found = {judge(unclear, "language:response_language", language="it").passed for _ in range(20)}
    assert len(found) == 1


@needs_library
def test_a_check_that_raises_is_not_followed() -> None:
    assert not judge("x", "keywords:existence", keywords=["("]).passed  # no regular expression


# -------------------------------------------------------------------------------------------------------- data

BROKEN = {
    "no key": ({k: v for k, v in ROW.items() if k != "key"}, "expected the columns key"),
    "no prompt": (ROW | {"prompt": " "}, "prompt must be a text"),
    "lengths differ": (ROW | {"kwargs": [{}]}, "lists of the same length"),
    "unknown instruction": (ROW | {"instruction_id_list": ["length:sonnet"], "kwargs": [{}]}, "length:sonnet"),
    "argument missing": (ROW | {"kwargs": [{}, {"num_words": 3, "relation": None}]}, "needs relation in its kwargs"),
}


@needs_library
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_said_in_one_sentence(case: str, tmp_path: Path) -> None:
    row, says = BROKEN[case]
    with pytest.raises(UserError, match=says) as caught:
        envs.load("ifeval", source=str(write(tmp_path / "rows.jsonl", ROW | {"key": 6}, row))).problems("test")
    assert "line 2" in str(caught.value)


@needs_library
def test_keys_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="occurs twice"):
        envs.load("ifeval", source=str(write(tmp_path / "twice.jsonl", ROW, ROW))).problems("test")
    with pytest.raises(UserError, match="has no prompts"):
        envs.load("ifeval", source=str(write(tmp_path / "none.jsonl"))).problems("test")
    with pytest.raises(UserError, match="write hf, or such a path"):
        envs.load("ifeval", source="nowhere")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", _without("langdetect", importlib.util.find_spec))
    with pytest.raises(UserError, match=r"langdetect.*pip install 'lm-eval\[ifeval\]<0.5'"):
        envs.load("ifeval")


def _without(missing: str, find_spec: Any) -> Any:
    return lambda name, *rest: None if name == missing else find_spec(name, *rest)


@needs_library
@needs_data
def test_the_released_rows() -> None:
    task = envs.load("ifeval", source=str(DATA))
    problems = task.problems("test")
    counts = Counter(len(problem.cases) for problem in problems)
    assert (len(problems), counts) == (100, {1: 49, 2: 39, 3: 12})
    assert (problems[0].id, problems[-1].id) == ("ifeval-1000", "ifeval-1546")
    assert len({case["id"] for problem in problems for case in problem.cases}) == 23
    empty = [task.verify(problem, "") for problem in problems]
    assert sum(verdict.cases_passed for verdict in empty) == 0
    assert sum(verdict.cases_total for verdict in empty) == 163
    text = "I cannot help with that.\n\nSorry."
    verdicts = [task.verify(problem, text) for problem in problems]
    assert 0 < sum(verdict.cases_passed for verdict in verdicts) < 163
    assert all(v.scores["per_case_loose"] >= v.reward for v in verdicts)
    assert verdicts == [task.verify(problem, text) for problem in problems]


# -------------------------------------------------------------------------------------------------- whole runs


@needs_library
def test_training_and_evaluation(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    rows = [ROW | {"key": key, "prompt": f"{ROW['prompt']} Number {key}."} for key in range(4)]
    source = DATA if DATA.is_file() and importlib.util.find_spec("pyarrow") else write(tmp_path / "rows.jsonl", *rows)
    kept = [a for a in SMALL if not a.startswith(("task", "rollout.max_prompt", "model.max_prompt"))]
    room = ["rollout.max_prompt=1000", "model.max_prompt=2500", "evaluation.limit=3"]
    own = [*kept, *room, "task=ifeval", f"task.options.source={source}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(validate(compose("config", [*own, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}", "steps=2"])))
    evaluated = of_kind(metrics(tmp_path / "run"), "eval")[-1]
    checkpoint = tmp_path / "run/checkpoints/step_000002"
    made = finish([sys.executable, "-m", "resd.evaluate", *own, f"checkpoint={checkpoint}", "samples=2"])
    found = json.loads(made.splitlines()[-1])
    assert found == {name: evaluated[name] for name in found}
    assert {f"eval/{k}/{s}@2" for k in ("per_task", "per_case_loose") for s in ("mean", "best")} <= found.keys()


@needs_library
def test_as_the_second_task(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", *(ROW | {"key": key} for key in range(4)))
    second = ["forgetting.every=1", "forgetting.samples=2", f"forgetting.task.options.source={source}"]
    rows = of_kind(run(tiny_model, tmp_path / "run", *second), "forgetting")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert "forgetting/per_case/change_low" in rows[-1]
    assert "forgetting/per_task_loose/best@2" in rows[-1]
