"""The nouns that every layer shares: problems, verdicts, attempts, and the samples a learner eats.

Layer 0: imports no third-party package, and of the project only what thinking looks like, so that a task can be written
and tested without torch. Dimension letters used across the project: `P` problems, `A` attempts, `T` tokens, `K`
support, `V` vocabulary, `D` hidden.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Literal, Protocol, TypeVar

from resd.thinking import OPEN

T = TypeVar("T")

Messages = Sequence[Mapping[str, str]]
Tag = Literal["helpful", "harmful", "neutral"]


class UserError(Exception):
    """Something a user can mend. Its text is one sentence that says what to write instead."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task instance.

    `statement` is the part that differs between problems (a task wraps it into a prompt); `cases` is the verifier's
    private data and never reaches a model except through feedback. `privileged` is a text that only a teacher may read
    (a reference solution, a demonstration, a hint), empty where there is none. `part` names the part of a sequence of
    tasks that it belongs to.
    """

    id: str
    statement: str
    family: str = ""
    cases: Sequence[Any] = ()
    privileged: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says about one response.

    `reward` is what training maximises, in [0, 1]; `passed` means every case passed; `feedback` is empty exactly when
    there is nothing to say (all passed); `answer` is the extracted answer or None; `error` is a short kind
    (`no_answer`, `parse`, …) or None; `scores` are further numbers in [0, 1] that evaluation reports by name;
    `ballot` is what the answer counts as in a vote: None, as itself; empty, as nothing.
    """

    reward: float
    passed: bool
    cases_passed: int
    cases_total: int
    feedback: str = ""
    answer: str | None = None
    error: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    ballot: str | None = None

    @property
    def case_fraction(self) -> float:
        """Share of cases passed, in [0, 1]; 0 when there are no cases."""
        return self.cases_passed / self.cases_total if self.cases_total else 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """What comes instead of a verdict when verification itself failed: one line that says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """One generation: token ids in. `schema` is a JSON schema that an engine may enforce."""

    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids out. `ids` includes the end-of-turn token when one was sampled, else `truncated` is true.

    `logprobs[t]` is log softmax(logits / temperature) of `ids[t]`, before top-p (temperature 0 counts as 1).
    """

    ids: list[int]
    logprobs: list[float]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Reflection:
    """What the reflector wrote about one failed attempt (paper section 3.2).

    `text` is what it says in prose, which the teacher and the curator read; `tags` judge playbook entries by id;
    `invalid` counts parts that could not be used; `repaired` is 1 if slips of the form were mended.
    """

    text: str
    tags: Mapping[str, Tag] = field(default_factory=dict)
    invalid: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A reply to an environment, and what that said to it: nothing where the attempt ends."""

    reply: str
    heard: Messages = ()


@dataclass(slots=True)
class Attempt:
    """One response to one problem, and everything that happened to it afterwards.

    At a task that answers (`resd.task.Following`) the response has `turns`: `response_ids` then reach from the first
    reply to the end of the last, `mask` is false at what the environment said, where log-probabilities are 0, and
    `response` is the transcript (`resd.turns`). Otherwise there are no turns, and no mask.

    `verdict` is None when verification itself failed, or the environment, for the reason `lost`; such an attempt is
    counted and never trained on. `parent` is the attempt this one follows from, if any; one that `proposes` gives a
    problem and answers none; `sample` is what the learner made of it. The `id` is UPDATE/PROBLEM/MEMBER, where `member`
    counts the attempts at one problem in one update. `prompt_text` and `teacher_prompt` are rendered chats, exactly
    what was tokenised.
    """

    id: str
    problem: Problem
    prompt: Messages
    prompt_text: str
    prompt_ids: Sequence[int]
    response_ids: list[int]
    logprobs: list[float]
    response: str
    truncated: bool
    verdict: Verdict | None = None
    reflection: Reflection | None = None
    teacher_prompt: str | None = None
    parent: "Attempt | None" = None
    sample: "Sample | None" = None
    lost: str | None = None
    member: int = 0
    proposes: bool = False
    turns: list[Turn] = field(default_factory=list)
    mask: list[bool] | None = None

    @property
    def answer(self) -> tuple[Problem, str | Sequence[Turn], bool]:
        """What a judge gets: problem, response or turns, and whether it was cut off.

        Where the chat template itself begins the thinking, a reply begins with it again: otherwise thinking that never
        ended would pass for what was said.
        """
        turns = [replace(turn, reply=self.opened + turn.reply) for turn in self.turns]
        return self.problem, turns or self.opened + self.response, self.truncated

    @property
    def opened(self) -> str:
        """The tag with which the chat template itself begins the thinking, if it does."""
        return OPEN if self.prompt_text.rstrip().endswith(OPEN) else ""

    def own(self, values: Sequence[T]) -> list[T]:
        """Of a value for each token of the response those at tokens that the student wrote."""
        return list(values if self.mask is None else compress(values, self.mask))

    def as_sample(self, **ingredients: Any) -> "Sample":
        """The response as a learner eats it; `ingredients` are fields of `Sample`."""
        logprobs: Sequence[float] = self.logprobs
        if self.mask is not None:
            logprobs = [p if own else float("nan") for p, own in zip(self.logprobs, self.mask, strict=True)]
        return Sample(self.prompt_ids, self.response_ids, logprobs, mask=self.mask, **ingredients)

    def judge(self, said: Verdict | Lost) -> None:
        """Take down what came of verification."""
        self.verdict, self.lost = (None, said.reason) if isinstance(said, Lost) else (said, None)

    @property
    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.passed

    @property
    def first(self) -> bool:
        """Whether it tries a problem, and nothing but the proposal of the problem came before."""
        return not self.proposes and (self.parent is None or self.parent.proposes)


@dataclass(frozen=True, slots=True)
class Told:
    """What a teacher elsewhere says of a response of T tokens, in nats: `logprobs` of the tokens, and the K likeliest
    tokens at the place of each with their log-probabilities, flat [T * K], ids in order of probability."""

    logprobs: "array[float]"
    top_ids: "array[int]"
    top_logprobs: "array[float]"


@dataclass(slots=True)
class Sample:
    """What the learner eats; it is blind to the algorithm that made it. T is the length of `response_ids`.

    The loss of a sample is `weight` times the sum over its masked response tokens of what it has the ingredients for:

    * `pull` times the divergence to the teacher, when `teacher_prompt_ids` is given;
    * a policy-gradient term, when `advantage` is given;
    * cross entropy, when it has neither and nobody sampled it: a demonstration.

    `advantage` and `pull` are one number, or one a token. `sampled_logprobs` are the engine's, None where the response
    is somebody else's (its importance weight is 1); NaN at a token that an environment said, which no statistic counts.
    `old_logprobs` are the trainer's before the first of several optimizer steps. `mask` says which tokens count, also
    in the normaliser; None means all. The learner leaves `token_loss`, the divergence at each response token in nats
    before any weight; None without a teacher. `told` is the answer of a teacher that is not here; the learner's own
    reads `teacher_prompt_ids`.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    sampled_logprobs: Sequence[float] | None
    teacher_prompt_ids: Sequence[int] | None = None
    advantage: float | Sequence[float] | None = None
    weight: float = 1.0
    mask: Sequence[bool] | None = None
    old_logprobs: Sequence[float] | None = None
    token_loss: Sequence[float] | None = None
    pull: float | Sequence[float] = 1.0
    told: Told | None = None

    @property
    def demonstrates(self) -> bool:
        """Whether it is learned by cross entropy."""
        return self.sampled_logprobs is None and self.teacher_prompt_ids is None and self.advantage is None

    @property
    def speaks(self) -> bool:
        """Whether it can have a gradient: all-zero advantages alone, as in a group of equal rewards, have none."""
        if self.teacher_prompt_ids is not None or self.demonstrates:
            return True
        if self.advantage is None:
            return False
        return any(self.advantage) if isinstance(self.advantage, Sequence) else self.advantage != 0


@dataclass(slots=True)
class Observation:
    """What an algorithm saw in one update: verified attempts, samples to learn from, and metrics.

    `stop` is a reason to end the run after this update, if there is one. `mute` names what was asked of a model and not
    answered once in a usable way, `otherwise` what to do about it. `gathers`: nothing is to be learned from it yet.
    """

    attempts: list[Attempt]
    samples: list[Sample]
    metrics: Mapping[str, float] = field(default_factory=dict)
    stop: str = ""
    mute: str = ""
    otherwise: str = "name an author who can"
    gathers: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What context code asks a model to write. `role` and `key` name it within an update, and so seed its answer.

    `truncated`: parts of it were shortened to fit. `begun`: how the answer begins, which the model goes on from.
    `by_line`: each line of the answer is a statement, so that one which was cut off is none.
    """

    role: str
    key: str
    messages: Messages
    schema: Mapping[str, Any] | None = None
    truncated: bool = False
    begun: str = ""
    by_line: bool = False


class Generate(Protocol):
    """Questions in, texts out, in order.

    A prompt that does not fit, or a generation that failed, gives None; the caller counts it and goes on.
    """

    def __call__(self, questions: Sequence[Question]) -> list[str | None]: ...
