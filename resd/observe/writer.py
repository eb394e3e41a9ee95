"""How context code asks a model to write: questions in, texts out, within the limits of one setting.

The student writes, or an author in its place: another model with an engine and a chat of its own, or an address. The
answer to a question depends on the weights, the question and the run's seed, not on when it is asked. So an answer that
came early, in the shadow of the rollout (`resd.observe.pipeline`), is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from resd import dist, seeds
from resd.address import Address, Failed
from resd.context.shorten import Budget
from resd.observe.speech import Speech
from resd.report.journal import Journal
from resd.settings import AuthorSettings, SamplingSettings
from resd.thinking import CLOSE, OPEN, cut_in_thinking
from resd.types import Completion, Question, Request


class Written(NamedTuple):
    """`cut`: the limit on tokens ended it."""

    text: str
    cut: bool


class Writer:
    """A `types.Generate`. `early` holds answers by role and key, for the questions of the current update.

    `speech` is the writer's; `opened` says whether those who read expect the student's prompts to open its thinking.
    """

    def __init__(
        self, speech: Speech, journal: Journal, sampling: SamplingSettings, opened: bool | None = None
    ) -> None:
        self.speech = speech
        self.journal = journal
        self.sampling = sampling
        self.opened = speech.chat.thinking_opened if opened is None else opened
        self.early: dict[tuple[str, str], tuple[Request, Completion]] = {}

    @property
    def budget(self) -> Budget:
        """What a question may hold."""
        return Budget(self.speech.chat.room(self.sampling.max_prompt), self.speech.chat.count)

    def request(self, question: Question) -> Request | None:
        """The question as the engine gets it; None if it is too long."""
        chat, sampling = self.speech.chat, self.sampling
        ids = [*chat.ids(question.messages), *chat.encode(self._begun(question))]
        if len(ids) > sampling.max_prompt:
            return None
        seed = seeds.derive(self.speech.seed, question.role, self.journal.step, question.key)
        return Request(ids, sampling.max_response, sampling.temperature, sampling.top_p, seed, question.schema)

    def __call__(self, questions: Sequence[Question]) -> list[str | None]:
        if not questions:
            return []
        role, limit = questions[0].role, f"max_response={self.sampling.max_response} tokens"
        answers = self._answers(questions, role)
        thinking = [answer is not None and cut_in_thinking(answer.text, self.opens) for answer in answers]
        self.journal.count(f"{role}/thinking_cut", sum(thinking), limit)
        cut = [
            answer is not None and answer.cut and question.by_line and not thinks
            for question, answer, thinks in zip(questions, answers, thinking, strict=True)
        ]
        self.journal.count(f"{role}/cut", sum(cut), limit)
        return [answer and self._read(answer.text, short) for answer, short in zip(answers, cut, strict=True)]

    def _answers(self, questions: Sequence[Question], role: str) -> list[Written | None]:
        answers: list[Written | None] = [None] * len(questions)
        late: dict[int, Request] = {}
        for i, question in enumerate(questions):
            request = self.request(question)
            self.journal.count(f"{role}/too_long", request is None)
            self.journal.count(f"{role}/truncated", question.truncated and request is not None)
            asked, early = self.early.pop((role, question.key), (None, None))
            if early is not None and asked == request:
                answers[i] = self._written(question, early)
            elif request is not None:
                late[i] = request
        with self.speech.clock(role):
            for i, said in zip(late, self.write([questions[i] for i in late], list(late.values())), strict=True):
                answers[i] = said
        return answers

    def _read(self, text: str, cut: bool) -> str:
        """What of an answer counts; a statement that was `cut` off does not."""
        return self._as_the_student_would(text.rpartition("\n")[0] if cut else text)

    @property
    def opens(self) -> bool:
        """Whether the writer's own prompts end in the beginning of its thinking."""
        return self.speech.chat.thinking_opened

    def write(self, questions: Sequence[Question], requests: Sequence[Request]) -> list[Written | None]:
        """An answer to each, None for one that failed; `requests` are the questions as an engine gets them."""
        role = questions[0].role if questions else ""
        answers = self.speech.complete(requests, role)
        return [self._written(*pair) for pair in zip(questions, answers, strict=True)]

    def _written(self, question: Question, answer: Completion) -> Written:
        begun, text = self._begun(question), self.speech.chat.decode(answer.ids)
        whole = text if text.lstrip().startswith(begun) else begun + text  # some begin once more
        return Written(whole, answer.truncated)

    def _begun(self, question: Question) -> str:
        """Nothing where a prompt opens the thinking, which comes before any answer."""
        return "" if self.opens else question.begun

    def _as_the_student_would(self, text: str) -> str:
        """Where the thinking of either begins in the prompt, the other's text has the tag that is missing."""
        if self.opens == self.opened:
            return text
        return f"{OPEN}{text}" if self.opens else f"{CLOSE}{text}"


class RemoteWriter(Writer):
    """Asks an address for chat completions, which nobody begins for it. Lengths are counted with the student's
    tokenizer, which is a guess."""

    def __init__(self, speech: Speech, journal: Journal, sampling: SamplingSettings, address: Address) -> None:
        # not the student's voice, or a pipelined run would let its engine answer
        super().__init__(speech.voiced_by(speech.chat, speech.engine), journal, sampling, speech.chat.thinking_opened)
        self.address = address

    @property
    def opens(self) -> bool:
        return False

    def write(self, questions: Sequence[Question], requests: Sequence[Request]) -> list[Written | None]:
        bodies = dist.mine([_body(*pair) for pair in zip(questions, requests, strict=True)])
        answers = dict(
            zip(bodies, map(_read, self.address.ask("chat/completions", list(bodies.values()))), strict=True)
        )
        merged = dist.merge(answers, len(questions))
        if questions:
            role = questions[0].role
            lost = [text.reason for text in merged if isinstance(text, Failed)]
            self.journal.count(f"{role}/lost", len(lost), lost[0] if lost else "")
            retried = dist.gather({dist.rank(): self.address.take_retried()})
            self.journal.count(f"{role}/retried", sum(retried.values()))
        return [None if isinstance(text, Failed) else Written(*text) for text in merged]


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes in the student's place: a voice whose engine is never given other weights, or an address."""

    settings: AuthorSettings
    voice: Speech | Address

    def writer(self, student: Speech, journal: Journal, sampling: SamplingSettings) -> Writer:
        limits = self.settings.limits(sampling)
        if isinstance(self.voice, Address):
            return RemoteWriter(student, journal, limits, self.voice)
        return Writer(self.voice, journal, limits, student.chat.thinking_opened)

    def close(self) -> None:
        (self.voice if isinstance(self.voice, Address) else self.voice.engine).close()


def _body(question: Question, request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": list(question.messages),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
    }
    if question.schema is not None:
        schema = {"name": question.role, "schema": question.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _read(answer: Mapping[str, Any] | Failed) -> tuple[str, bool] | Failed:
    """What was said, without the reasoning that a server keeps apart."""
    if isinstance(answer, Failed):
        return answer
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (LookupError, TypeError):
        return Failed("not what a chat completion looks like")
    if isinstance(text, str):
        return text, reason == "length"
    return Failed(f"an answer without a text (finish_reason {reason})")
