"""Sweeps for real: every job one torchrun, failures told apart, one report in the end."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from test_job import wait_until
from test_train import SMALL, environment, metrics, of_kind

from resd import train
from resd.config import CONF
from resd.report.__main__ import main as report
from resd.sweep.hydra_plugins.torchrun import Slots, TorchrunLauncher, plan
from resd.types import UserError

DIVERGENCES = "algorithm.objective.divergence=reverse_kl,jsd"


def sweep(model: Path, sweep_dir: Path, *overrides: str, **extra: str) -> subprocess.CompletedProcess[str]:
    arguments = [*SMALL, f"model.path={model}", "steps=1", "evaluation.before=false", f"hydra.sweep.dir={sweep_dir}"]
    command = [sys.executable, "-m", "resd.train", "--multirun", *arguments, *overrides]
    return subprocess.run(
        command, env={**environment(), **extra}, capture_output=True, text=True, timeout=600, check=False
    )


def runs_of(sweep_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in sweep_dir.glob("*/metrics.jsonl"))


def test_a_sweep_goes_on_after_a_failure_and_gives_one_report(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/mine.yaml").write_text("name: ???\noptions: {}\n")
    mine, sweep_dir = ["--config-dir", str(tmp_path / "conf"), "task=mine"], tmp_path / "it's a=sweep"
    done = sweep(tiny_model, sweep_dir, *mine, "algorithm.objective.divergence=nonsense,jsd")
    assert done.returncode == 1
    assert "00_nonsense failed: Unknown divergence 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "update 1/1" in done.stdout  # one job at a time speaks here
    assert "1 of 2 jobs done" in done.stdout
    assert runs_of(sweep_dir) == ["01_jsd"]
    assert not (sweep_dir / "00_nonsense").exists()
    (sweep_dir / "02_killed").mkdir()
    assert "update 1/1" in (sweep_dir / "01_jsd.log").read_text()
    assert report([*map(str, sorted(sweep_dir.iterdir())), "--out", str(sweep_dir / "report.html")]) == 0
    assert "02_killed" in capsys.readouterr().out.splitlines()[0]
    page = (sweep_dir / "report.html").read_text()
    assert "jsd" in page


@pytest.mark.slow
def test_the_ready_sweep_and_its_report(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["sweep=divergence_playbook", "hydra.launcher.parallel=2", "hydra.launcher.nproc_per_node=2", "steps=2"]
    done = sweep(tiny_model, tmp_path, *both)
    assert done.returncode == 0, done.stderr
    names = ["00_reverse_kl_60", "01_reverse_kl_120", "02_jsd_60", "03_jsd_120"]
    assert runs_of(tmp_path) == names
    assert "update 2/2" not in done.stdout  # jobs side by side speak into their files
    for name in names:
        assert [row["step"] for row in of_kind(metrics(tmp_path / name), "train")] == [1, 2]
        assert "2 process(es)" in (tmp_path / f"{name}.log").read_text()
    assert report([*map(str, sorted(tmp_path.iterdir())), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    for label in ("objective.divergence=reverse_kl playbook.max_entries=60", "objective.divergence=jsd"):
        assert label in page
    again = sweep(tiny_model, tmp_path, *both)  # the same command continues: there is nothing left to do
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in (tmp_path / f"{names[0]}.log").read_text()


def test_the_ready_sweep_is_what_the_readme_says() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", ["sweep=divergence_playbook"], return_hydra_config=True)
    assert composed.hydra.launcher["_target_"] == "hydra_plugins.torchrun.TorchrunLauncher"
    assert dict(composed.hydra.sweeper.params) == {
        "algorithm.objective.divergence": "reverse_kl,jsd",
        "algorithm.playbook.max_entries": "60,120",
    }


def test_jobs_are_named_by_what_differs() -> None:
    jobs = plan([["seed=0", "task.name=a:B", "steps=2"], ["seed=0", "task.name=a/c d", "steps=2"]], Path("runs/x"))
    assert [job.name for job in jobs] == ["00_a-B", "01_a-c-d"]
    assert jobs[1].overrides == ("seed=0", "task.name=a/c d", "steps=2", 'run_dir="runs/x/01_a-c-d"')
    assert jobs[1].log == Path("runs/x/01_a-c-d.log")
    assert [job.name for job in plan([["seed=3"]], Path("x"), first=7)] == ["07"]


def test_a_run_dir_of_ones_own() -> None:
    jobs = plan([["seed=0", "run_dir=r/${seed}"], ["seed=1", "run_dir=r/${seed}"]], Path("x"), run_dirs=["r/0", "r/1"])
    assert [job.overrides for job in jobs] == [("seed=0", 'run_dir="r/0"'), ("seed=1", 'run_dir="r/1"')]
    with pytest.raises(UserError, match="run_dir=r is the same for 2 jobs"):
        plan([["seed=0", "run_dir=r"], ["seed=1", "run_dir=r"]], Path("x"), run_dirs=["r", "r"])


def test_a_run_dir_is_what_it_is_in_each_job() -> None:
    launcher = TorchrunLauncher(nproc_per_node=1, parallel=1, devices=None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", return_hydra_config=True)
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        launcher.setup(hydra_context=context, task_function=None, config=composed)
        swept = [["algorithm=resd"], ["algorithm=sdpo"]]
        for text, expected in (
            ("r/${hydra:job.num}", ["r/3", "r/4"]),
            ("r/${algorithm.name}", ["r/resd", "r/sdpo"]),
            ("r/${task.name}", ["r/manufactoria"] * 2),
        ):
            assert launcher._run_dirs([[*words, f"run_dir={text}"] for words in swept], 3) == expected
        assert launcher._run_dirs(swept, 0) is None
        with pytest.raises(UserError, match="run_dir of job 0"):
            launcher._run_dirs([["run_dir=${nothing}"]], 0)


def test_devices_are_shared_out() -> None:
    shares = Slots(nproc_per_node=2, parallel=2, devices=(4, 5, 6, 7)).environments()
    assert shares == [{"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "6,7"}]
    assert Slots(nproc_per_node=2, parallel=3, devices=None).environments() == [{}, {}, {}]
    with pytest.raises(UserError, match="names 3 GPUs"):
        Slots(nproc_per_node=2, parallel=2, devices=(0, 1, 2)).environments()


@pytest.mark.parametrize(
    ("overrides", "rank", "says"),
    [
        (["hydra.launcher.parallel=0"], {}, "error: hydra.launcher.parallel=0: "),
        (["hydra.launcher.parallel=2", "hydra.launcher.devices=[0]"], {}, "error: hydra.launcher.devices names 1 GPUs"),
        ([], {"RANK": "0"}, "error: every process of this torchrun would sweep"),
        (["run_dir=r/${task.name}"], {}, "error: run_dir=r/verifier_tasks:Echo is the same for 2 jobs: leave it out"),
        (["hydra/launcher=basic"], {}, "error: the jobs of this sweep would share one run directory"),
    ],
    ids=["value", "devices", "torchrun", "run_dir", "basic"],
)
def test_a_sweep_that_cannot_be(
    tiny_model: Path, tmp_path: Path, overrides: list[str], rank: dict[str, str], says: str
) -> None:
    done = sweep(tiny_model, tmp_path, DIVERGENCES, *overrides, **rank)
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1
    assert not runs_of(tmp_path)


@pytest.mark.parametrize(
    ("number", "started"),  # of the processes of a job: its guard, torchrun, a rank
    [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 2), (signal.SIGKILL, 3)],
)
def test_an_interrupted_sweep_leaves_nobody_behind(
    tiny_model: Path, tmp_path: Path, number: signal.Signals, started: int
) -> None:
    arguments = [*SMALL, f"model.path={tiny_model}", "steps=1", f"hydra.sweep.dir={tmp_path}"]
    command = [sys.executable, "-m", "resd.train", "--multirun", "hydra/launcher=torchrun", DIVERGENCES, *arguments]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(processes_of(tmp_path / "00_reverse_kl")) >= started)
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    if number == signal.SIGKILL:
        wait_until(lambda: not processes_of(tmp_path))
    else:
        assert process.returncode == 130
        assert "go on with: python -m resd.train --multirun hydra/launcher=torchrun" in said
        assert said.strip().endswith(f"hydra.sweep.dir={tmp_path}")
    assert "Traceback" not in said
    assert not (tmp_path / "01_jsd.log").exists()
    assert not processes_of(tmp_path)


def test_a_rank_ends_with_its_torchrun(tiny_model: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "resd.train"]
    run_dir = f'run_dir="{tmp_path / "run"}"'
    process = subprocess.Popen(
        [*torchrun, *SMALL, f"model.path={tiny_model}", run_dir],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until((tmp_path / "run").exists)  # by its rank
    process.kill()
    process.wait()
    wait_until(lambda: not processes_of(tmp_path))


def processes_of(run_dir: Path) -> list[str]:
    """Command lines that name a run directory under `run_dir`."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(entry.read_text())
    return [line for line in lines if f'run_dir="{run_dir}' in line]


def test_jobs_within_one_process_do_not_share_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Hydra's own launcher."""
    swept = SimpleNamespace(mode=RunMode.MULTIRUN)
    monkeypatch.setattr(train, "HydraConfig", SimpleNamespace(get=lambda: swept))
    monkeypatch.setattr(train, "_DIRECTORIES", set())
    for run_dir in ("one", "two"):
        assert train._alone_in_its_directory(OmegaConf.create({"run_dir": run_dir})).run_dir == run_dir
    with pytest.raises(UserError, match="one is that of an earlier job"):
        train._alone_in_its_directory(OmegaConf.create({"run_dir": "./one"}))
    swept.mode = RunMode.RUN
    train._alone_in_its_directory(OmegaConf.create({"run_dir": "one"}))
