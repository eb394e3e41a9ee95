"""Verification and reflection in the shadow of the rollout.

A response that is finished is judged at once, and what has to be asked about it joins the engine's batch while longer
responses still decode: the extra generations fill the tail of the rollout instead of following it. Questions and seeds
are those of the plain order, so the answers are too, up to the floating-point tolerance of another batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resd import dist
from resd.engine.base import Engine
from resd.types import Attempt, Completion, Lost, Request, Verdict
from resd.verify import Verifier


@dataclass(slots=True)
class Outcome:
    """What became of one attempt: its response, what came of judging it, and what was asked and answered about it."""

    response: Completion
    said: Verdict | Lost | None = None
    asked: Request | None = None
    answer: Completion | None = None


class Pipeline:
    """One replica's share of a rollout, by index. Ranks of a replica see the same verdicts at the same time.

    `ask(attempt)` gives the request that follows from a verified attempt, or None.
    """

    def __init__(
        self,
        engine: Engine,
        verifier: Verifier,
        attempts: Mapping[int, Attempt],
        ask: Callable[[Attempt], Request | None],
    ) -> None:
        self.engine, self.verifier, self.attempts, self.ask = engine, verifier, attempts, ask
        self.outcomes: dict[int, Outcome] = {}
        self.unjudged: set[int] = set()
        self.order = list(attempts)  # the attempt behind each of the engine's numbers, questions included
        self.leads = dist.leads(engine.replica, engine.replicas)
        dist.meet(engine.replicas)  # here, because a replica may have nothing to agree on later

    def run(
        self, requests: Mapping[int, Request], fill: Callable[[Attempt, Completion], None], advance: Callable[[], None]
    ) -> dict[int, Outcome]:
        """Outcomes by index. `fill` puts a response into its attempt; `advance` is called once a response."""
        for number, completion in self.engine.generate(list(requests.values()), self._more):
            index = self.order[number]
            if number >= len(requests):
                self.outcomes[index].answer = completion
                continue
            attempt = self.attempts[index]
            fill(attempt, completion)
            self.outcomes[index] = Outcome(completion)
            advance()
            if completion.ids:
                self.unjudged.add(index)
                if self.leads:
                    self.verifier.submit(index, attempt.answer)
        return self.outcomes

    def _more(self, idle: bool) -> list[Request]:
        """The questions about what has been judged since the last call."""
        requests: list[Request] = []
        while self.unjudged and not requests:
            found = self.verifier.poll(idle) if self.leads else []
            for index, said in dist.agree(found, self.engine.replica, self.engine.replicas):
                self.unjudged.discard(index)
                attempt, outcome = self.attempts[index], self.outcomes[index]
                outcome.said = said
                attempt.judge(said)
                outcome.asked = None if attempt.verdict is None else self.ask(attempt)
                if outcome.asked is not None:
                    self.order.append(index)
                    requests.append(outcome.asked)
            if not idle:
                break
        return requests
