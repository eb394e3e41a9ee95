"""One run from start to end: open its directory, loop over updates, evaluate, save, resume."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.markup import escape
from torch.distributed.device_mesh import DeviceMesh

from resd import again, algorithms, config, dist, files, services
from resd.alarm import Alarm, Ring
from resd.clock import Clock
from resd.config import Config
from resd.guard import Guard
from resd.learn.learner import Learner
from resd.measure.evaluation import evaluate
from resd.measure.forgetting import Forgetting
from resd.model.build import build_student
from resd.model.chat import Chat
from resd.model.load import check_context
from resd.model.shard import layout
from resd.observe.run import Run
from resd.observe.speech import Speech
from resd.observe.stream import Stream, check_same_problems, fingerprint
from resd.report import perf
from resd.report.journal import Journal
from resd.report.log import Log
from resd.storage import checkpoint
from resd.storage.checkpoint import Checkpoints
from resd.storage.rundir import RunDir
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
        services.check_same_on_all_ranks(self.problems, settings)
        objective = services.build_objective(settings)
        if settings.hardware.threads is not None:
            torch.set_num_threads(settings.hardware.threads)
        self.dtype = getattr(torch, settings.hardware.dtype)
        mesh = layout(mesh, settings.hardware.shard_processes)
        self.directory = RunDir(settings.run_dir)
        self.run_dir = self.directory.path
        again.remember(self.run_dir)
        try:
            resumed = self._open()
            self._build(task, mesh, objective, resumed)
        except BaseException:
            self.directory.close()
            raise

    def _open(self) -> dict[str, Any]:
        """Find where to go on; what `run.json` says of it. Nothing is changed yet."""
        settings = self.config
        rollbacks = self.directory.rollbacks()
        begun = [record["to"] for record in rollbacks if not record["done"]]
        self.start, self.damaged = checkpoint.find(self.run_dir, settings.resume, *begun[-1:])
        self.lr_scale = rollbacks[-1]["lr_scale"] if rollbacks else 1.0
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
        check_context(settings.model, services.longest(settings))
        if author := services.author_model(settings):
            check_context(author, services.longest_written(settings))
        chat = Chat(settings.model)
        services.check_teacher(settings, chat)
        remote, address = services.open_teacher(settings, chat), services.open_author(settings)
        services.check_memory(settings)
        self.clock = Clock()
        self.learner: Learner | None = None
        student = None
        if algorithms.learns(settings.algorithm):
            student = build_student(settings.model, settings.hardware, mesh, settings.seed)
            chat.fit(len(student.output_embedding))
            teacher = services.build_teacher(settings, student, mesh)
            setting = (settings.optimizer, settings.hardware)
            self.learner = Learner(student, teacher, objective, *setting, pad_id=chat.pad_id, clock=self.clock)
        self._take_up(resumed)
        self.log = Log(
            self.run_dir if dist.first() else None,
            talks=dist.first(),
            step=resumed["step"] if self.start else -1,
            progress=settings.progress,
        )
        self.journal = Journal(self.log)
        self.guard = Guard(self.journal, settings.on_empty, self.learner is not None)
        self.alarm = Alarm(settings.alarm)
        verifier = Verifier(task, settings.verify.workers, settings.verify.timeout)
        engine = services.build_engine(settings, chat, student)
        speech = Speech(chat, engine, verifier, self.log, self.clock, settings.seed)
        self.run = Run(
            task=task,
            model=settings.model,
            speech=speech,
            journal=self.journal,
            learner=self.learner,
            clock=self.clock,
            rollout=settings.rollout,
            seed=settings.seed,
            directory=self.run_dir if dist.first() else None,
            peak_flops=perf.measure_flops(settings.hardware.device, self.dtype),
            pipelined=settings.engine.pipelined,
            author=services.build_author(settings, speech, address),
            remote=remote,
        )
        self._go_on(resumed)
        self.checkpoints = Checkpoints(
            self.run_dir,
            keep=settings.checkpoints.keep,
            dtype=self.dtype,
            settings=config.dump(settings),
            say=lambda text: self.log.say(f"[red]{escape(text)}[/]"),
        )

    def _take_up(self, resumed: dict[str, Any]) -> None:
        """Load what `start` holds; then the directory ends where it does."""
        if self.start and self.learner:
            checkpoint.restore(self.start, self.learner)
        self.evaluations: dict[str, dict[str, float]] = resumed["evaluations"]
        if self.forgetting:
            self.forgetting.restore(resumed.get("forgetting"), resumed["step"])
        self.directory.begin(resumed["step"] if self.start else None, config.dump(self.config))

    def _go_on(self, resumed: dict[str, Any]) -> None:
        """Everything else is as it was then."""
        self.journal.step, self.journal.interactions = resumed["step"], resumed["interactions"]
        self.alarm.restore(resumed.get("alarm"))
        self.algorithm = algorithms.build(self.run, self.config.algorithm)
        if self.start:
            self.algorithm.restore(resumed["algorithm"])
        if self.learner:
            lr = self.config.optimizer.lr * self.lr_scale
            self.learner.settings = self.config.optimizer.model_copy(update={"lr": lr})
            self.run.sync()

    def _go_back(self, start: Path) -> None:
        """To a checkpoint of this run, with a lower learning rate."""
        self.lr_scale *= self.config.alarm.lr_factor
        resumed = checkpoint.read_run(start)
        self.directory.add_rollback(resumed["step"], self.lr_scale)
        self.start = start
        told = len(self.directory.notes)
        self._take_up(resumed)
        self.log.rewind(resumed["step"])
        self._go_on(resumed)
        for note in (f"going back to {start}, {self._rate()}", *self.directory.notes[told:]):
            self.log.say(f"[yellow]{escape(note)}[/]")

    def _rate(self) -> str:
        return f"the learning rate is {self.lr_scale:.3g} times optimizer.lr={self.config.optimizer.lr}"

    def fit(self, steps: int) -> None:
        """Updates `run.step + 1` to `steps`, with evaluations and checkpoints between them."""
        self._announce(steps)
        self.guard.check_prompts(self.run, self.stream.problems, self.test, self.algorithm.prompt)
        if self.learner:
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
        while self.run.step < steps:
            step = self.journal.step = self.run.step + 1
            observed = self.algorithm.update(self.stream.batch(step))
            empty = self.guard.check(observed)
            metrics = self.run.finish(observed.attempts, observed.metrics)
            rings = self.alarm.watch(step, metrics if observed.attempts else {})
            self.log.update(step, steps, metrics | self.alarm.metrics | self.clock.read())
            self.checkpoints.spared = self.alarm.before
            self.checkpoints.check()
            if empty:
                raise UserError(empty)
            if rings and self._changed(rings):
                continue
            if observed.stop:
                self.log.say(f"stopping after update {step}: {observed.stop}")
                steps = step
            if step == steps or _due(step, self.config.forgetting.every):
                self._measure_forgetting()
            if step == steps or _due(step, self.config.evaluation.every):
                self._evaluate()
            if step == steps or _due(step, self.config.checkpoints.every):
                self._save()

    def _changed(self, rings: Sequence[Ring]) -> bool:
        """Say what rings; whether the run has gone back for it. Raises UserError if it is to end."""
        self.checkpoints.wait()
        dist.barrier()
        step, since = self.run.step, min(ring.since for ring in rings)
        before = [path for step, path in files.numbered(self.run_dir / "checkpoints").items() if step < since]
        told = f"alarm in update {step}: {'; '.join(map(str, rings))}"
        back = f"resume={before[-1]}" if before else "another run_dir (there is no older checkpoint)"
        file = f"{self.run_dir}/attempts/step_{step:06d}.jsonl"
        advice = f"look at {file}, and begin again with a lower optimizer.lr and {back}"
        went_back = len(self.directory.rollbacks())
        if self.config.on_alarm == "rollback" and before and went_back < self.config.alarm.rollbacks:
            self.log.say(f"[red]{escape(told)}[/]")
            self._go_back(before[-1])
            return True
        if self.config.on_alarm == "say":
            self.log.say(f"[red]{escape(f'{told}; {advice}')}[/]")
            return False
        self._save()
        self.checkpoints.wait()
        gone = f" (went back {went_back} times)" if went_back else ""
        raise UserError(f"{told}{gone}; {advice}; on_alarm=say goes on all the same")

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
                "alarm": self.alarm.state(),
                "algorithm": self.algorithm.state(),
            }
            self.checkpoints.save(self.run.step, self.learner, self.run.speech.chat, state)

    def _announce(self, steps: int) -> None:
        name, where = self.config.algorithm.name, escape(str(self.run_dir))
        task = escape(self.config.task.name)
        size = (
            f"{perf.parameters(self.learner.policy) / 1e6:.1f} M parameters" if self.learner else "nothing is trained"
        )
        self.log.say(f"[bold]{name}[/] on {task}: {size}, {dist.world()} process(es)")
        self.log.say(
            f"{self.stream.batch_size} problems x {self.config.algorithm.group} rollout(s) an update, {steps} updates; "
            f"run directory {where}"
        )
        for note in (*self.damaged, *self.directory.notes):
            self.log.say(f"[yellow]{escape(note)}[/]")
        if self.start:
            self.log.say(f"continuing after update {self.run.step} from {escape(str(self.start))}")
        if self.lr_scale != 1:
            self.log.say(f"[yellow]this run went back after an alarm: {self._rate()}[/]")
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
        self.log.accuracy(shown, best)
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
            self.run.close()
        if not self.checkpoints.busy:  # else the end of the process lets go of the directory
            self.directory.close()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
