"""Environments that people already have: packages for `verifiers`, of its older and its newer interface.

    pip install verifiers==0.3.1 sophistry-bench-sprint
    python -m resd.train task=verifiers task.options.env=sophistry_bench_sprint
    python -m resd.train task=verifiers task.options.env=my-env task.options.args.split=train

A problem is a row of the environment's data set with the messages that it writes, its system prompt first; a response
is judged by its own rubric. With the values v_i of its reward functions and their weights w_i

    total = sum_i w_i v_i      reward = total / full, at least 0 and at most 1      passed: total >= pass_at

where `full` is the sum of the positive weights, what the rubric can give if no function gives more than 1, and
`pass_at` is `full`, both unless options say otherwise. A response is one case. The feedback is the value of every
function and metric by name, and the text that the environment leaves as `feedback` in its state (newer: in `info` of
its trace), if it does. Reward functions are scores of the verdict as `reward/NAME` where there are several, and so are
the metrics that `metrics` names: evaluations show shares, which not every metric is.

A function that raises, hangs or gives no finite number loses the response. Environments are refused that offer tools,
compare responses with each other, ask a judge or a machine, or draw without a seed between turns; what cannot be known
from outside, such as a function that calls a server, shows when a response is judged, an empty one before work starts.

Functions run in a worker process with a deadline, which is no sandbox. Each worker loads the environment again. Not
covered: several turns of the newer interface, tools, images, `EnvGroup`, and limits and samplings that an environment
sets for its model.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from resd.envs.divided import share, sides
from resd.envs.options import choice, whole
from resd.envs.verifiers import find
from resd.envs.verifiers.environment import Environment, Reply, Row, Scored
from resd.task import OWN_SCORES, Split
from resd.thinking import OPEN, after_thinking
from resd.types import Messages, Problem, UserError, Verdict

Thinking = Literal["apart", "inline"]


class Verifiers:
    """Implements `resd.task.Task`. Raises UserError when the package or environment is missing or cannot be used.

    env: an installed package, the path of a module, or `module:function`
    args: what `load_environment` takes, or fields of a taskset's configuration
    test_args: what `args` are for the test problems, where an argument chooses the split
    train, test: problems of each split at most; None: all
    test_share: of an environment with one data set, by a hash of each prompt; None: a fifth
    full: the total that is a reward of 1; None: the sum of the positive weights
    pass_at: the total from which a response passes; None: `full`
    metrics: names of metrics, as the feedback has them, that evaluations report
    thinking: `apart`: kept out of what is judged, as servers do; `inline`: left in, for parsers that look for it
    """

    noun = "answer"

    def __init__(
        self,
        env: str,
        args: Mapping[str, Any] | None = None,
        test_args: Mapping[str, Any] | None = None,
        train: int | None = None,
        test: int | None = None,
        test_share: float | None = None,
        full: float | None = None,
        pass_at: float | None = None,
        metrics: Sequence[str] = (),
        thinking: Thinking = "apart",
    ) -> None:
        choice("thinking", thinking, get_args(Thinking))
        for option, number in {"train": train, "test": test}.items():
            if number is not None:
                whole(option, number, 1, 10**9)
        self.env, self.args, self.test_args = env, _mapping("args", args), _mapping("test_args", test_args)
        self.sizes: dict[Split, int | None] = {"train": train, "test": test}
        self.test_share = share(test_share)
        if isinstance(metrics, str) or not all(isinstance(name, str) for name in metrics):
            raise UserError(f"metrics={metrics!r:.80} is no list of names: write task.options.metrics=[NAME]")
        self.metrics, self.thinking, self.told = frozenset(metrics), thinking, ""
        self._load()
        self.full = self._full(full)
        self.pass_at = self.full if pass_at is None else _number("pass_at", pass_at)

    def problems(self, split: Split) -> list[Problem]:
        """The rows of one split, at least one. `cases` is the split that judges it and its row."""
        rows = self._splits()[split][: self.sizes[split]]
        if not rows:
            raise UserError(
                f"env={self.env} has no {split} problem: choose args that give more rows, or write test_args"
            )
        judge = "test" if self.test_args and split == "test" else "train"
        return [_problem(f"{split}-{row.number}", row, judge) for row in rows]

    def prompt(self, problem: Problem) -> Messages:
        """The environment's messages."""
        return problem.cases[0][1]

    @property
    def follow(self) -> Callable[[Problem, Sequence[str]], Messages] | None:
        """What an environment of several turns says after these replies; None for one of a single turn."""
        return self._follow if self.environments["train"].several else None

    def _follow(self, problem: Problem, replies: Sequence[str]) -> Messages:
        judge, _, data = problem.cases[0]
        return self.environments[judge].follow(data, *(self._reply(reply, False) for reply in replies))

    def verify(self, problem: Problem, response: str | Sequence[str], truncated: bool = False) -> Verdict:
        """What the rubric gives. Raises what a reward function raises, and UserError if one gives no finite number."""
        judge, _, data = problem.cases[0]
        *before, last = [response] if isinstance(response, str) else response
        said = [*(self._reply(reply, False) for reply in before), self._reply(last, truncated)]
        scored = self.environments[judge].score(data, *said)
        if not math.isfinite(scored.total):
            raise UserError(f"the rubric of {self.env} gave a total of {scored.total}, which is not finite")
        passed = scored.total >= self.pass_at or math.isclose(scored.total, self.pass_at, abs_tol=1e-9)
        return Verdict(
            reward=min(max(scored.total / self.full, 0.0), 1.0),
            passed=passed,
            cases_passed=int(passed),
            cases_total=1,
            feedback="" if passed else self._feedback(scored),
            answer=last,
            error="truncated" if truncated and not passed else None,
            scores=self._scores(scored),
        )

    def self_test(self) -> str | None:
        """How the problems were divided and what they are judged by. The judge itself was tried when it was loaded."""
        return self.told or None

    def __getstate__(self) -> dict[str, Any]:
        """Without the environments, which hold loops, locks and functions of a function's inside."""
        return {name: value for name, value in self.__dict__.items() if name not in ("environments", "divided")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process that begins to judge: imports take no time of the first answer's."""
        self.__dict__.update(state)
        self._load()

    def _load(self) -> None:
        self.environments: dict[str, Environment] = {"train": find.load(self.env, self.args)}
        if self.test_args:
            self.environments["test"] = find.load(self.env, self.args | self.test_args)
        self.divided: dict[Split, list[Row]] = {}

    def _splits(self) -> dict[Split, list[Row]]:
        if not self.divided:
            self.divided = self._separate(*self._rows())
        return self.divided

    def _rows(self) -> tuple[list[Row] | None, list[Row] | None]:
        """The training and the test rows that the environment has."""
        train, test = self.sizes["train"], self.sizes["test"]
        most = train + test if train and test else None
        own = self.environments["train"]
        if "test" in self.environments:
            other = self.environments["test"]
            return own.rows("train", most), other.rows("test", most) or other.rows("train", most)
        return own.rows("train", most), own.rows("test", most)

    def _separate(self, train: list[Row] | None, test: list[Row] | None) -> dict[Split, list[Row]]:
        if train and test:
            asked = {_key(row) for row in test}
            kept = [row for row in train if _key(row) not in asked]
            twice = f", {len(train) - len(kept)} more left out, being test problems" if len(kept) < len(train) else ""
            self._tell(f"{len(kept)} problems to train on and {len(test)} to test on{twice}")
            return {"train": kept, "test": test}
        only = train or test or []
        sizes = self.sizes["train"], self.sizes["test"]
        wanted = sizes[1] / (sizes[0] + sizes[1]) if sizes[0] and sizes[1] else self.test_share
        where = sides([_key(row) for row in only], wanted) if only else []
        found: dict[Split, list[Row]] = {"train": [], "test": []}
        for row, side in zip(only, where, strict=True):
            found[side].append(row)
        self._tell(
            f"one data set of {len(only)} rows, divided by a hash of each prompt: {len(found['train'])} to train on "
            f"and {len(found['test'])} to test on"
        )
        return found

    def _tell(self, split: str) -> None:
        by = ", ".join(f"{name} ({weight:g})" for name, weight in self.environments["train"].weights.items())
        self.told = f"env={self.env}: {split}; judged by {by}; full marks {self.full:g}, passed from {self.pass_at:g}"

    def _full(self, given: float | None) -> float:
        if given is not None:
            return _number("full", given, above=0.0)
        full = math.fsum(weight for weight in self.environments["train"].weights.values() if weight > 0)
        if not full:
            raise UserError(f"env={self.env} has no reward function of a positive weight: choose another environment")
        return full

    def _reply(self, response: str, truncated: bool) -> Reply:
        if self.thinking == "inline":
            return Reply(response, None, truncated)
        said = after_thinking(response)
        said = said.partition(OPEN)[0]
        thought = response[: len(response) - len(said)] if response.endswith(said) else response
        return Reply(said.strip() if said != response else response, thought or None, truncated)

    def _scores(self, scored: Scored) -> dict[str, float]:
        several = len(scored.weighted) > 1
        rewards = {f"reward/{name}": value for name, value in scored.values.items() if name in scored.weighted}
        kept = {name: value for name, value in scored.values.items() if name in self.metrics - scored.weighted}
        own = {f"metric/{name}" if name in OWN_SCORES else name: value for name, value in kept.items()}
        return (rewards if several else {}) | own

    def _feedback(self, scored: Scored) -> str:
        total = f"The reward is {scored.total:.3g}; {self.pass_at:g} is wanted."
        each = [f"{name}: {value:.3g}" for name, value in scored.values.items()]
        return "\n".join([total, *each, *filter(None, [scored.said.strip()])])


def _problem(name: str, row: Row, judge: str) -> Problem:
    asked = row.messages[-1]["content"]
    return Problem(name, asked, row.family, [(judge, row.messages, row.data)], row.privileged)


def _key(row: Row) -> str:
    return json.dumps(list(row.messages), ensure_ascii=False)


def _mapping(option: str, given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"{option}={given!r:.80} has no names: write task.options.{option}.NAME=VALUE")
    return dict(given or {})


def _number(option: str, given: Any, above: float = -math.inf) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not above < given < math.inf:
        raise UserError(f"{option}={given!r} is out of range: write a number{'' if above < 0 else f' above {above:g}'}")
    return float(given)
