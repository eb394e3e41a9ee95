"""Names of rewards among metrics, and whether they say more than what passed.

An evaluation has `eval/reward/{mean,best}@n`, and `eval/reward/JUDGE/{mean,best}@n` where there are several judges. For
a task whose rewards are 1 for what passed and else 0 the first two are those of `eval/per_task`, and nobody is shown
them twice.
"""

import re
from collections.abc import Iterable, Mapping
from math import isclose
from typing import Any

REWARD = ("eval/reward/mean@{n}", "eval/reward/best@{n}")

_REWARD = re.compile(r"(\w+/)reward(/(mean|best)@\d+)?")
_JUDGE = re.compile(r"eval/reward/(.+)/mean@\d+")


def is_reward(name: str) -> bool:
    """Whether a metric is the reward itself, that of all judges."""
    return _REWARD.fullmatch(name) is not None


def scores(metrics: Mapping[str, float]) -> str:
    """An evaluation in one line: rewards only where they say more than what passed, the best of one nowhere."""
    named = [name for name in metrics if name.startswith("eval/") and "@" in name and not name.endswith("/best@1")]
    shown = [name for name in named if graded(metrics) or not is_reward(name)]
    return "  ".join(f"{_short(name)} {100 * metrics[name]:.1f}%" for name in shown)


def _short(name: str) -> str:
    """What the console calls a metric of an evaluation."""
    return name.removeprefix("eval/").removeprefix("per_")


def graded(metrics: Mapping[str, Any]) -> bool:
    """Whether the rewards of one row of metrics are others than 1 for what passed and 0 for what failed."""
    return any(_differ(metrics, name, "per_task", 0.0) for name in metrics if is_reward(name))


def ranked(metrics: Mapping[str, Any]) -> bool:
    """Whether the rewards of an evaluation are neither that nor the share of cases, so that they rank it too."""
    rewards = [name for name in metrics if is_reward(name)]
    return all(any(_differ(metrics, name, other, 1e-9) for name in rewards) for other in ("per_task", "per_case"))


def judges(metrics: Iterable[str]) -> list[str]:
    """The names of the judges among those of metrics."""
    return list(dict.fromkeys(found[1] for name in metrics if (found := _JUDGE.fullmatch(name))))


def _differ(metrics: Mapping[str, Any], name: str, other: str, within: float) -> bool:
    reward, base = metrics[name], metrics.get(_REWARD.sub(rf"\1{other}\2", name))
    return reward is not None and base is not None and not isclose(reward, base, rel_tol=0.0, abs_tol=within)
