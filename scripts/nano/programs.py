"""Programs for Manufactoria's "has" goals: a chain of two pullers for every state of the goal's automaton.

State i is the red/blue puller `q{i}` whose empty branch leads to the yellow/green puller `p{i}`, whose empty branch
rejects. The numbering is regular, so that a small model can learn it: the number of matched colours for sequences, the
mixed-radix number of the colours counted so far for counts. A comment at `q{i}` says what is still missing, which is
the reasoning such a model needs on the page before it writes the transitions. Not covered: painters, and goals with
more than `MAX_STATES` states, whose programs a model of this size has no room to write.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from resd.envs.manufactoria.goal import Goal, goals

MAX_STATES = 9  # about 28 tokens a state: a program stays within 300 tokens
FAMILY_SHARES = {"contains_substring": 0.42, "contains_ordered": 0.38, "contains_count": 0.2}
# Shares of sequence lengths 1 to 4 at the beginning of a curriculum and at its end (the task's own are 1, 5, 19, 75 %).
LENGTH_SHARES = ((0.4, 0.4, 0.15, 0.05), (0.05, 0.15, 0.3, 0.5))


@dataclass(frozen=True, slots=True)
class Puller:
    """One node: `routes` maps its two colours to a node id or "end"; `empty` is a node id, or None to reject.

    `comment` is a remark for the reader, the colours still missing.
    """

    id: str
    pair: str
    routes: dict[str, str]
    empty: str | None
    comment: str = ""


Program = tuple[Puller, ...]


def states(goal: Goal) -> int:
    """How many states are not yet accepting."""
    if not goal.bounds:
        return len(goal.sequence)
    total = 1
    for _, least in goal.bounds:
        total *= least + 1
    return total - 1


def number(goal: Goal, state: tuple[int, ...]) -> int:
    """The place of an automaton's state in the program."""
    if not goal.bounds:
        return state[0]
    index = 0
    for (_, least), missing in zip(goal.bounds, state, strict=True):
        index = index * (least + 1) + least - missing
    return index


def missing(goal: Goal, state: tuple[int, ...]) -> str:
    """The colours that the goal still needs in a state."""
    if not goal.bounds:
        return goal.sequence[state[0] :]
    return "".join(colour * left for (colour, _), left in zip(goal.bounds, state, strict=True))


def build(goal: Goal) -> Program:
    """The goal's program."""
    reached = [goal.start]
    for state in reached:  # grows while it is walked
        for colour in "RBYG":
            after = goal.advance(state, colour)
            if after is not None and after not in reached:
                reached.append(after)
    pullers = []
    for state in sorted(reached, key=lambda state: number(goal, state)):
        i, target = number(goal, state), {}
        for colour in "RBYG":
            after = goal.advance(state, colour)
            target[colour] = "end" if after is None else f"q{number(goal, after)}"
        pullers.append(Puller(f"q{i}", "RB", {c: target[c] for c in "RB"}, f"p{i}", missing(goal, state)))
        pullers.append(Puller(f"p{i}", "YG", {c: target[c] for c in "YG"}, None))
    return tuple(pullers)


def damage(program: Program, rng: random.Random) -> Program:
    """A copy with one or two transitions redirected; some transition still accepts."""
    targets = [puller.id for puller in program if puller.pair == "RB"] + ["end"]
    while True:
        pullers = list(program)
        for _ in range(rng.choice((1, 1, 2))):
            i = rng.randrange(len(pullers))
            colour = rng.choice(pullers[i].pair)
            other = rng.choice([target for target in targets if target != pullers[i].routes[colour]])
            pullers[i] = replace(pullers[i], routes=pullers[i].routes | {colour: other})
        if any("end" in puller.routes.values() for puller in pullers):
            return tuple(pullers)


class Curriculum:
    """Draws goals: `level` 0 favours short ones, 1 is close to the task's own mix."""

    def __init__(self) -> None:
        fitting = (goal for goal in goals("contains_count") if states(goal) <= MAX_STATES)
        self.counts = sorted(fitting, key=states)
        self.sequences: dict[tuple[str, int], Sequence[Goal]] = {
            (family, length): [goal for goal in goals(family) if len(goal.sequence) == length]
            for family in ("contains_substring", "contains_ordered")
            for length in (1, 2, 3, 4)
        }

    def draw(self, rng: random.Random, level: float) -> Goal:
        family = rng.choices(list(FAMILY_SHARES), list(FAMILY_SHARES.values()))[0]
        if family == "contains_count":
            return self.counts[rng.randrange(max(24, round(len(self.counts) * level)))]
        shares = [(1 - level) * short + level * own for short, own in zip(*LENGTH_SHARES, strict=True)]
        return rng.choice(self.sequences[family, rng.choices((1, 2, 3, 4), shares)[0]])
