"""The services of one run and the verbs that algorithms are written in: rollout, speak, write, learn, score.

Every rank executes the same verbs on the same data (`resd.dist`), so algorithm and context code reads like a program
for one process.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from resd import dist, files, turns
from resd.address import Failed
from resd.clock import Clock
from resd.context.render import Prompts
from resd.context.style import spare, style
from resd.learn.learner import Learner, Scores
from resd.model.remote import RemoteTeacher
from resd.model.shard import full_tensors
from resd.observe.hindsight import Hindsight, prompts
from resd.observe.pipeline import Pipeline
from resd.observe.proposals import Proposals, propose
from resd.observe.speech import Speech
from resd.observe.writer import Author, Writer
from resd.report import perf
from resd.report.journal import Journal
from resd.report.samples import write_attempts
from resd.settings import ModelSettings, SamplingSettings, StyleSettings, TeacherPromptSettings
from resd.task import Task
from resd.types import Attempt, Messages, Problem, Question, Request, Sample, Told, UserError

APART = "the engine has other weights, or computes this model differently; try engine=transformers"

Ask = Callable[[Attempt], Question | None]
Prompt = Callable[[Problem], Messages]


class Run:
    """What an algorithm is handed."""

    def __init__(
        self,
        *,
        task: Task,
        model: ModelSettings,
        speech: Speech,
        journal: Journal,
        learner: Learner | None,
        clock: Clock,
        rollout: SamplingSettings,
        seed: int,
        directory: Path | None,
        peak_flops: float = 0.0,
        pipelined: bool = False,
        author: Author | None = None,
        remote: RemoteTeacher | None = None,
        style: StyleSettings | None = None,
    ) -> None:
        self.task = task
        self.speech = speech
        self.journal = journal
        self.learner = learner
        self.clock = clock
        self.sampling = rollout
        self.seed = seed
        self.directory = directory
        self.peak_flops = peak_flops
        self.pipelined = pipelined
        self.author = author
        self.remote = remote
        self.style = style
        self.prompts: Prompts = prompts(model, speech.chat, task.noun)

    @property
    def step(self) -> int:
        """The number of the current update, 0 before the first."""
        return self.journal.step

    def rollout(
        self,
        problems: Sequence[Problem],
        group: int = 1,
        *,
        prompt: Prompt | None = None,
        writer: Writer | None = None,
        question: Ask = lambda attempt: None,
    ) -> list[Attempt]:
        """`group` verified attempts at each problem, in order. Lost ones (too long, unverifiable) are only counted.

        `question(attempt)` is what `writer` will be asked about a verified attempt. A pipelined run asks it at once,
        unless the task answers.
        """
        drafts = self.speech.drafts(problems, group, prompt or self.task.prompt, draw=self.step)
        several = self.speech.verifier.follows
        if self.pipelined and not several and writer is not None and writer.speech is self.speech:
            self._pipeline(drafts, writer, question)
            answered = [draft for draft in drafts if draft.response_ids]
        else:
            with self.clock("rollout"):
                self.speech.converse(drafts, self.sampling, "rollout")
            drafts = self._heard_out(drafts)
            answered = [draft for draft in drafts if draft.response_ids]
            with self.clock("verify"):
                self.speech.verify(answered)
        return self._kept(drafts, answered)

    def propose(self, sampling: SamplingSettings, prompts: int, each: int, level: int | None = None) -> Proposals:
        """See `resd.observe.proposals`; for a task that is `Proposing`."""
        return propose(self, sampling, prompts, each, level)

    def speak(
        self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str, *, to_task: bool = False
    ) -> list[Attempt]:
        """The drafts answered within the limits of `sampling`, in order; the others are counted as `phase`/too_long.

        What is said `to_task` may be answered by it.
        """
        with self.clock(phase):
            answered = (self.speech.converse if to_task else self.speech.speak)(drafts, sampling, phase)
        self.journal.count(f"{phase}/too_long", len(drafts) - len(answered), f"max_prompt={sampling.max_prompt}")
        return answered

    def judge(self, answered: Sequence[Attempt]) -> list[Attempt]:
        """Those that get a verdict, in order. The others are only counted."""
        answered = self._heard_out(answered)
        with self.clock("verify"):
            self.speech.verify(answered)
        return self._kept(answered, answered)

    def _heard_out(self, drafts: Sequence[Attempt]) -> list[Attempt]:
        """Those whose environment did not fail. The others are only counted."""
        if not self.speech.verifier.follows:
            return list(drafts)
        reasons = [draft.lost for draft in drafts if draft.lost]
        self.journal.count("follow/lost", len(reasons), reasons[0] if reasons else "")
        return [draft for draft in drafts if not draft.lost]

    def _kept(self, drafts: Sequence[Attempt], answered: Sequence[Attempt]) -> list[Attempt]:
        kept = [attempt for attempt in answered if attempt.verdict is not None]
        self.journal.interactions += len(answered)
        longest = max((len(draft.prompt_ids) for draft in drafts if not draft.response_ids), default=0)
        why = f"{longest} tokens, rollout.max_prompt={self.sampling.max_prompt}"
        self.journal.count("rollout/lost", len(drafts) - len(answered), why)
        reasons = [attempt.lost for attempt in answered if attempt.lost]
        self.journal.count("verify/lost", len(answered) - len(kept), reasons[0] if reasons else "")
        return kept

    def _pipeline(self, drafts: Sequence[Attempt], writer: Writer, question: Ask) -> None:
        """Fill in responses and verdicts, and keep the writer's early answers; all of it counts as rollout."""

        def ask(attempt: Attempt) -> Request | None:
            asked = question(attempt)
            return None if asked is None else writer.request(asked)

        speech = self.speech
        requests = speech.requests(drafts, self.sampling, "rollout")
        engine = speech.engine
        share = {i: requests[i] for i in dist.mine(list(requests), engine.replica, engine.replicas).values()}
        pipeline = Pipeline(engine, speech.verifier, {i: drafts[i] for i in share}, ask)
        with self.clock("rollout"), speech.log.progress("rollout", len(share)) as advance:
            outcomes = dist.gather(pipeline.run(share, speech.fill, advance))
        writer.early.clear()
        for index, outcome in sorted(outcomes.items()):
            attempt = drafts[index]
            speech.fill(attempt, outcome.response)
            if outcome.said is not None:
                attempt.judge(outcome.said)
            asked = None if attempt.verdict is None else question(attempt)
            if asked is not None and outcome.asked is not None and outcome.answer is not None:
                writer.early[asked.role, asked.key] = (outcome.asked, outcome.answer)

    def writer(self, sampling: SamplingSettings, *, student: bool = False) -> Writer:
        """How context code asks somebody to write within the limits of `sampling`: the current student, or an author
        who has their own, unless it must be the `student`."""
        if self.author is not None and not student:
            return self.author.writer(self.speech, self.journal, sampling)
        return Writer(self.speech, self.journal, sampling)

    def hindsight(self, settings: TeacherPromptSettings) -> Hindsight:
        """What turns attempts into samples of a teacher that reads what `settings` name."""
        return Hindsight(self.speech.chat, self.journal, self.prompts, settings)

    def learn(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One update of the student and its teacher, and of the engine's weights."""
        assert self.learner is not None, "this run only evaluates"
        if self.style is not None and self.style.spare:
            spare(samples, self.style.markers, self.speech.chat.pieces)
        with self.clock("sync"):
            self.speech.engine.sleep()
        with self.clock("update"):
            metrics = self.learner.update(samples, self.step)
        device = self.learner.hardware.device
        memory = [perf.memory_gb(device)]
        with self.clock("sync"):
            self.sync()
        memory.append(perf.memory_gb(device))  # the engine is awake
        finite = math.isfinite(metrics["grad_norm"])
        self.journal.count("update/not_finite", not finite, why=f"loss {metrics['loss']}")
        seconds = self.clock.seconds["update"] + self.clock.seconds["teacher"]
        speed = perf.speed(self.learner.policy, samples, seconds, self.peak_flops)
        return {**metrics, **speed, "perf/peak_memory_gb": max(memory)}

    def taught(self, samples: list[Sample]) -> list[Sample]:
        """Those that can be learned from: a teacher elsewhere is asked, and what it does not answer is left out."""
        asked = [sample for sample in samples if sample.teacher_prompt_ids is not None]
        if self.remote is None or not asked:
            return samples
        for sample, told in zip(asked, self._ask_teacher(asked, compared=True), strict=True):
            sample.told = told
        return [sample for sample in samples if sample.teacher_prompt_ids is None or sample.told is not None]

    def _ask_teacher(self, samples: Sequence[Sample], *, compared: bool) -> list[Told | None]:
        assert self.remote is not None
        share = dist.mine([(s.teacher_prompt_ids or s.prompt_ids, s.response_ids) for s in samples])
        with self.clock("teacher"):
            answers = dict(zip(share, self.remote.ask(list(share.values()), compared=compared), strict=True))
            merged = dist.merge(answers, len(samples))
        self.journal.count(
            "teacher/retried", sum(dist.gather({dist.rank(): self.remote.address.take_retried()}).values())
        )
        lost = [told.reason for told in merged if isinstance(told, Failed)]
        self.journal.count("teacher/lost", len(lost), lost[0] if lost else "")
        return [None if isinstance(told, Failed) else told for told in merged]

    def score(self, samples: Sequence[Sample]) -> Sequence[Scores | None]:
        """What the teacher thinks of each token of the responses; None where one that is elsewhere does not answer."""
        if self.remote is not None:
            told = self._ask_teacher(samples, compared=False)
            return [None if each is None else Scores(each.logprobs, []) for each in told]
        assert self.learner is not None, "this run only evaluates"
        with self.clock("teacher"):
            return self.learner.score(samples)

    def sync(self) -> None:
        """Give the engine the student's current weights."""
        assert self.learner is not None
        self.speech.engine.sync(full_tensors(self.learner.policy))

    def self_test(self, problems: Sequence[Problem], prompt: Prompt) -> None:
        """Raises UserError if engine and learner do not mean the same by the same weights.

        A few tokens are sampled and scored by both: a wrong weight or a stale cache shows at once, and so does a model
        that the engine computes differently.
        """
        assert self.learner is not None
        self.speech.engine.sleep()  # as after every update: what an engine loses in its sleep shows here
        self.sync()
        drafts = self.speech.drafts(problems, 1, prompt)
        attempts = self.speech.speak(drafts, self.sampling.model_copy(update={"max_response": 16}), "self_test")
        samples = [attempt.as_sample() for attempt in attempts]
        gaps = [
            abs(ours - theirs)
            for attempt, logprobs in zip(attempts, self.learner.logprobs(samples), strict=True)
            for ours, theirs in zip(logprobs, attempt.logprobs, strict=True)
        ]
        gap = sum(gaps) / max(1, len(gaps))
        tolerance = 1e-3 if self.learner.hardware.dtype == "float32" else 0.1
        if not gap <= tolerance:
            raise UserError(
                f"engine and learner disagree by {gap:.3g} nats a token ({tolerance} would be rounding): {APART}"
            )

    def finish(self, attempts: Sequence[Attempt], metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics of an update; writes its attempts."""
        if self.directory is not None:
            write_attempts(self.directory, self.step, attempts, self.speech.chat.pieces)
        interactions = {"interactions": self.journal.interactions}
        worded = style(attempts, self.style.markers) if self.style else {}
        return {**outcome(attempts), **worded, **interactions, **metrics, **self.journal.drain()}

    def close(self) -> None:
        """Let go of the engine, and of who is asked elsewhere."""
        self.speech.engine.close()
        if self.author is not None:
            self.author.close()
        if self.remote is not None:
            self.remote.address.close()

    def write_file(self, name: str, text: str, *, append: bool = False) -> None:
        """Write into the run directory (rank 0); a whole file is shown by trackers too."""
        if self.directory is not None:
            (files.append if append else files.replace)(self.directory / name, text)
            if not append:
                self.speech.log.text(self.step, name, text)


def outcome(attempts: Sequence[Attempt]) -> dict[str, float]:
    """How the first tries of a batch went, if there were any; what follows from another attempt does not count.

    `response/entropy` is estimated from the sampled tokens, nats a token; `response/end_logprob` is the mean
    log-probability of the tokens that ended a turn. Either is missing where there was none. What an environment said in
    between counts nowhere; `response/turns` is there for tasks that answer.
    """
    attempts = [attempt for attempt in attempts if attempt.first]
    if not attempts:
        return {}
    count = len(attempts)
    verdicts = [attempt.verdict for attempt in attempts if attempt.verdict is not None]
    judged = dict.fromkeys(name for v in verdicts for name in v.scores if name.startswith("reward/"))
    return {
        "train/per_task": sum(v.passed for v in verdicts) / count,
        "train/per_case": sum(v.case_fraction for v in verdicts) / count,
        "train/reward": sum(v.reward for v in verdicts) / count,
        **{f"train/{name}": sum(v.scores.get(name, 0.0) for v in verdicts) / count for name in judged},
        "response/length": sum(len(a.own(a.response_ids)) for a in attempts) / count,
        "response/truncated": sum(a.truncated for a in attempts) / count,
        **_mean("response/turns", [len(a.turns) for a in attempts if a.turns]),
        **_mean("response/entropy", [-logprob for a in attempts for logprob in a.own(a.logprobs)]),
        **_mean("response/end_logprob", [logprob for a in attempts for logprob in turns.ends(a)]),
    }


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: sum(values) / len(values)} if values else {}
