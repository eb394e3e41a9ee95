"""One run from start to end: open its directory, loop over updates, evaluate, save, resume."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from torch.distributed.device_mesh import DeviceMesh

from resd import again, algorithms, config, dist, files, resume, services
from resd.alarm import Alarm, Ring
from resd.clock import Clock
from resd.config import Config
from resd.guard import Guard
from resd.learn.learner import Learner
from resd.measure.exam import Exam
from resd.measure.forgetting import Forgetting
from resd.model.build import build_student
from resd.model.chat import Chat
from resd.model.load import check_context
from resd.model.shard import layout
from resd.observe.blocks import Blocks
from resd.observe.run import Run
from resd.observe.speech import Speech
from resd.observe.stream import Stream, fingerprint
from resd.report import perf
from resd.report.journal import Journal
from resd.report.log import Log
from resd.report.matrix import Matrix
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
        stream: Stream | Blocks,
        test: Sequence[Problem],
        forgetting: Forgetting | None = None,
    ) -> None:
        self.config, self.stream = settings, stream
        self.exam = Exam(test, settings.evaluation, forgetting, stream.ends)
        self.problems = {"training": fingerprint(task, stream.problems), "test": fingerprint(task, test)}
        if forgetting:
            self.problems["forgetting"] = fingerprint(forgetting.task, forgetting.problems)
        services.check_same_on_all_ranks(self.problems, settings)
        objective = services.build_objective(settings)
        self.dtype = getattr(torch, settings.hardware.dtype)
        mesh = layout(mesh, settings.hardware.shard_processes)
        self.opened, self.ended_well = ExitStack(), False
        self.directory = RunDir(settings.run_dir)
        self.run_dir = self.directory.path
        again.remember(self.run_dir)
        try:
            self.begun = resume.find(self.directory, settings, self.problems)
            self.start, self.lr_scale = self.begun.checkpoint, self.begun.lr_scale
            self._build(task, mesh, objective, self.begun.state)
        except BaseException:
            self.opened.close()
            self.directory.close()
            raise

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
            steps = settings.steps or len(self.stream)
            self.learner = Learner(
                student, teacher, objective, *setting, pad_id=chat.pad_id, steps=steps, clock=self.clock
            )
        self._take_up(resumed)
        self.log = Log(
            self.run_dir if dist.first() else None,
            talks=dist.first(),
            step=resumed["step"] if self.start else -1,
            progress=settings.progress,
        )
        self.opened.callback(lambda: self.log.close(self.ended_well))
        services.open_trackers(settings, self.run_dir, self.log)
        self.journal = Journal(self.log)
        self.guard = Guard(self.journal, settings.on_empty, self.learner is not None, settings.max_mismatch)
        self.alarm = Alarm(settings.alarm)
        verifier = Verifier(task, settings.verify.workers, settings.verify.timeout)
        self.opened.callback(verifier.close)
        engine = services.build_engine(settings, chat, student)
        speech = Speech(chat, engine, verifier, self.log, self.clock, settings.seed, settings.rollout.max_turns)
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
            style=settings.style,
            remote=remote,
        )
        self.checkpoints = Checkpoints(
            self.run_dir,
            keep=settings.checkpoints.keep,
            dtype=self.dtype,
            settings=config.dump(settings),
            say=lambda text: self.log.say(f"[red]{escape(text)}[/]"),
        )
        self._go_on(resumed)

    def _take_up(self, resumed: dict[str, Any]) -> None:
        """Load what `start` holds; then the directory ends where it does."""
        if self.start and self.learner:
            checkpoint.restore(self.start, self.learner)
        step = resumed["step"]
        kept = dist.on_first(lambda: [n for n in files.numbered(self.run_dir / "checkpoints") if n <= step])
        self.exam.restore(resumed, step, kept)
        self.directory.begin(step if self.start else None, config.dump(self.config))

    def _go_on(self, resumed: dict[str, Any]) -> None:
        """Everything else is as it was then."""
        self.journal.step, self.journal.interactions = resumed["step"], resumed["interactions"]
        self.alarm.restore(resumed.get("alarm"))
        self.algorithm = algorithms.build(self.run, self.config.algorithm)
        if self.start:
            self.algorithm.restore(resumed["algorithm"])
        dist.on_first(self._link_best)
        if self.learner:
            lr = self.config.optimizer.lr * self.lr_scale
            self.learner.settings = self.config.optimizer.model_copy(update={"lr": lr})

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
        if self.learner:
            self.run.sync()
        for note in (f"going back to {start}, {self._rate()}", *self.directory.notes[told:]):
            self.log.say(f"[yellow]{escape(note)}[/]")

    def _rate(self) -> str:
        return f"the learning rate is {self.lr_scale:.3g} times optimizer.lr={self.config.optimizer.lr}"

    def fit(self, steps: int) -> None:
        """Updates `run.step + 1` to `steps`, with evaluations and checkpoints between them."""
        self._announce(steps)
        self.guard.check_prompts(self.run, self.stream.problems, self.exam.problems, self.algorithm.prompt)
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
            self.exam.measure_forgetting(self.run)
            if self.config.evaluation.before:
                self._evaluate()
        while self.run.step < steps and not self.exam.enough:
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
                steps = self._stop(observed.stop)
            if step == steps or step in self.stream.ends or _due(step, self.config.evaluation.every):
                self._evaluate()
            if self.exam.enough and step < steps:
                steps = self._stop(self.exam.enough)
            if step == steps or _due(step, self.config.forgetting.every):
                self.alarm.note(self.exam.measure_forgetting(self.run))
            if step in (steps, self.exam.best) or _due(step, self.config.checkpoints.every):
                self._save()

    def _stop(self, why: str) -> int:
        """Say that this update is the last one; its number."""
        self.log.say(f"stopping after update {self.run.step}: {escape(why)}")
        return self.run.step

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
        self.exam.evaluate(self.run, self.algorithm.prompt)

    def _save(self) -> None:
        with self.clock("checkpoint"):
            state = {
                "interactions": self.journal.interactions,
                **self.exam.state(),
                "problems": self.problems,
                "alarm": self.alarm.state(),
                "algorithm": self.algorithm.state(),
            }
            self.checkpoints.save(self.run.step, self.learner, self.run.speech.chat, state)

    def _link_best(self) -> int | None:
        with self.directory.told():
            return self.checkpoints.link_best(self.exam.best)

    def _announce(self, steps: int) -> None:
        name, where = self.config.algorithm.name, escape(str(self.run_dir))
        task = escape(self.config.task.name)
        size = (
            f"{perf.parameters(self.learner.policy) / 1e6:.1f} M parameters" if self.learner else "nothing is trained"
        )
        self.log.say(f"[bold]{name}[/] on {task}: {size}, {dist.world()} process(es)")
        self.log.say(
            f"{self.stream.batch_size} problems x {self.config.algorithm.rollouts} rollout(s) an update, "
            f"{steps} updates; run directory {where}"
        )
        for note in (*self.begun.damaged, *self.directory.notes, *self.run.speech.chat.notes):
            self.log.say(f"[yellow]{escape(note)}[/]")
        if self.start:
            self.log.say(f"continuing after update {self.run.step} from {escape(str(self.start))}")
        if self.lr_scale != 1:
            self.log.say(f"[yellow]this run went back after an alarm: {self._rate()}[/]")
        for change in self.begun.changes:
            self.log.say(f"[yellow]changed since this run began[/] {escape(change)}")
        if self.run.step >= steps:
            self.log.say(f"[yellow]nothing to do: this run has made all {steps} updates; raise steps to go on[/]")
        elif self.exam.enough:
            self.log.say(f"[yellow]nothing to do: {escape(self.exam.enough)}; raise it, or write null, to go on[/]")

    def _conclude(self) -> None:
        """Accuracy before, at the best checkpoint, and at the end."""
        evaluations = self.exam.evaluations
        if not evaluations:
            return
        best = self._link_best()
        steps = sorted({min(evaluations), max(evaluations)} | ({best} if best in evaluations else set()))
        self.log.accuracy({step: evaluations[step] for step in steps}, best)
        if matrix := Matrix.of(evaluations):
            self.log.matrix(matrix)
        link = escape(str(self.run_dir / "best"))
        self.log.say(f"best checkpoint by rank sum: {link}; everything is in {escape(str(self.run_dir))}")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with suppress(OSError):  # which ended the run, maybe
            self.ended_well = kind is None
            self.opened.close()
        if kind is None:
            self.checkpoints.close()
            self.run.close()
        elif dist.world() == 1:  # this process may go on, and no other one is waited for in vain
            with suppress(Exception):  # what ended the run is told
                self.checkpoints.close()
            self.run.close()
        if not self.checkpoints.busy:  # else the end of the process lets go of the directory
            self.directory.close()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
