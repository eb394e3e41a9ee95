"""One run from start to end: open its directory, loop over updates, evaluate, save, resume."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from torch.distributed.device_mesh import DeviceMesh

from resd import algorithms, checkpoint, config, dist
from resd.checkpoint import Checkpoints
from resd.clock import Clock
from resd.config import Config
from resd.evaluation import evaluate
from resd.forgetting import Forgetting
from resd.guard import Guard
from resd.learner import Learner
from resd.model.build import build_student
from resd.model.chat import Chat
from resd.model.load import check_context
from resd.model.shard import layout
from resd.report import perf
from resd.report.journal import Journal
from resd.report.log import Log
from resd.run import Run
from resd.rundir import RunDir
from resd.services import build_engine, build_objective, build_teacher, check_memory, check_teacher, longest
from resd.speech import Speech
from resd.stream import Fingerprint, Stream, check_same_problems, fingerprint
from resd.task import Task
from resd.types import Problem, UserError
from resd.verify import Verifier


class Session:
    """A context manager, so that worker processes, files and the run directory are left in order."""

    def __init__(
        self,
        settings: Config,
        task: Task,
        mesh: DeviceMesh,
        stream: Stream,
        test: Sequence[Problem],
        forgetting: Forgetting | None = None,
    ) -> None:
        self.config, self.stream, self.test, self.forgetting = settings, stream, test, forgetting
        self.problems = {"training": fingerprint(task, stream.problems), "test": fingerprint(task, test)}
        if forgetting:
            self.problems["forgetting"] = fingerprint(forgetting.task, forgetting.problems)
        check_same_on_all_ranks(self.problems, settings)
        objective = build_objective(settings)
        if settings.hardware.threads is not None:
            torch.set_num_threads(settings.hardware.threads)
        self.dtype = getattr(torch, settings.hardware.dtype)
        mesh = layout(mesh, settings.hardware.shard_processes)
        self.directory = RunDir(settings.run_dir)
        self.run_dir = self.directory.path
        try:
            resumed = self._open()
            self._build(task, mesh, objective, resumed)
        except BaseException:
            self.directory.close()
            raise

    def _open(self) -> dict[str, Any]:
        """Find where to go on; what `run.json` says of it. Nothing is changed yet."""
        settings = self.config
        self.start, self.damaged = checkpoint.find(self.run_dir, settings.resume)
        resumed: dict[str, Any] = {"step": 0, "interactions": 0, "evaluations": {}}
        self.changes: list[str] = []
        if self.start:
            resumed = checkpoint.read_run(self.start)
            self.changes = config.check_same_run(self.run_dir, settings)
            check_same_problems(f"run_dir={self.run_dir}", resumed.get("problems", {}), self.problems)
        self.directory.check(self.start, resumed["step"], fresh=settings.resume == "never")
        return resumed

    def _build(self, task: Task, mesh: DeviceMesh, objective: Any, resumed: dict[str, Any]) -> None:
        settings = self.config
        check_context(settings.model, longest(settings))
        chat = Chat(settings.model)
        check_teacher(settings, chat)
        check_memory(settings)
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
        if self.start:
            checkpoint.restore(self.start, learner)
        self.evaluations: dict[str, dict[str, float]] = resumed["evaluations"]
        if self.forgetting:
            self.forgetting.restore(resumed.get("forgetting"), resumed["step"])
        self.directory.begin(resumed["step"] if self.start else None, config.dump(settings))
        self.log = Log(
            self.run_dir if dist.first() else None,
            talks=dist.first(),
            step=resumed["step"] if self.start else -1,
            progress=settings.progress,
        )
        self.learner = learner
        self.journal = Journal(self.log)
        self.journal.step, self.journal.interactions = resumed["step"], resumed["interactions"]
        self.guard = Guard(self.journal, settings.on_empty)
        self.run = Run(
            task=task,
            model=settings.model,
            speech=Speech(
                chat,
                build_engine(settings, chat, student),
                Verifier(task, settings.verify.workers, settings.verify.timeout),
                self.log,
                self.clock,
                settings.seed,
            ),
            journal=self.journal,
            learner=learner,
            clock=self.clock,
            rollout=settings.rollout,
            seed=settings.seed,
            directory=self.run_dir if dist.first() else None,
            peak_flops=perf.measure_flops(settings.hardware.device, self.dtype),
            pipelined=settings.engine.pipelined,
        )
        self.run.sync()
        self.algorithm = algorithms.build(self.run, settings.algorithm)
        if self.start:
            self.algorithm.restore(resumed["algorithm"])
        self.checkpoints = Checkpoints(
            self.run_dir,
            keep=settings.checkpoints.keep,
            dtype=self.dtype,
            settings=config.dump(settings),
            say=lambda text: self.log.say(f"[red]{escape(text)}[/]"),
        )

    def fit(self, steps: int) -> None:
        """Updates `run.step + 1` to `steps`, with evaluations and checkpoints between them."""
        self._announce(steps)
        self.guard.check_prompts(self.run, self.stream.problems, self.test, self.algorithm.prompt)
        self.run.self_test(self.stream.problems[:4], self.algorithm.prompt)
        with self.directory.told():
            self._fit(steps)
            self.checkpoints.wait()
            if dist.first():
                self._conclude()
        self.journal.conclude()
        self.guard.conclude()

    def _fit(self, steps: int) -> None:
        if self.run.step == 0:
            self._measure_forgetting()
            if self.config.evaluation.before:
                self._evaluate()
        for step in range(self.run.step + 1, steps + 1):
            self.journal.step = step
            observed = self.algorithm.update(self.stream.batch(step))
            empty = self.guard.check(observed)
            metrics = self.run.finish(observed.attempts, observed.metrics)
            self.log.update(step, steps, metrics | self.clock.read())
            self.checkpoints.check()
            if empty:
                raise UserError(empty)
            if observed.stop:
                self.log.say(f"stopping after update {step}: {observed.stop}")
                steps = step
            if step == steps or _due(step, self.config.forgetting.every):
                self._measure_forgetting()
            if step == steps or _due(step, self.config.evaluation.every):
                self._evaluate()
            if step == steps or _due(step, self.config.checkpoints.every):
                self._save()
            if step == steps:
                break

    def _evaluate(self) -> None:
        metrics, _ = evaluate(
            self.run.speech, self.test, self.config.evaluation, self.run.sampling, self.algorithm.prompt
        )
        self.evaluations[str(self.run.step)] = metrics
        self.log.evaluation(self.run.step, metrics | self.clock.read())

    def _measure_forgetting(self) -> None:
        if self.forgetting:
            metrics = self.forgetting.measure(self.run)
            self.log.forgetting(self.run.step, self.config.forgetting.task.name, metrics)

    def _save(self) -> None:
        with self.clock("checkpoint"):
            state = {
                "interactions": self.journal.interactions,
                "evaluations": self.evaluations,
                "samples": self.config.evaluation.samples,
                "problems": self.problems,
                "forgetting": self.forgetting.base if self.forgetting else None,
                "algorithm": self.algorithm.state(),
            }
            self.checkpoints.save(self.run.step, self.learner, self.run.speech.chat, state)

    def _announce(self, steps: int) -> None:
        name, where = self.config.algorithm.name, escape(str(self.run_dir))
        task = escape(self.config.task.name)
        size = perf.parameters(self.learner.policy) / 1e6
        self.log.say(f"[bold]{name}[/] on {task}: {size:.1f} M parameters, {dist.world()} process(es)")
        self.log.say(
            f"{self.stream.batch_size} problems x {self.config.algorithm.group} rollout(s) an update, {steps} updates; "
            f"run directory {where}"
        )
        for note in (*self.damaged, *self.directory.notes):
            self.log.say(f"[yellow]{escape(note)}[/]")
        if self.start:
            self.log.say(f"continuing after update {self.run.step} from {escape(str(self.start))}")
        for change in self.changes:
            self.log.say(f"[yellow]changed since this run began[/] {escape(change)}")
        if self.run.step >= steps:
            self.log.say(f"[yellow]nothing to do: this run has made all {steps} updates; raise steps to go on[/]")

    def _conclude(self) -> None:
        """Accuracy before, at the best checkpoint, and at the end."""
        if not self.evaluations:
            return
        best = self.checkpoints.link_best({"evaluations": self.evaluations, "samples": self.config.evaluation.samples})
        steps = sorted({min(map(int, self.evaluations)), max(map(int, self.evaluations))} | ({best} if best else set()))
        shown = {step: self.evaluations[str(step)] for step in steps if str(step) in self.evaluations}
        table = Table(title="accuracy on the test split (%)", title_justify="left")
        table.add_column("metric")
        for step in shown:
            table.add_column(f"update {step}" + (" (best)" if step == best else ""), justify="right")
        for name in dict.fromkeys(name for metrics in shown.values() for name in metrics if "@" in name):
            values = (metrics.get(name) for metrics in shown.values())  # a score may be younger than the run
            texts = ["–" if value is None else f"{100 * value:.2f}" for value in values]
            table.add_row(escape(name.removeprefix("eval/")), *texts)
        self.log.console.print(table)
        link = escape(str(self.run_dir / "best"))
        self.log.say(f"best checkpoint by rank sum: {link}; everything is in {escape(str(self.run_dir))}")

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.speech.verifier.close()
        with suppress(OSError):  # which ended the run, maybe
            self.log.close()
        if kind is None:
            self.checkpoints.close()
            self.run.speech.engine.close()
        if not self.checkpoints.busy:  # else the end of the process lets go of the directory
            self.directory.close()


def check_same_on_all_ranks(problems: Mapping[str, Fingerprint], settings: Config) -> None:
    """Raises UserError on all ranks if they would not run the same program on the same data. Collective."""
    same = settings.model_dump(mode="json", exclude={"run_dir", "progress"})  # rank 0's are everyone's
    every = dist.gather({dist.rank(): {**problems, "configuration": same}})
    for name in every[0]:
        other = [rank for rank, told in every.items() if told.get(name) != every[0][name]]
        if other:
            what = "configuration" if name == "configuration" else f"{name} problems, or another order of them"
            raise UserError(
                f"process {other[0]} has another {what} than process 0: give all processes the same command and files, "
                "and let the task return its problems in one order (no sets, no random numbers without a seed)"
            )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
