"""Environments of the older interface: `load_environment` gives a `MultiTurnEnv` with data sets and a `Rubric`.

A response is judged by the environment's own rollout, in which a stand-in for a model gives it, and by its own
`score_rollout`; so what it puts into its state is there. Of several turns the stand-in gives one reply after another,
and the rollout ends at the first request that has none: it is replayed from its beginning for every turn. A Rubric
turns an error of a reward function into 0, which a student would learn from: here functions are wrapped, and such an
error is raised. One of a mere metric (weight 0) leaves the metric out. A function that gives a mapping gives a metric
for each of its keys.
"""

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from resd.envs.verifiers.environment import Loop, Reply, Row, Scored, plain, reason, refuse, solution
from resd.task import Split
from resd.types import Messages, UserError

_OWN = {"num_turns"}  # a metric of the library, always 1 here
_JUDGES = {"judge", "judge_client"}  # what a JudgeRubric offers its functions


class Classic:
    """`made` is what `load_environment` gave. Raises UserError if it takes more than a response to be judged."""

    def __init__(self, env: str, made: Any) -> None:
        self.env, self.made, self.run = env, made, Loop()
        self._refuse()
        self.several = getattr(made, "max_turns", 1) != 1
        self.calls = Calls()
        self.weights: dict[str, float] = {}
        for rubric in _rubrics(made.rubric):
            for place, (function, weight) in enumerate(zip(rubric.funcs, rubric.weights, strict=True)):
                name = getattr(function, "__name__", type(function).__name__)
                rubric.funcs[place] = self.calls.watched(function, name, weight)
                if name not in _OWN:
                    self.weights[name] = self.weights.get(name, 0.0) + float(weight)
        made.get_model_response = self._answer
        self.replies: Sequence[Reply] = ()
        self.requests: list[list[Any]] = []  # messages of each that a rollout made

    def rows(self, split: Split, most: int | None) -> list[Row] | None:
        """Those of `dataset` for training and of `eval_dataset` for testing."""
        try:
            with quiet():
                built = self.made.build_dataset() if split == "train" else self.made.build_eval_dataset()
        except Exception as error:
            raise UserError(f"env={self.env}: its {split} data set cannot be built: {reason(error)}") from None
        if built is None:
            return None
        return [self._row(number, dict(row)) for number, row in enumerate(built, 1)]

    def follow(self, data: dict[str, Any], *replies: Reply) -> Messages:
        """What it asks next, after what it asked before and the last reply. Raises UserError if it changes those."""
        self.run(self._played(data, replies))
        if len(self.requests) <= len(replies):
            return []
        *_, before, now = self.requests
        if now[: len(before)] != before or [each.role for each in now[len(before) :]][:1] != ["assistant"]:
            raise UserError(f"env={self.env} changes what was said before, but an attempt goes on where it is")
        heard = now[len(before) + 1 :]
        return plain(heard, f"env={self.env}") if heard else []

    def score(self, data: dict[str, Any], *replies: Reply) -> Scored:
        """What the rubric gives. Raises what a reward function of some weight raises."""
        self.calls.begin()
        state = self.run(self._judged(data, replies))
        if self.calls.failed is not None:
            raise self.calls.failed
        given = {name: value for name, value in (state.get("metrics") or {}).items() if name not in _OWN}
        values = {name: value for name, value in given.items() if name not in self.calls.unfit} | self.calls.spread
        weighted = frozenset(name for name in values if self.weights.get(name))
        said = state.get("feedback")
        return Scored(float(state["reward"]), values, weighted, said if isinstance(said, str) else "")

    def _refuse(self) -> None:
        import verifiers

        made, problem = self.made, ""
        if not isinstance(made, verifiers.Environment):
            raise UserError(f"env={self.env}: load_environment gave {made!r:.60}, which is no Environment")
        if not isinstance(made, verifiers.MultiTurnEnv):
            problem = f"it is a {type(made).__name__}, which has no turns"
        elif made.tool_defs or isinstance(made, verifiers.ToolEnv):
            problem = "it offers tools"
        elif made.rubric.has_group_rewards or made.rubric.has_advantages:
            problem = "it rewards responses in comparison with others"
        elif any(_JUDGES & rubric.class_objects.keys() for rubric in _rubrics(made.rubric)):
            problem = "its rubric asks a judge, which is another model"
        refuse(self.env, problem)

    def _row(self, number: int, row: dict[str, Any]) -> Row:
        place = f"env={self.env}, row {number}"
        if _info(row.get("info"), place).get("tool_defs"):
            raise UserError(f"{place} offers tools: choose an environment that judges single responses")
        family = row["task"] if isinstance(row.get("task"), str) else ""
        return Row(number, plain(row.get("prompt"), place), row, family, solution(row.get("answer")))

    async def _played(self, row: dict[str, Any], replies: Sequence[Reply]) -> Any:
        """The state after a rollout with these replies. Raises what the environment raises."""
        self.replies, self.requests = replies, []
        # a prompt that is one text is read by the library as no chat at all
        asked = row | {"prompt": plain(row.get("prompt"), f"env={self.env}")}
        state = await self.made.rollout(asked, _nobody(), "student", {})
        if state.get("error") is not None:
            raise state["error"]
        if state.get("timed_out"):
            raise UserError(f"env={self.env} took longer than it gives itself")
        return state

    async def _judged(self, row: dict[str, Any], replies: Sequence[Reply]) -> Any:
        state = await self._played(row, replies)
        await self.made.rubric.score_rollout(state)
        await self.made.rubric.cleanup(state)
        return state

    async def _answer(self, state: Any, messages: Any, *_: Any, **__: Any) -> Any:
        from verifiers import OverlongPromptError
        from verifiers.types import Response, ResponseMessage

        self.requests.append(list(messages))
        if len(self.requests) > len(self.replies):
            raise OverlongPromptError("there is no further reply")  # with which the library ends a rollout in order
        reply = self.replies[len(self.requests) - 1]
        message = ResponseMessage(
            content=reply.content,
            reasoning_content=reply.thinking,
            finish_reason="length" if reply.truncated else "stop",
            is_truncated=reply.truncated,
        )
        return Response(id="student", created=0, model="student", message=message)


