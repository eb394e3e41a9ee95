"""Who is asked, and what they say: drafts, their responses, what an environment says to them, and the verdicts.

Anything that a model generates can become an attempt that can be trained on. Every rank executes the same verbs on the
same data (`resd.dist`): generation and verification are shared out and merged.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from resd import dist, seeds, turns
from resd.clock import Clock
from resd.engine.base import Engine
from resd.model.chat import Chat
from resd.report.log import Log
from resd.settings import SamplingSettings
from resd.types import Attempt, Completion, Lost, Messages, Problem, Request, Turn, UserError
from resd.verify import Verifier

T = TypeVar("T")
TRIED = 4  # problems whose environment is asked at the start


class Speech:
    """The student's voice: its chat, the engine that has its weights, and the judge."""

    def __init__(
        self, chat: Chat, engine: Engine, verifier: Verifier, log: Log, clock: Clock, seed: int, max_turns: int
    ) -> None:
        self.chat = chat
        self.engine = engine
        self.verifier = verifier
        self.log = log
        self.clock = clock
        self.seed = seed
        self.max_turns = max_turns

    def voiced_by(self, chat: Chat, engine: Engine) -> "Speech":
        """Another voice in the same run."""
        other = copy.copy(self)
        other.chat, other.engine = chat, engine
        return other

    def judged_by(self, verifier: Verifier) -> "Speech":
        """The same voice before another judge."""
        other = copy.copy(self)
        other.verifier = verifier
        return other

    def draft(self, problem: Problem, messages: Messages, id: str, parent: Attempt | None = None) -> Attempt:
        """An attempt that is not answered yet. Its id seeds the answer; `parent` is what it follows from."""
        text, ids = self.chat.render(messages), self.chat.ids(messages)
        return Attempt(id, problem, messages, text, ids, [], [], "", True, parent=parent)

    def drafts(
        self, problems: Sequence[Problem], group: int, prompt: Callable[[Problem], Messages], draw: int = 0
    ) -> list[Attempt]:
        """`group` drafts for each problem, in order; `draw` varies their random seeds."""
        return [
            replace(self.draft(problem, messages, f"{draw}/{problem.id}/{member}"), member=member)
            for problem, messages in zip(problems, map(prompt, problems), strict=True)
            for member in range(group)
        ]

    def speak(self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str) -> list[Attempt]:
        """Fill in the responses, within the limits of `sampling`; returns the drafts that were answered, in order."""
        requests = self.requests(drafts, sampling, phase)
        for index, completion in zip(requests, self.complete(list(requests.values()), phase), strict=True):
            self.fill(drafts[index], completion)
        return [draft for draft in drafts if draft.response_ids]

    def converse(self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str) -> list[Attempt]:
        """`speak` to the task, and on while it answers, in at most `max_turns` turns.

        `sampling.max_response` is one budget for all that is said; an attempt that it ends is truncated. Where the
        environment fails, `lost` says why. Returns the drafts that were answered, in order.
        """
        answered = self.speak(drafts, sampling, phase)
        if not self.verifier.follows:
            return answered
        for attempt in answered:
            turns.begin(attempt)
        going = answered
        for turn in range(1, self.max_turns):
            going = self._hear([attempt for attempt in going if not attempt.truncated], sampling.max_response, phase)
            if not going:
                break
            requests = [
                Request(
                    [*attempt.prompt_ids, *attempt.response_ids],
                    sampling.max_response - len(attempt.response_ids),
                    sampling.temperature,
                    sampling.top_p,
                    seeds.derive(self.seed, phase, attempt.id, turn),
                )
                for attempt in going
            ]
            for attempt, completion in zip(going, self.complete(requests, phase), strict=True):
                turns.reply(attempt, completion, self.chat.decode(completion.ids))
        return answered

    def _hear(self, attempts: Sequence[Attempt], budget: int, phase: str) -> list[Attempt]:
        """Those that go on, with what the environment says in them."""
        return [
            attempt
            for attempt, said in zip(attempts, self.ask([a.answer[:2] for a in attempts], phase), strict=True)
            if self._goes_on(attempt, said, budget)
        ]

    def ask(self, conversations: Sequence[tuple[Problem, Any]], phase: str) -> list[Messages | Lost]:
        """What the environment says after each of these turns."""
        said = self._share(dist.mine(conversations), self.verifier.follow, phase)
        return dist.merge(said, len(conversations))

    def _goes_on(self, attempt: Attempt, said: Messages | Lost, budget: int) -> bool:
        if isinstance(said, Lost):
            attempt.lost = said.reason
        if isinstance(said, Lost) or not said:
            return False
        try:
            self.chat.check_turns([attempt.prompt], {each["role"] for each in said} - self.chat.answered_by)
            ids = self.chat.between(said)
        except UserError as error:
            attempt.lost = str(error)
            return False
        attempt.truncated = len(attempt.response_ids) + len(ids) >= budget
        if not attempt.truncated:
            turns.hear(attempt, said, ids)
        return not attempt.truncated

    def check_turns(self, problems: Sequence[Problem], prompt: Callable[[Problem], Messages]) -> None:
        """Raises UserError if the task answers and the chat template cannot go on. What the environment says to an
        empty reply shows in which roles it speaks."""
        if not self.verifier.follows:
            return
        said = self.ask([(problem, [Turn("")]) for problem in problems[:TRIED]], "turns")
        roles = {message["role"]: None for each in said if not isinstance(each, Lost) for message in each}
        self.chat.check_turns(map(prompt, problems), roles or ["user"])

    def requests(self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str) -> dict[int, Request]:
        """By index, for the drafts whose prompt is within the limit."""
        return {
            index: Request(
                draft.prompt_ids,
                sampling.max_response,
                sampling.temperature,
                sampling.top_p,
                seeds.derive(self.seed, phase, draft.id),
            )
            for index, draft in enumerate(drafts)
            if len(draft.prompt_ids) <= sampling.max_prompt
        }

    def fill(self, draft: Attempt, completion: Completion) -> None:
        """Put a response into its draft."""
        draft.response_ids = completion.ids
        draft.logprobs = completion.logprobs
        draft.truncated = completion.truncated
        draft.response = self.chat.decode(completion.ids)

    def complete(self, requests: Sequence[Request], phase: str) -> list[Completion]:
        """Generate on all ranks and give every rank everything, in order."""
        share = dist.mine(requests, self.engine.replica, self.engine.replicas)
        done = self._share(share, self.engine.generate, phase)
        return dist.merge(done, len(requests))

    def verify(self, attempts: Sequence[Attempt], phase: str = "verify") -> None:
        """Fill in the verdicts; None where verification itself failed."""
        attempts = [attempt for attempt in attempts if attempt.lost is None]  # else its environment has failed
        share = dist.mine([attempt.answer for attempt in attempts])
        verdicts = self._share(share, self.verifier.verify, phase)
        for attempt, said in zip(attempts, dist.merge(verdicts, len(attempts)), strict=True):
            attempt.judge(said)

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
