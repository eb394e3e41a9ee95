"""The services of one run and the verbs that algorithms are written in: rollout, verify, write, learn, sync.

Every rank executes the same verbs on the same data (`resd.dist`): generation and verification are shared out and
merged, so algorithm and context code reads like a program for one process.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from resd import dist, seeds
from resd.clock import Clock
from resd.context.formats import FORMATS
from resd.context.render import Prompts
from resd.context.teacher_prompt import Composed, Parts, TeacherPrompt
from resd.engine.base import Engine
from resd.learner import Learner
from resd.model.chat import Chat
from resd.model.shard import full_tensors
from resd.objectives.weighting import success_weights
from resd.pipeline import Pipeline
from resd.report import perf
from resd.report.log import Log
from resd.report.samples import write_attempts
from resd.settings import EvaluationSettings, ModelSettings, SamplingSettings, SuccessWeighting, TeacherPromptSettings
from resd.task import Task
from resd.thinking import strip_thinking
from resd.types import Attempt, Completion, Problem, Question, Request, Sample, UserError
from resd.verify import Verifier
from resd.writer import Writer

T = TypeVar("T")


class Run:
    """What an algorithm is handed. `step` is the number of the current update, 0 before the first."""

    def __init__(
        self,
        *,
        task: Task,
        model: ModelSettings,
        chat: Chat,
        engine: Engine,
        verifier: Verifier,
        learner: Learner | None,
        log: Log,
        clock: Clock,
        rollout: SamplingSettings,
        seed: int,
        directory: Path | None,
        peak_flops: float = 0.0,
        pipelined: bool = False,
    ) -> None:
        self.task = task
        self.model = model
        self.chat = chat
        self.engine = engine
        self.verifier = verifier
        self.learner = learner
        self.log = log
        self.clock = clock
        self.sampling = rollout
        self.seed = seed
        self.directory = directory
        self.peak_flops = peak_flops
        self.pipelined = pipelined
        self.step = 0
        self.interactions = 0
        self.counts: Counter[str] = Counter()

    def rollout(
        self,
        problems: Sequence[Problem],
        group: int = 1,
        writer: Writer | None = None,
        question: Callable[[Attempt], Question | None] = lambda attempt: None,
    ) -> list[Attempt]:
        """`group` verified attempts at each problem, in order. Lost ones (too long, unverifiable) are only counted.

        `question(attempt)` is what `writer` will be asked about a verified attempt. A pipelined run asks it at once.
        """
        if self.pipelined and writer is not None:
            attempts = self._pipeline(problems, group, writer, question)
            written = [attempt for attempt in attempts if attempt.response_ids]
        else:
            with self.clock("rollout"):
                attempts = self.attempt(problems, group, self.sampling, "rollout", draw=self.step)
            written = [attempt for attempt in attempts if attempt.response_ids]
            with self.clock("verify"):
                self.verify(written)
        kept = [attempt for attempt in written if attempt.verdict is not None]
        self.interactions += len(written)
        self.count("rollout/lost", len(attempts) - len(written))
        self.count("verify/lost", len(written) - len(kept))
        return kept

    def attempt(
        self,
        problems: Sequence[Problem],
        group: int,
        sampling: SamplingSettings | EvaluationSettings,
        phase: str,
        draw: int = 0,
        max_tokens: int | None = None,
    ) -> list[Attempt]:
        """Unverified attempts; `draw` varies the random seeds. A prompt beyond the limit gets an empty response."""
        attempts = self._drafts(problems, group, draw)
        requests = self._requests(attempts, sampling, phase, max_tokens)
        completions = self.complete(list(requests.values()), phase)
        for index, completion in zip(requests, completions, strict=True):
            self._fill(attempts[index], completion)
        return attempts

    def _pipeline(
        self, problems: Sequence[Problem], group: int, writer: Writer, question: Callable[[Attempt], Question | None]
    ) -> list[Attempt]:
        """`attempt`, `verify`, and the answers to `question` kept by the writer; all of it counts as rollout."""

        def ask(attempt: Attempt) -> Request | None:
            asked = question(attempt)
            return None if asked is None else writer.request(asked)

        attempts = self._drafts(problems, group, self.step)
        requests = self._requests(attempts, self.sampling, "rollout")
        share = {i: requests[i] for i in dist.mine(list(requests), self.engine.replica, self.engine.replicas).values()}
        pipeline = Pipeline(self.engine, self.verifier, {i: attempts[i] for i in share}, ask)
        with self.clock("rollout"), self.log.progress("rollout", len(share)) as advance:
            outcomes = dist.gather(pipeline.run(share, self._fill, advance))
        writer.early.clear()
        for index, outcome in sorted(outcomes.items()):
            attempt = attempts[index]
            self._fill(attempt, outcome.response)
            attempt.verdict = outcome.verdict
            asked = None if outcome.verdict is None else question(attempt)
            if asked is not None and outcome.asked is not None and outcome.answer is not None:
                writer.early[asked.role, asked.key] = (outcome.asked, outcome.answer)
        return attempts

    def _drafts(self, problems: Sequence[Problem], group: int, draw: int) -> list[Attempt]:
        """Attempts that are not answered yet."""
        attempts: list[Attempt] = []
        for problem in problems:
            prompt = self.task.prompt(problem)
            text, ids = self.chat.render(prompt), self.chat.ids(prompt)
            for member in range(group):
                attempts.append(Attempt(f"{draw}/{problem.id}/{member}", problem, prompt, text, ids, [], [], "", True))
        return attempts

    def _requests(
        self,
        attempts: Sequence[Attempt],
        sampling: SamplingSettings | EvaluationSettings,
        phase: str,
        max_tokens: int | None = None,
    ) -> dict[int, Request]:
        """By index, for the attempts whose prompt is within the limit."""
        return {
            index: Request(
                attempt.prompt_ids,
                max_tokens or self.sampling.max_response,
                sampling.temperature,
                sampling.top_p,
                seeds.derive(self.seed, phase, attempt.id),
            )
            for index, attempt in enumerate(attempts)
            if len(attempt.prompt_ids) <= self.sampling.max_prompt
        }

    def _fill(self, attempt: Attempt, completion: Completion) -> None:
        attempt.response_ids = completion.ids
        attempt.logprobs = completion.logprobs
        attempt.truncated = completion.truncated
        attempt.response = self.chat.decode(completion.ids)

    def verify(self, attempts: Sequence[Attempt], phase: str = "verify") -> None:
        """Fill in the verdicts; None where verification itself failed."""
        share = dist.mine([(a.problem, a.response, a.truncated) for a in attempts])
        verdicts = self._share(share, self.verifier.verify, phase)
        for attempt, verdict in zip(attempts, dist.merge(verdicts, len(attempts)), strict=True):
            attempt.verdict = verdict

    def writer(self, sampling: SamplingSettings) -> Writer:
        """How context code asks the current student to write, within the limits of `sampling`."""
        return Writer(self, sampling)

    def complete(self, requests: Sequence[Request], phase: str) -> list[Completion]:
        """Generate on all ranks and give every rank everything, in order."""
        share = dist.mine(requests, self.engine.replica, self.engine.replicas)
        done = self._share(share, self.engine.generate, phase)
        return dist.merge(done, len(requests))

    def _share(
        self, share: dict[int, T], work: Callable[[list[T]], Iterable[tuple[int, Any]]], phase: str
    ) -> dict[int, Any]:
        indices = list(share)
        done: dict[int, Any] = {}
        with self.log.progress(phase, len(indices)) as advance:
            for position, result in work(list(share.values())):
                done[indices[position]] = result
                advance()
        return done

    def prompts(self) -> Prompts:
        """The trainer's own prompts in the style and format of the model."""
        output = FORMATS[self.model.output_format](self.chat.thinking_opened)
        return Prompts(self.model.prompts, self.task.noun, output)

    def teacher_prompt(self, prompts: Prompts, settings: TeacherPromptSettings) -> TeacherPrompt:
        """Composes teacher prompts of at most `settings.max_tokens` tokens, chat template included."""
        template = len(self.chat.ids([{"role": "user", "content": ""}]))
        parts = Parts(**settings.model_dump(exclude={"max_tokens"}))
        return TeacherPrompt(prompts, parts, settings.max_tokens - template, self.chat.count)

    def spoken(self, attempt: Attempt) -> str:
        """The response without thinking."""
        return strip_thinking(attempt.response, self.chat.thinking_opened)

    def sample(self, attempt: Attempt, composed: Composed | None, weight: float) -> Sample:
        """The attempt as the learner eats it; without anything privileged to read it has no teacher."""
        sample = attempt.sample = Sample(attempt.prompt_ids, attempt.response_ids, attempt.logprobs, weight=weight)
        self.count("teacher/too_long", composed is None)
        self.count("teacher/truncated", composed is not None and composed.truncated > 0)
        if composed is not None and composed.privileged:
            attempt.teacher_prompt = self.chat.render(composed.messages)
            sample.teacher_prompt_ids = self.chat.ids(composed.messages)
        return sample

    def success_weights(self, attempts: Sequence[Attempt], settings: SuccessWeighting) -> list[float]:
        """Sample weights of mean one (paper Eq. 2), or all ones."""
        if not settings.enabled or not attempts:
            return [1.0] * len(attempts)
        return success_weights(torch.tensor([a.passed for a in attempts]), settings.a, settings.b).tolist()

    def learn(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One update of the student and its teacher, and of the engine's weights."""
        assert self.learner is not None, "this run only evaluates"
        with self.clock("sync"):
            self.engine.sleep()
        with self.clock("update"):
            metrics = self.learner.update(samples, self.step)
        with self.clock("sync"):
            self.sync()
        seconds = self.clock.seconds["update"] + self.clock.seconds["teacher"]
        return metrics | perf.speed(self.learner.policy, samples, seconds, self.peak_flops)

    def sync(self) -> None:
        """Give the engine the student's current weights."""
        assert self.learner is not None
        self.engine.sync(full_tensors(self.learner.policy))

    def self_test(self, problems: Sequence[Problem]) -> None:
        """Raises UserError if engine and learner do not mean the same by the same weights.

        A few tokens are sampled and scored by both: a wrong weight or a stale cache shows at once, and so does a model
        that the engine computes differently.
        """
        assert self.learner is not None
        attempts = self.attempt(problems, 1, self.sampling, "self_test", max_tokens=16)
        samples = [Sample(a.prompt_ids, a.response_ids, a.logprobs) for a in attempts if a.response_ids]
        gaps = [
            abs(ours - theirs)
            for sample, logprobs in zip(samples, self.learner.logprobs(samples), strict=True)
            for ours, theirs in zip(logprobs, sample.sampled_logprobs, strict=True)
        ]
        gap = sum(gaps) / max(1, len(gaps))
        tolerance = 1e-3 if self.learner.hardware.dtype == "float32" else 0.1
        if not gap <= tolerance:
            raise UserError(
                f"engine and learner disagree by {gap:.3g} nats a token ({tolerance} would be rounding): "
                "the engine has other weights, or computes this model differently; try engine=transformers"
            )

    def count(self, name: str, events: int = 1) -> None:
        """Note events that go into this update's metrics, zero included."""
        self.counts[name] += events

    def finish(self, attempts: Sequence[Attempt], metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics of an update; writes its attempts."""
        if self.directory is not None:
            write_attempts(self.directory, self.step, attempts, self.chat.pieces)
        counts: dict[str, float] = dict(self.counts)
        self.counts.clear()
        return {**outcome(attempts), "interactions": self.interactions, **metrics, **counts}

    def write_file(self, name: str, text: str, *, append: bool = False) -> None:
        """Write into the run directory (rank 0)."""
        if self.directory is not None:
            with (self.directory / name).open("a" if append else "w") as file:
                file.write(text)


def outcome(attempts: Sequence[Attempt]) -> dict[str, float]:
    """How a batch of verified attempts went."""
    count = max(1, len(attempts))
    verdicts = [attempt.verdict for attempt in attempts if attempt.verdict is not None]
    return {
        "train/per_task": sum(v.passed for v in verdicts) / count,
        "train/per_case": sum(v.case_fraction for v in verdicts) / count,
        "train/reward": sum(v.reward for v in verdicts) / count,
        "response/length": sum(len(a.response_ids) for a in attempts) / count,
        "response/truncated": sum(a.truncated for a in attempts) / count,
    }
