"""Whole runs: every algorithm, divergence and switch; two processes; kill and resume; what a run directory holds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, AutoTokenizer

from resd.config import CONF, validate
from resd.context.playbook import Playbook
from resd.engine.transformers import TransformersEngine
from resd.train import train
from resd.types import UserError

SMALL = [
    "task=custom",
    "task.name=verifier_tasks:Echo",
    "batch_size=4",
    "inner_updates=2",
    "rollout.max_response=12",
    "rollout.max_prompt=200",
    "model.max_prompt=800",
    "evaluation.every=2",
    "evaluation.samples=2",
    "checkpoints.every=1",
    "on_empty=warn",
    "optimizer.lr=1e-3",
]


def run(model: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train in this process; returns metrics.jsonl."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        arguments = [*SMALL, f"model.path={model}", f"run_dir='{run_dir}'", "steps=2", *overrides]
        train(validate(compose("config", arguments)))
    return metrics(run_dir)


def command(model: Path, run_dir: Path, *overrides: str, ranks: int | None = None) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    return [
        sys.executable,
        *launcher,
        "-m",
        "resd.train",
        *SMALL,
        f"model.path={model}",
        f"run_dir={run_dir}",
        *overrides,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


VARIANTS = [
    "algorithm=sdpo",
    "algorithm=sdpo_ss",
    "algorithm=sdpo algorithm.group=2",
    "algorithm=grpo algorithm.group=3",
    "algorithm=grpo algorithm.group=2 algorithm.normalise_std=false optimizer.mini_batches=2",
    "algorithm=resd algorithm.group=2",
    *(
        f"algorithm.objective.divergence={name}"
        for name in ("forward_kl", "jsd", "jeffreys", "squared_hellinger", "total_variation")
    ),
    "algorithm.objective.support=renormalise",
    "algorithm.objective.support=full",
    "algorithm.objective.select=teacher",
    "algorithm.objective.ratio_min=null algorithm.objective.ratio_max=5",
    *(f"algorithm.teacher_prompt.{part}=false" for part in ("playbook", "previous_trial", "feedback", "reflection")),
    "algorithm.teacher_prompt.solution=false algorithm.teacher_prompt.feedback_with_solution=true",
    "algorithm.success_weighting.enabled=false algorithm.tag_successes=false algorithm.distil_self_success=false",
    "algorithm.playbook.concise=prioritized algorithm.playbook.max_entries=1 algorithm.playbook.frequency=1",
    "algorithm.playbook.concise=reset",
    "algorithm.teacher.kind=frozen",
    "algorithm.teacher.kind=live",
    "loss.reduction=token_mean loss.importance_cap=null",
    "model.prompts=full model.output_format=json",
    "rollout.temperature=0.7 rollout.top_p=1.0",
    "hardware.activation_checkpointing=true",
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_runs(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, variant: str) -> None:
    rows = run(tiny_model, tmp_path, *variant.split())
    assert [row["step"] for row in of_kind(rows, "train")] == [1, 2]
    assert all(row["skipped_steps"] == 0 or row["loss"] == 0 for row in of_kind(rows, "train"))


PROMISED = """
train/per_task train/per_case loss grad_norm interactions mismatch_kl topk_mass
playbook/size playbook/added playbook/removed playbook/helpful playbook/harmful reflect/invalid curate/invalid
response/length response/truncated teacher/truncated perf/tokens_per_s perf/mfu perf/peak_memory_gb
time/rollout time/verify time/reflect time/curate time/teacher time/update time/sync
"""


def test_a_run_directory_holds_what_is_promised(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    rows = run(tiny_model, tmp_path, "algorithm.writing.max_response=100")  # noise that holds a whole line
    train_rows, eval_rows = of_kind(rows, "train"), of_kind(rows, "eval")
    assert [row["step"] for row in eval_rows] == [0, 2]
    assert set(PROMISED.split()) <= train_rows[0].keys()
    assert {f"eval/{k}/{s}@2" for k in ("per_task", "per_case") for s in ("mean", "best")} <= eval_rows[0].keys()
    assert train_rows[-1]["interactions"] == 8
    assert train_rows[0]["loss"] > 0
    assert 0 <= train_rows[0]["mismatch_kl"] < 1e-6
    attempts = [json.loads(line) for line in (tmp_path / "attempts/step_000002.jsonl").read_text().splitlines()]
    assert len(attempts) == 4
    assert attempts[0]["prompt"].endswith("<|im_start|>assistant\n")
    assert attempts[0]["teacher_prompt"].endswith("<|im_start|>assistant\n")
    assert attempts[0]["verdict"]["feedback"] in attempts[0]["teacher_prompt"]
    assert [len(a["token_loss"]) for a in attempts] == [a["tokens"] for a in attempts]
    assert all("".join(a.get("token_text", [a["response"]])) == a["response"] for a in attempts)
    judged = {}
    for row in eval_rows:
        lines = (tmp_path / f"evaluations/step_{row['step']:06d}.jsonl").read_text().splitlines()
        judged[row["step"]] = [json.loads(line)["verdict"]["passed"] for line in lines]
        assert sum(judged[row["step"]]) / 16 == row["eval/per_task/mean@2"]
    assert [len(passed) for passed in judged.values()] == [16, 16]
    assert (tmp_path / "config.yaml").is_file()
    assert list((tmp_path / "tensorboard").glob("events*"))
    events = [json.loads(line) for line in (tmp_path / "playbook.jsonl").read_text().splitlines()]
    saved = json.loads((tmp_path / "checkpoints/step_000002/state/run.json").read_text())
    assert Playbook.replay(events).state_dict() == saved["algorithm"]["playbook"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "best" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "best" / "model")
    prompt = tokenizer(attempts[0]["prompt"], return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=2, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_training_changes_the_weights_and_the_engine_follows(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    run(tiny_model, tmp_path)
    before, after = load_file(tiny_model / "model.safetensors"), weights(tmp_path, 2)
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before if before[name].ndim > 1)


def weights(run_dir: Path, step: int) -> dict[str, Any]:
    return load_file(run_dir / f"checkpoints/step_{step:06d}/model/model.safetensors")


def same_end(one: Path, two: Path, step: int) -> None:
    """Same weights, teacher, optimizer, playbook and metrics, to the bit."""
    a, b = weights(one, step), weights(two, step)
    assert all(a[name].equal(b[name]) for name in a)
    states = [json.loads((d / f"checkpoints/step_{step:06d}/state/run.json").read_text()) for d in (one, two)]
    assert states[0]["algorithm"] == states[1]["algorithm"]
    assert (one / "playbook.md").read_text() == (two / "playbook.md").read_text()
    for rows in zip(metrics(one), metrics(two), strict=True):
        left, right = ({k: v for k, v in row.items() if not k.startswith(("time/", "perf/"))} for row in rows)
        assert left == right
    for file in sorted([*(one / "attempts").iterdir(), *(one / "evaluations").iterdir()]):
        assert file.read_text() == (two / file.parent.name / file.name).read_text()


def test_killed_at_any_moment_and_resumed(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extra = ["steps=6", "batch_size=2", "algorithm.teacher.rate=0.1", "hardware.threads=1"]
    run(tiny_model, whole, *extra)
    for step in (1, 4):
        process = subprocess.Popen(
            command(tiny_model, broken, *extra), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and reached(broken) < step:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    capsys.readouterr()
    run(tiny_model, broken, *extra)
    assert "continuing after update" in capsys.readouterr().out
    same_end(whole, broken, 6)
    run(tiny_model, broken, *extra)
    assert "nothing to do" in capsys.readouterr().out
    same_end(whole, broken, 6)


def test_a_lost_rank_ends_the_run_and_two_ranks_resume_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extra = ["steps=4", "batch_size=2", "algorithm.teacher.rate=0.1"]
    finish(command(tiny_model, whole, *extra, ranks=2))
    process = subprocess.Popen(
        command(tiny_model, broken, *extra, ranks=2), env=environment(), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and reached(broken) < 2:
        time.sleep(0.01)
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    victim = next(pid for pid in ranks if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    complaint = process.communicate(timeout=900)[1]
    assert process.returncode != 0
    assert "another one of this run has died" in complaint
    assert f"Signal 9 (SIGKILL) received by PID {victim}" in complaint  # the launcher's part
    assert reached(broken) < 4
    assert "continuing after update" in finish(command(tiny_model, broken, *extra, ranks=2))
    same_end(whole, broken, 4)


def finish(arguments: list[str]) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reached(run_dir: Path) -> int:
    """The last update in metrics.jsonl, whose last line may be half written; -1 for none."""
    file = run_dir / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=-1)


def test_two_processes_equal_one(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path / "1")
    finish(command(tiny_model, tmp_path / "2", "steps=2", ranks=2))
    one, two = (of_kind(metrics(tmp_path / n), "train") for n in ("1", "2"))
    for left, right in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "topk_mass", "response/length", "interactions", "playbook/size"):
            assert left[name] == pytest.approx(right[name], rel=1e-4), name
    a, b = weights(tmp_path / "1", 2), weights(tmp_path / "2", 2)
    for name in a:
        assert (a[name] - b[name]).abs().max() < 1e-4, name
    files = [(tmp_path / n / "attempts/step_000001.jsonl").read_text().splitlines() for n in ("1", "2")]
    for left, right in zip(*([json.loads(line)["token_loss"] for line in file] for file in files), strict=True):
        assert left == pytest.approx(right, rel=0.01, abs=1e-6)


def test_an_engine_with_other_weights_is_found_out(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    with (
        patched_sync(lambda weights: [(name, w * 1.1) for name, w in weights]),
        pytest.raises(UserError, match="disagree"),
    ):
        run(tiny_model, tmp_path)


@contextmanager
def patched_sync(change: Any) -> Iterator[None]:
    """An engine that is given changed weights, as a broken transfer would."""
    whole = TransformersEngine.sync
    TransformersEngine.sync = lambda self, weights: whole(self, change(weights))  # type: ignore[method-assign]
    try:
        yield
    finally:
        TransformersEngine.sync = whole  # type: ignore[method-assign]


def test_never_resumes_over_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path)
    done = subprocess.run(
        command(tiny_model, tmp_path, "steps=2", "resume=never"), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "choose another run_dir" in done.stderr


def test_a_resumed_run_stays_the_same_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path)
    with pytest.raises(UserError, match=r"batch_size=4, not 2"):
        run(tiny_model, tmp_path, "batch_size=2")
    with pytest.raises(UserError, match=r"algorithm\.name=resd, not sdpo"):
        run(tiny_model, tmp_path, "algorithm=sdpo")
    rows = run(tiny_model, tmp_path, "steps=3", "optimizer.lr=1e-4")  # more steps and another rate are fine
    assert [row["lr"] for row in of_kind(rows, "train")] == pytest.approx([5e-4, 1e-3, 1e-4])


def test_evaluate_command(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    rows = run(tiny_model, tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoints/step_000002"
    arguments = [*SMALL[:2], f"checkpoint={checkpoint}", "samples=2", f"out={tmp_path / 'out'}"]
    found = json.loads(finish([sys.executable, "-m", "resd.evaluate", *arguments]).splitlines()[-1])
    expected = of_kind(rows, "eval")[-1]
    assert found == {name: expected[name] for name in found}
    assert len((tmp_path / "out/attempts/step_000000.jsonl").read_text().splitlines()) == 16
