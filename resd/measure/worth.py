"""What each entry of a library is worth: how much more a model gets right with it in sight than without it.

The model is judged under random sets of entries; a linear regression of its accuracy on what was in sight says what
each entry adds to a set of the others (as datamodels do for training examples, Ilyas et al. 2022). As entries come and
go independently, this is the mean difference over sets in which every other entry is present with the same
probability (for a half the Banzhaf value), whether or not entries need each other. An entry that only works beside all
others is worth little in halves of a library: there, leave out less.

The ridge is only there so that a design can be solved; one that shrinks would make intervals miss. Intervals are
Student's with a variance from both sides (Cameron, Gelbach and Miller 2011): over problems, since others would be asked
another time, and over sets (HC3, MacKinnon and White 1985), since entries that need each other do not add up.

Not covered: entries in another order or placement, pairs of entries, and what an entry is worth to training.
"""

from math import atanh, ceil, sqrt, tanh

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from resd import seeds
from resd.report.groups import Z_95, t_95
from resd.types import UserError

LEAST = 4  # sets that an entry is left out of: below, its interval rests on too few of them
DESIGNS = 100
RIDGE = 1e-6  # of the mean of the diagonal


def fewest(entries: int, left_out: float) -> int:
    """How many sets it takes to tell so many entries apart, with as many again for the intervals."""
    return max(2 * (entries + 1), ceil(LEAST / left_out))


def check(entries: int, sets: int, left_out: float) -> None:
    """Raises UserError if so many sets cannot tell so many entries apart."""
    needed = fewest(entries, left_out)
    if sets < needed:
        cap = max((n for n in range(1, entries) if fewest(n, left_out) <= sets), default=0)
        other = f", or cap={cap} to look at those judged best" if cap else ""
        raise UserError(
            f"worth={sets} is too few sets for entries: {entries} of them, each left out of {left_out:g} of the sets, "
            f"take worth={needed} or more{other}"
        )


def draw(entries: int, sets: int, left_out: float, seed: int) -> Bool[ndarray, "S E"]:
    """Which entries are in sight in which set: each is left out of the same number of sets, and of several random
    designs this is the one that tells entries apart best."""
    random = np.random.default_rng(seeds.derive(seed, "worth"))
    column_S = np.arange(sets) >= round(left_out * sets)
    designs = (np.stack([random.permutation(column_S) for _ in range(entries)], axis=1) for _ in range(DESIGNS))
    return min(designs, key=lambda told_S_E: float(np.trace(np.linalg.inv(_gram(told_S_E - told_S_E.mean(axis=0))))))


def _gram(centred_S_E: Float[ndarray, "S E"], ridge: float = RIDGE) -> Float[ndarray, "E E"]:
    gram_E_E = centred_S_E.T @ centred_S_E
    return np.asarray(gram_E_E + ridge * gram_E_E.diagonal().mean() * np.eye(len(gram_E_E)))


def worth(
    told_S_E: Bool[ndarray, "S E"], scores_S_P: Float[ndarray, "S P"], ridge: float = RIDGE
) -> tuple[Float[ndarray, " E"], Float[ndarray, " E"]]:
    """The worth of each entry, in the unit of the scores, and half the width of its 95 % interval.

    `scores_S_P` are those of every problem under every set. It takes E + 2 sets and two problems at least. Where all
    sets have the same scores there is nothing to estimate an error from: then halves are not numbers.
    """
    (sets, entries), problems = told_S_E.shape, scores_S_P.shape[1]
    freedom = min(problems - 1, sets - entries - 1)
    if freedom < 1:
        raise ValueError(f"{sets} sets and {problems} problems cannot tell the worth of {entries} entries")
    centred_S_E = told_S_E - told_S_E.mean(axis=0)
    solve_E_S = np.linalg.solve(_gram(centred_S_E, ridge), centred_S_E.T)
    worth_E_P = solve_E_S @ scores_S_P
    residual_S_P = scores_S_P - scores_S_P.mean(axis=0) - centred_S_E @ worth_E_P
    residual_S = residual_S_P.mean(axis=1)
    leverage_S = 1 / sets + np.einsum("se,es->s", centred_S_E, solve_E_S)
    inflation_S = 1 / np.maximum(1 - leverage_S, 1 / sets) ** 2
    noise_S = ((residual_S_P - residual_S[:, None]) ** 2).sum(axis=1) / (problems * (problems - 1))
    of_problems_E = worth_E_P.var(axis=1, ddof=1) / problems
    of_sets_E = solve_E_S**2 @ (residual_S**2 * inflation_S)
    of_both_E = solve_E_S**2 @ (noise_S * inflation_S)  # is in either of them
    variance_E = np.maximum(of_problems_E + of_sets_E - of_both_E, np.maximum(of_problems_E, of_sets_E))
    known = bool((scores_S_P != scores_S_P[0]).any())
    return worth_E_P.mean(axis=1), t_95(freedom) * np.sqrt(variance_E) if known else np.full(entries, np.nan)


def rank_correlation(one: Float[ndarray, " E"], other: Float[ndarray, " E"]) -> tuple[float, float, float] | None:
    """Spearman's, ties at their mean rank, and the ends of its 95 % interval over entries (Bonett and Wright 2000).

    None for fewer than four, or where one side is the same everywhere. A perfect order counts as half a step from it.
    """
    count = len(one)
    if count < 4 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    found = float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])
    inside = 1 - 6 / (count**3 - count)
    z = atanh(min(max(found, -inside), inside))
    half = Z_95 * sqrt((1 + found**2 / 2) / (count - 3))
    return found, tanh(z - half), tanh(z + half)


def _ranks(values: Float[ndarray, " E"]) -> Float[ndarray, " E"]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
