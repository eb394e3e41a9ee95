"""What the student still can do of the parts of a sequence of tasks that it was trained on before.

All parts are tested at every evaluation, on the same problems with the same seeds. A part is compared with itself at
the end of its own latest block, problem by problem, as `forgetting` compares a second task with what was before
training. Backward transfer is the mean change over the parts whose block is over (Lopez-Paz and Ranzato, arXiv
1706.08840); its interval draws the problems of each part by itself. `resd.report.matrix` shows all of it.

Not covered: what a part gains before its own block (the rows of the matrix show it), the spread between runs.
"""

from collections.abc import Mapping, Sequence

from resd.measure.evaluation import by_part, scores
from resd.measure.forgetting import Base, changes, interval, means
from resd.types import Attempt


class Parts:
    """`bases` are the results of each part at the end of its latest block; `ends` the updates at which one ends."""

    def __init__(self, ends: Mapping[int, str]) -> None:
        self.ends = ends
        self.bases: dict[str, Base] = {}

    def measure(self, step: int, attempts: Sequence[Attempt], seed: int) -> dict[str, float]:
        """`part/NAME/…` and `transfer/…` metrics of the evaluation after update `step`.

        A part whose block ends here has `part/NAME/ended`; the others that had one have their changes since.
        """
        now = {
            part: {name: means(by_problem) for name, by_problem in scores(own).items()}
            for part, own in by_part(attempts).items()
        }
        metrics: dict[str, float] = {}
        ended = self.ends.get(step)
        if ended is not None:
            self.bases[ended] = now[ended]
            metrics[f"part/{ended}/ended"] = 1.0
        pairs = {part: shared(base, now[part]) for part, base in self.bases.items() if part != ended}
        for part, (base, later) in pairs.items():
            metrics |= changes(base, later, f"part/{part}", seed)
        if ended is not None and pairs:
            solved = [(base["per_task"], later["per_task"]) for base, later in pairs.values()]
            change, low, high = interval(solved, seed)
            metrics |= {"transfer/backward": change, "transfer/backward_low": low, "transfer/backward_high": high}
        return metrics


def shared(base: Base, now: Base) -> tuple[Base, Base]:
    """Both, of the problems that both hold: a run may be gone on with another `evaluation.limit`."""
    ids = [id for id in base["per_task"] if id in now["per_task"]]
    return {name: {id: values[id] for id in ids} for name, values in base.items()}, {
        name: {id: values[id] for id in ids} for name, values in now.items()
    }
