"""The closed set of 874 `has` problems, its split into 742 training and 132 test problems, and a solution of each.

All problems are rebuilt from the rules of the three families, so nothing need be downloaded. Train and test are
disjoint problems of the same kind. The split follows the published recipe (shuffle with seed 42, cut at 85 %); which
problems fell on which side is a reconstruction. Test cases are drawn afresh (see `suite`).
"""

from functools import cache
from random import Random

from resd.envs.manufactoria.families import Rule, read, solve
from resd.envs.manufactoria.goal import FAMILIES, Goal, goals
from resd.envs.manufactoria.suite import draw_cases
from resd.task import Split
from resd.types import Problem, UserError

TRAIN_SHARE = 0.85


def all_problems(seed: int = 0) -> list[Problem]:
    """Every problem with its drawn test cases, by family. `seed` changes the cases and nothing else."""
    return [_problem(id_, goal, seed) for id_, goal in _goals().items()]


def split_problems(split: Split, seed: int = 0) -> list[Problem]:
    """The 742 training or the 132 test problems, in the order of the published recipe."""
    return [_problem(id_, _goals()[id_], seed) for id_ in split_ids(split)]


def split_ids(split: Split) -> list[str]:
    """The ids of one split, such as `has-count-001`."""
    random, order = Random(42), []
    for family in FAMILIES:
        ids = [id_ for id_, goal in _goals().items() if goal.family == family]
        order += random.sample(ids, len(ids))
    random.shuffle(order)
    cut = int(len(order) * TRAIN_SHARE)
    return order[:cut] if split == "train" else order[cut:]


def goal_of(problem: Problem) -> Goal:
    """The predicate that `problem.statement` states. Raises UserError when it is not one of the `has` families."""
    if goal := Goal.from_criteria(problem.statement):
        return goal
    raise UserError(f"problem {problem.id!r} is not one of {', '.join(FAMILIES)}: choose evaluator=suite for it")


def rule_of(problem: Problem) -> Goal | Rule:
    """What `problem.statement` demands. Raises UserError when it is of no known family."""
    if rule := Goal.from_criteria(problem.statement) or read(problem.statement):
        return rule
    raise UserError(
        f"problem {problem.id!r} states nothing that can be checked strictly: choose evaluator=suite for it"
    )


def solution(problem: Problem) -> str:
    """A correct program; for a `has` problem one PULLER_RB and one PULLER_YG for every state of its automaton."""
    if rule := read(problem.statement):
        return solve(rule)
    goal = goal_of(problem)
    states = [goal.start]
    blocks = ["START start:\n    NEXT q0"]
    for number, state in enumerate(states):  # grows while it is walked
        targets = {}
        for colour in "RBYG":
            successor = goal.advance(state, colour)
            if successor is not None and successor not in states:
                states.append(successor)
            targets[colour] = "end" if successor is None else f"q{states.index(successor)}"
        blocks.append(
            f"PULLER_RB q{number}:\n    [R] {targets['R']}\n    [B] {targets['B']}\n    [EMPTY] p{number}\n\n"
            f"PULLER_YG p{number}:\n    [Y] {targets['Y']}\n    [G] {targets['G']}"
        )
    return "\n\n".join([*blocks, "END end"])


@cache
def _goals() -> dict[str, Goal]:
    return {
        f"has-{family.removeprefix('contains_')}-{number:03d}": goal
        for family in FAMILIES
        for number, goal in enumerate(goals(family))
    }


def _problem(id_: str, goal: Goal, seed: int) -> Problem:
    return Problem(id=id_, statement=goal.criteria, family=goal.family, cases=draw_cases(goal, f"{seed}:{id_}"))
