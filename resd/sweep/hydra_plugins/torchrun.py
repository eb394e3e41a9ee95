"""`hydra/launcher=torchrun`: every job of a Hydra sweep is one torchrun, a process tree of its own.

    python -m resd.train --multirun hydra/launcher=torchrun algorithm.objective.divergence=reverse_kl,jsd

A job has the run directory `SWEEP_DIR/NUMBER_VALUES` (unless `run_dir` is given), and what it says goes into the file
`SWEEP_DIR/NUMBER_VALUES.log`, and to the terminal while jobs run one at a time. A failed job is reported in a sentence
and the sweep goes on; the exit status tells at the end. The same command with the same `hydra.sweep.dir=…` continues
every job. Ports are free ones, chosen by torchrun.

Not covered: jobs on other machines (docs/cluster.md), and sweepers that ask for the return value of a job.

Hydra looks for plugins in packages called `hydra_plugins` alone; hence this file's place, which `resd.train` puts on
the path.
"""

import os
import queue
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from pydantic import ValidationError

from resd.settings import Positive, Section
from resd.types import UserError


class Slots(Section):
    """How many jobs run at a time, with how many processes each, on which GPUs."""

    nproc_per_node: Positive
    parallel: Positive
    devices: tuple[int, ...] | None

    def environments(self) -> list[dict[str, str]]:
        """What each of the jobs at a time adds to its environment. UserError if there are too few devices."""
        if self.devices is None:
            return [{}] * self.parallel
        size = self.nproc_per_node
        if len(self.devices) < size * self.parallel:
            raise UserError(
                f"hydra.launcher.devices names {len(self.devices)} GPUs, {self.parallel} job(s) of {size} process(es) "
                f"need {size * self.parallel}: name more, or lower hydra.launcher.parallel"
            )
        shares = [self.devices[i * size : (i + 1) * size] for i in range(self.parallel)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(map(str, share))} for share in shares]


@dataclass(frozen=True, slots=True)
class Job:
    """One point of the sweep; `overrides` are what the child's command line says."""

    name: str
    overrides: tuple[str, ...]
    log: Path


class TorchrunLauncher(Launcher):
    """Hydra's plugin interface; the values stand in conf/hydra/launcher/torchrun.yaml."""

    def __init__(self, **slots: Any) -> None:
        self.values = slots
        self.running: set[subprocess.Popen[str]] = set()

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Ends the process with status 1 if any of them failed, 2 if the sweep itself cannot be."""
        sweep_dir = Path(self.config.hydra.sweep.dir)
        try:
            slots = _slots(self.values)
            jobs = plan(job_overrides, sweep_dir, initial_job_idx)
            free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
            for environment in slots.environments():
                free.put(environment)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        sweep_dir.mkdir(parents=True, exist_ok=True)

        def run(job: Job) -> bool:
            environment = free.get()
            try:
                return self._run(job, slots, environment)
            finally:
                free.put(environment)

        with ThreadPoolExecutor(slots.parallel) as pool:
            try:
                failed = sum(not done for done in pool.map(run, jobs))
            except KeyboardInterrupt:
                print(f"\nstopped; the same command with hydra.sweep.dir={sweep_dir} continues", file=sys.stderr)
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    process.terminate()
                sys.exit(130)
        print(f"{len(jobs) - failed} of {len(jobs)} jobs done; compare them: python -m resd.report {sweep_dir}/*")
        if failed:
            sys.exit(1)
        return [JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED) for job in jobs]

    def _run(self, job: Job, slots: Slots, environment: dict[str, str]) -> bool:
        """Whether it went well; says what did not."""
        print(f"{job.name}: {' '.join(job.overrides)}", flush=True)
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={slots.nproc_per_node}"]
        with (
            job.log.open("w") as log,
            subprocess.Popen(
                [sys.executable, "-m", *torchrun, "-m", "resd.train", *job.overrides],
                env={name: v for name, v in os.environ.items() if not name.startswith("PET_")} | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            self.running.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                if slots.parallel == 1:
                    print(line, end="", flush=True)
        self.running.discard(process)
        if process.returncode:
            errors = [line for line in job.log.read_text().splitlines() if line.startswith("error: ")]
            reason = errors[0].removeprefix("error: ") if errors else f"exit status {process.returncode}"
            print(f"{job.name} failed: {reason} (what it said: {job.log})", file=sys.stderr, flush=True)
        return process.returncode == 0


def _slots(values: Mapping[str, Any]) -> Slots:
    if "RANK" in os.environ:
        raise UserError("every process of this torchrun would sweep: start the sweep with python -m resd.train")
    try:
        return Slots(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"hydra.launcher.{wrong['loc'][0]}={wrong['input']}: {wrong['msg']}") from None


def plan(job_overrides: Sequence[Sequence[str]], sweep_dir: Path, first: int = 0) -> list[Job]:
    """The jobs, named by their number and the values in which they differ.

    Raises UserError where all of them would write into one run directory.
    """
    settings = [dict(override.split("=", 1) for override in overrides) for overrides in job_overrides]
    swept = [key for key in settings[0] if len({values.get(key) for values in settings}) > 1]
    run_dir = settings[0].get("run_dir")
    if run_dir is not None and "run_dir" not in swept and "${" not in run_dir and len(settings) > 1:
        raise UserError(f"run_dir={run_dir} is the same for all {len(settings)} jobs: leave it out")
    jobs = []
    for number, (overrides, values) in enumerate(zip(job_overrides, settings, strict=True), start=first):
        name = "_".join([f"{number:02}", *(re.sub(r"[^\w.-]+", "-", values[key]).strip("-") for key in swept)])[:100]
        own = () if run_dir is not None else (f"run_dir='{sweep_dir / name}'",)
        jobs.append(Job(name, (*overrides, *own), sweep_dir / f"{name}.log"))
    return jobs
