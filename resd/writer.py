"""How context code asks the current student to write: questions in, texts out, within the limits of one setting.

The answer to a question depends on the weights, the question and the run's seed, not on when it is asked. So an answer
that came early, in the shadow of the rollout (`resd.pipeline`), is the answer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resd import seeds
from resd.settings import SamplingSettings
from resd.types import Completion, Question, Request

if TYPE_CHECKING:
    from resd.run import Run


class Writer:
    """A `types.Generate`. `early` holds answers by role and key, for the questions of the current update."""

    def __init__(self, run: "Run", sampling: SamplingSettings) -> None:
        self.run = run
        self.sampling = sampling
        self.early: dict[tuple[str, str], tuple[Request, Completion]] = {}

    def request(self, question: Question) -> Request | None:
        """The question as the engine gets it; None if it is too long."""
        chat, sampling = self.run.chat, self.sampling
        ids = chat.ids(question.messages)
        if len(ids) > sampling.max_prompt:
            return None
        seed = seeds.derive(self.run.seed, question.role, self.run.step, question.key)
        return Request(ids, sampling.max_response, sampling.temperature, sampling.top_p, seed, question.schema)

    def __call__(self, questions: Sequence[Question]) -> list[str | None]:
        if not questions:
            return []
        role = questions[0].role
        texts: list[str | None] = [None] * len(questions)
        late: dict[int, Request] = {}
        for i, question in enumerate(questions):
            request = self.request(question)
            self.run.count(f"{role}/too_long", request is None)
            asked, answer = self.early.pop((role, question.key), (None, None))
            if answer is not None and asked == request:
                texts[i] = self.run.chat.decode(answer.ids)
            elif request is not None:
                late[i] = request
        with self.run.clock(role):
            for i, answer in zip(late, self.run.complete(list(late.values()), role), strict=True):
                texts[i] = self.run.chat.decode(answer.ids)
        return texts
