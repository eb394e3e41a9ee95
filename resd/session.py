"""One run from start to end: build the services, loop over updates, evaluate, save, resume."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.table import Table
from torch.distributed.device_mesh import DeviceMesh

from resd import checkpoint, config, dist, plan
from resd.algorithms.base import Algorithm
from resd.checkpoint import Checkpoints
from resd.clock import Clock
from resd.config import Config
from resd.engine.base import Engine
from resd.engine.transformers import TransformersEngine
from resd.evaluate import evaluate
from resd.forgetting import Forgetting
from resd.learner import Learner, Objective
from resd.model.build import blank, build_copy, build_student
from resd.model.chat import Chat
from resd.model.hidden import Policy
from resd.model.load import check_context, load_model, read_config
from resd.model.shard import layout
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.report import perf
from resd.report.log import Log, drop_after
from resd.run import Run
from resd.settings import VllmSettings
from resd.stream import Stream
from resd.task import Task
from resd.types import Problem, UserError
from resd.verify import Verifier


class Session:
    """A context manager, so that worker processes and files are left in order."""

    def __init__(self, settings: Config, task: Task, mesh: DeviceMesh, forgetting: Forgetting | None = None) -> None:
        self.config = settings
        objective = build_objective(settings)
        self.run_dir = Path(dist.broadcast(settings.run_dir))
        if settings.hardware.threads is not None:
            torch.set_num_threads(settings.hardware.threads)
        self.dtype = getattr(torch, settings.hardware.dtype)
        mesh = layout(mesh, settings.hardware.shard_processes)
        self.start = self._open_run_dir()

        check_context(settings.model, _longest(settings))
        check_memory(settings)
        chat = Chat(settings.model)
        student = build_student(settings.model, settings.hardware, mesh, settings.seed)
        self.clock = Clock()
        learner = Learner(
            student,
            build_teacher(settings, student, mesh),
            objective,
            settings.optimizer,
            settings.hardware,
            pad_id=chat.pad_id,
            clock=self.clock,
        )
        resumed: dict[str, Any] = {"step": 0, "interactions": 0, "evaluations": {}}
        if self.start:
            resumed = checkpoint.restore(self.start, learner)
        self.evaluations: dict[str, dict[str, float]] = resumed["evaluations"]
        self.forgetting = forgetting
        if forgetting:
            forgetting.restore(resumed.get("forgetting"), resumed["step"])
        self.log = Log(
            self.run_dir if dist.first() else None,
            talks=dist.first(),
            step=resumed["step"] if self.start else -1,
            progress=settings.progress,
        )
        self.learner = learner
        self.run = Run(
            task=task,
            model=settings.model,
            chat=chat,
            engine=build_engine(settings, chat, student),
            verifier=Verifier(task, settings.verify.workers, settings.verify.timeout),
            learner=learner,
            log=self.log,
            clock=self.clock,
            rollout=settings.rollout,
            seed=settings.seed,
            directory=self.run_dir if dist.first() else None,
            peak_flops=perf.measure_flops(settings.hardware.device, self.dtype),
            pipelined=settings.engine.pipelined,
        )
        self.run.step, self.run.interactions = resumed["step"], resumed["interactions"]
        self.run.sync()
        self.algorithm: Algorithm = config.algorithm_module(settings.algorithm.name).Algorithm(
            self.run, settings.algorithm
        )
        if self.start:
            self.algorithm.restore(resumed["algorithm"])
        self.checkpoints = Checkpoints(self.run_dir, keep=settings.checkpoints.keep, dtype=self.dtype)

    def fit(self, stream: Stream, steps: int, test: Sequence[Problem]) -> None:
        """Updates `run.step + 1` to `steps`, with evaluations and checkpoints between them."""
        self._announce(stream, steps)
        self.run.self_test(stream.problems[:4])
        if self.run.step == 0:
            self._measure_forgetting()
            if self.config.evaluation.before:
                self._evaluate(test)
        for step in range(self.run.step + 1, steps + 1):
            self.run.step = step
            attempts, metrics = self.algorithm.update(stream.batch(step))
            metrics = self.run.finish(attempts, metrics)
            self.log.update(step, steps, metrics | self.clock.read())
            if step == steps or _due(step, self.config.forgetting.every):
                self._measure_forgetting()
            if step == steps or _due(step, self.config.evaluation.every):
                self._evaluate(test)
            if step == steps or _due(step, self.config.checkpoints.every):
                self._save()
        self.checkpoints.wait()
        if dist.first():
            self._conclude()

    def _evaluate(self, problems: Sequence[Problem]) -> None:
        metrics, _ = evaluate(self.run, problems, self.config.evaluation)
        self.evaluations[str(self.run.step)] = metrics
        self.log.evaluation(self.run.step, metrics | self.clock.read())

    def _measure_forgetting(self) -> None:
        if self.forgetting:
            metrics = self.forgetting.measure(self.run)
            self.log.forgetting(self.run.step, self.config.forgetting.task.name, metrics)

    def _save(self) -> None:
        with self.clock("checkpoint"):
            state = {
                "interactions": self.run.interactions,
                "evaluations": self.evaluations,
                "samples": self.config.evaluation.samples,
                "forgetting": self.forgetting.base if self.forgetting else None,
                "algorithm": self.algorithm.state(),
            }
            self.checkpoints.save(self.run.step, self.learner, self.run.chat, state)

    def _open_run_dir(self) -> Path | None:
        """The checkpoint to continue from, if any; the directory holds nothing that comes after it."""
        start = checkpoint.find(self.run_dir, self.config.resume)
        step = checkpoint.step_of(start) if start else 0
        self.changes = config.check_same_run(self.run_dir, self.config) if start else []
        dist.barrier()  # every rank has read the old configuration
        if dist.first():
            if self.config.resume == "never" and (self.run_dir / "metrics.jsonl").exists():
                raise UserError(
                    f"run_dir={self.run_dir} holds a run already: write resume=auto, or choose another run_dir"
                )
            for leftover in (self.run_dir / "checkpoints").glob(".step_*"):
                shutil.rmtree(leftover)
            for attempts in (self.run_dir / "attempts").glob("step_*.jsonl"):
                if int(attempts.stem.removeprefix("step_")) > step:
                    attempts.unlink()
            drop_after(self.run_dir / "playbook.jsonl", step)
            (self.run_dir / "config.yaml").write_text(config.dump(self.config))
        dist.barrier()
        return start

    def _announce(self, stream: Stream, steps: int) -> None:
        name = self.config.algorithm.name
        size = perf.parameters(self.learner.policy) / 1e6
        self.log.say(f"[bold]{name}[/] on {self.config.task.name}: {size:.1f} M parameters, {dist.world()} process(es)")
        self.log.say(
            f"{stream.batch_size} problems x {self.config.algorithm.group} rollout(s) an update, {steps} updates; "
            f"run directory {self.run_dir}"
        )
        if self.start:
            self.log.say(f"continuing after update {self.run.step} from {self.start}")
        for change in self.changes:
            self.log.say(f"[yellow]changed since this run began[/] {change}")
        if self.run.step >= steps:
            self.log.say(f"[yellow]nothing to do: this run has made all {steps} updates; raise steps to go on[/]")

    def _conclude(self) -> None:
        """Accuracy before, at the best checkpoint, and at the end."""
        if not self.evaluations:
            return
        best = checkpoint.step_of(self.run_dir / "best")
        steps = sorted({min(map(int, self.evaluations)), best, max(map(int, self.evaluations))})
        shown = [step for step in steps if str(step) in self.evaluations]
        table = Table(title="accuracy on the test split (%)", title_justify="left")
        table.add_column("metric")
        for step in shown:
            table.add_column(f"update {step}" + (" (best)" if step == best else ""), justify="right")
        for name in self.evaluations[str(shown[-1])]:
            if "@" in name:
                values = [f"{100 * self.evaluations[str(step)][name]:.2f}" for step in shown]
                table.add_row(name.removeprefix("eval/"), *values)
        self.log.console.print(table)
        self.log.say(f"best checkpoint by rank sum: {self.run_dir / 'best'}; everything is in {self.run_dir}")

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.verifier.close()
        self.log.close()
        if kind is None:
            self.checkpoints.close()
            self.run.engine.close()


@contextmanager
def evaluation_session(settings: Config, task: Task, out: Path | None) -> Iterator[Run]:
    """A run that only generates and verifies, with the weights of `model.path`."""
    if settings.hardware.threads is not None:
        torch.set_num_threads(settings.hardware.threads)
    chat = Chat(settings.model)
    log = Log(out if dist.first() else None, talks=dist.first(), progress=settings.progress)
    verifier = Verifier(task, settings.verify.workers, settings.verify.timeout)
    try:
        yield Run(
            task=task,
            model=settings.model,
            chat=chat,
            engine=build_engine(settings, chat),
            verifier=verifier,
            learner=None,
            log=log,
            clock=Clock(),
            rollout=settings.rollout,
            seed=settings.seed,
            directory=out if dist.first() else None,
        )
    finally:
        verifier.close()
        log.close()


def check_memory(settings: Config) -> None:
    """Say what this run will hold in memory. Raises UserError if it cannot fit."""
    shape = plan.Shape.of(read_config(settings.model))
    if shape is None:
        return
    processes, host = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), plan.main_memory()
    cuda = settings.hardware.device == "cuda"
    free, device = torch.cuda.mem_get_info() if cuda else (host // processes, 0)
    says = plan.check(shape, settings, dist.world(), plan.Room(device, free, host, processes))
    dist.barrier()  # all have looked before one takes anything
    if dist.first():
        print(says, flush=True)


def build_objective(settings: Config) -> Objective:
    """What the learner minimises; wrong names end here, before a model is read."""
    algorithm = settings.algorithm
    distillation = None
    if algorithm.objective is not None:
        distillation = Distillation(**algorithm.objective.model_dump(), temperature=settings.rollout.temperature)
    return Objective(settings.loss, settings.rollout.temperature, distillation, algorithm.policy_gradient)


def build_teacher(settings: Config, student: Policy, mesh: DeviceMesh) -> Teacher | None:
    """The self-teacher, or None for algorithms without one."""
    wanted = settings.algorithm.teacher
    if wanted is None:
        return None
    shared = wanted.kind == "live" or settings.model.lora is not None
    policy = student if shared else build_copy(settings.model, settings.hardware, mesh, student)
    return Teacher(policy, wanted.kind, wanted.rate)


def build_engine(settings: Config, chat: Chat, student: Policy | None = None) -> Engine:
    """Who generates: with the weights of `model.path`, or, where there is a student, with those of the first sync."""
    engine, device = settings.engine, settings.hardware.device
    if isinstance(engine, VllmSettings):
        from resd.engine.vllm import VllmEngine

        return VllmEngine(
            settings.model.path, engine, eos_ids=chat.eos_ids, max_length=_longest(settings), device=device
        )
    dtype = getattr(torch, engine.dtype)
    return TransformersEngine(
        blank(settings.model, student, device, dtype) if student else load_model(settings.model),
        eos_ids=chat.eos_ids,
        max_batch=engine.max_batch,
        max_length=_longest(settings),
        dtype=dtype,
        device=device,
    )


def _longest(settings: Config) -> int:
    """Tokens of the longest prompt and response of any role."""
    return max(settings.rollout.max_prompt, settings.model.max_prompt) + settings.rollout.max_response


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
