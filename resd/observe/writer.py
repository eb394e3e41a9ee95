"""How context code asks a model to write: questions in, texts out, within the limits of one setting.

The answer to a question depends on the weights, the question and the run's seed, not on when it is asked. So an answer
that came early, in the shadow of the rollout (`resd.observe.pipeline`), is the answer.
"""

from collections.abc import Sequence

from resd import seeds
from resd.context.shorten import Budget
from resd.observe.speech import Speech
from resd.report.journal import Journal
from resd.settings import SamplingSettings
from resd.thinking import cut_in_thinking
from resd.types import Completion, Question, Request


class Writer:
    """A `types.Generate`. `early` holds answers by role and key, for the questions of the current update."""

    def __init__(self, speech: Speech, journal: Journal, sampling: SamplingSettings) -> None:
        self.speech = speech
        self.journal = journal
        self.sampling = sampling
        self.early: dict[tuple[str, str], tuple[Request, Completion]] = {}

    @property
    def budget(self) -> Budget:
        """What a question may hold."""
        return Budget(self.speech.chat.room(self.sampling.max_prompt), self.speech.chat.count)

    def request(self, question: Question) -> Request | None:
        """The question as the engine gets it; None if it is too long."""
        chat, sampling = self.speech.chat, self.sampling
        ids = chat.ids(question.messages)
        if len(ids) > sampling.max_prompt:
            return None
        seed = seeds.derive(self.speech.seed, question.role, self.journal.step, question.key)
        return Request(ids, sampling.max_response, sampling.temperature, sampling.top_p, seed, question.schema)

    def __call__(self, questions: Sequence[Question]) -> list[str | None]:
        if not questions:
            return []
        role = questions[0].role
        texts: list[str | None] = [None] * len(questions)
        late: dict[int, Request] = {}
        for i, question in enumerate(questions):
            request = self.request(question)
            self.journal.count(f"{role}/too_long", request is None)
            self.journal.count(f"{role}/truncated", question.truncated and request is not None)
            asked, answer = self.early.pop((role, question.key), (None, None))
            if answer is not None and asked == request:
                texts[i] = self.speech.chat.decode(answer.ids)
            elif request is not None:
                late[i] = request
        with self.speech.clock(role):
            for i, answer in zip(late, self.speech.complete(list(late.values()), role), strict=True):
                texts[i] = self.speech.chat.decode(answer.ids)
        opened = self.speech.chat.thinking_opened
        cut = [text is not None and cut_in_thinking(text, opened) for text in texts]
        self.journal.count(f"{role}/thinking_cut", sum(cut), f"max_response={self.sampling.max_response} tokens")
        return texts