class Calls:
    """What reward functions gave and raised in one scoring, which the library does not tell."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.failed: Exception | None = None
        self.unfit: set[str] = set()
        self.spread: dict[str, float] = {}

    def watched(self, function: Callable[..., Any], name: str, weight: float) -> Callable[..., Awaitable[float]]:
        """The function, under its name and signature, with messages that can be read as dictionaries too."""

        @wraps(function)
        async def call(*args: Any, **given: Any) -> float:
            given |= {key: _messages(given[key]) for key in ("prompt", "completion") if key in given}
            try:
                value = function(*args, **given)
                value = await value if inspect.isawaitable(value) else value
                if not weight and isinstance(value, Mapping):
                    self.unfit.add(name)
                    self.spread |= {f"{name}/{key}": _number(f"{name}/{key}", each) for key, each in value.items()}
                    return 0.0
                return _number(name, value)
            except Exception as error:
                self.unfit.add(name)
                if weight and self.failed is None:
                    self.failed = error
                return 0.0

        call.__name__ = name
        return call


class Message(dict[str, Any]):
    """A chat message in both of the ways in which reward functions read one: `m["content"]` and `m.content`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _messages(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    return [each if isinstance(each, dict) else Message(each.model_dump()) for each in given]


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"the reward function {name} gave {value!r:.60}, which is no number") from None
    if not math.isfinite(number):
        raise UserError(f"the reward function {name} gave {number}, which is not finite")
    return number


def _info(given: Any, place: str) -> Mapping[str, Any]:
    """The column `info`, which may be a mapping or its JSON."""
    try:
        info = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise UserError(f"{place}: its info is no JSON ({error}), which the library wants there") from None
    return info if isinstance(info, Mapping) else {}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars that `datasets` draws while rows are made, which a log would keep."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _rubrics(rubric: Any) -> list[Any]:
    """The rubric and those that it is made of."""
    return [rubric, *(each for part in getattr(rubric, "rubrics", ()) for each in _rubrics(part))]


def _nobody() -> Any:
    """A client that is never asked: the environment's own `get_model_response` is replaced."""
    from verifiers.clients import Client

    return type("Nobody", (Client,), dict.fromkeys(Client.__abstractmethods__))(None)
