"""`hydra/launcher=torchrun`: every job of a Hydra sweep is one torchrun, a process tree of its own.

    python -m resd.train --multirun hydra/launcher=torchrun algorithm.objective.divergence=reverse_kl,jsd

A job has the run directory `SWEEP_DIR/NUMBER_VALUES`, or the `run_dir` that is given, which must differ from job to
job. What it says goes into the file `SWEEP_DIR/NUMBER_VALUES.log`, and to the terminal while jobs run one at a time. A
failed job is reported in a sentence and the sweep goes on; the exit status tells at the end. The same command with the
same `hydra.sweep.dir=…` continues every job. Ports are free ones, chosen by torchrun. No process of a job outlives the
sweep (`resd.sweep.job`).

Not covered: jobs on other machines (docs/cluster.md), and sweepers that ask for the return value of a job.

Hydra looks for plugins in packages called `hydra_plugins` alone; hence this file's place, which `resd.train` puts on
the path.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from resd import again
from resd.advice import quoted
from resd.config import CONF
from resd.settings import Positive, Section
from resd.sweep.job import PATIENCE
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
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopping = False

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Ends the process with status 1 if any of them failed, 2 if the sweep itself cannot be."""
        sweep_dir = Path(self.config.hydra.sweep.dir)
        try:
            slots = _slots(self.values)
            jobs = plan(job_overrides, sweep_dir, initial_job_idx, self._run_dirs(job_overrides, initial_job_idx))
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

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with ThreadPoolExecutor(slots.parallel) as pool:
            try:
                failed = sum(not done for done in pool.map(run, jobs))
            except KeyboardInterrupt:
                print(f"\nstopped; go on with: {again.sweep(sweep_dir)}", file=sys.stderr)
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                sys.exit(130)
        print(f"{len(jobs) - failed} of {len(jobs)} jobs done; compare them: python -m resd.report {sweep_dir}/*")
        if failed:
            sys.exit(1)
        return [JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED) for job in jobs]

    def _run_dirs(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[str] | None:
        """What `run_dir` is in each job, or None if it is left to the sweep."""
        if not any(key == "run_dir" for overrides in job_overrides for key, _ in map(_pair, overrides)):
            return None
        found = []
        for number, overrides in enumerate(job_overrides, start=first):
            composed = self.loader.load_sweep_config(self.config, list(overrides))
            with open_dict(composed):
                composed.hydra.job.id, composed.hydra.job.num = str(number), number
            HydraConfig.instance().set_config(composed)
            try:
                found.append(str(composed.run_dir))
            except OmegaConfBaseException as error:
                raise UserError(f"run_dir of job {number}: {str(error).splitlines()[0]}") from None
        HydraConfig.instance().set_config(self.config)
        return found

    def _run(self, job: Job, slots: Slots, environment: dict[str, str]) -> bool:
        """Whether it went well; says what did not."""
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={slots.nproc_per_node}"]
        program = [sys.executable, "-m", *torchrun, "-m", "resd.train", *self._configuration(), *job.overrides]
        with job.log.open("wb") as log:
            with self.lock:  # whoever stops the sweep finds every process that was started
                if self.stopping:
                    return False
                print(f"{job.name}: {' '.join(job.overrides)}", flush=True)
                process = subprocess.Popen(
                    [sys.executable, "-m", "resd.sweep.job", str(os.getpid()), *program],
                    env={name: v for name, v in os.environ.items() if not name.startswith("PET_")} | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a terminal's Ctrl-C goes to the sweep alone
                )
                self.running.add(process)
            with job.log.open(errors="replace") as said:
                while process.poll() is None:
                    time.sleep(0.1)
                    if slots.parallel == 1:
                        print(said.read(), end="", flush=True)
                if slots.parallel == 1:
                    print(said.read(), end="", flush=True)
        with self.lock:
            self.running.discard(process)
        if process.returncode and not self.stopping:
            errors = [line for line in job.log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
            reason = errors[0].removeprefix("error: ") if errors else f"exit status {process.returncode}"
            print(f"{job.name} failed: {reason} (what it said: {job.log})", file=sys.stderr, flush=True)
        return process.returncode == 0

    def _configuration(self) -> list[str]:
        """What a job has to be told in order to find the files that the sweep was told of."""
        hydra, words = self.config.hydra, []
        where = {source.provider: source.path for source in hydra.runtime.config_sources if source.schema == "file"}
        if "command-line" in where:
            words.append(f"--config-dir={where['command-line']}")
        if where.get("main", str(CONF)) != str(CONF):
            words.append(f"--config-path={where['main']}")
        if hydra.job.config_name != "config":
            words.append(f"--config-name={hydra.job.config_name}")
        if hydra.searchpath:
            words.append(f"hydra.searchpath=[{','.join(map(quoted, hydra.searchpath))}]")
        return words

    def _stop(self) -> None:
        """End the jobs that run, in order as far as they can within twice the patience of `resd.sweep.job`."""
        with self.lock:
            self.stopping = True
            processes = list(self.running)
        for process in processes:
            process.terminate()
        end = time.monotonic() + 2 * PATIENCE
        for process in processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _slots(values: Mapping[str, Any]) -> Slots:
    if "RANK" in os.environ:
        raise UserError("every process of this torchrun would sweep: start the sweep with python -m resd.train")
    try:
        return Slots(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"hydra.launcher.{wrong['loc'][0]}={wrong['input']}: {wrong['msg']}") from None


def plan(
    job_overrides: Sequence[Sequence[str]],
    sweep_dir: Path,
    first: int = 0,
    run_dirs: Sequence[str] | None = None,
) -> list[Job]:
    """The jobs, named by their number and the values in which they differ, in `run_dirs` or in folders of `sweep_dir`.

    Raises UserError where two of them would write into one run directory.
    """
    settings = [dict(map(_pair, overrides)) for overrides in job_overrides]
    swept = [key for key in settings[0] if len({values.get(key) for values in settings}) > 1]
    names = []
    for number, values in enumerate(settings, start=first):
        parts = (re.sub(r"[^\w.-]+", "-", values.get(key, "")).strip("-") for key in swept if key != "run_dir")
        names.append("_".join([f"{number:02}", *filter(None, parts)])[:80])
    run_dirs = run_dirs or [str(sweep_dir / name) for name in names]
    if twice := [run_dir for run_dir, count in Counter(run_dirs).items() if count > 1]:
        raise UserError(
            f"run_dir={twice[0]} is the same for {run_dirs.count(twice[0])} jobs: leave it out, "
            "or name in it what differs, as in 'run_dir=runs/${hydra:job.num}'"
        )
    jobs = []
    for name, overrides, run_dir in zip(names, job_overrides, run_dirs, strict=True):
        others = (word for word in overrides if _pair(word)[0] != "run_dir")
        jobs.append(Job(name, (*others, f"run_dir={quoted(run_dir)}"), sweep_dir / f"{name}.log"))
    return jobs


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value
