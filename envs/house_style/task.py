"""House style: short pieces of office work whose replies obey rules that nobody states, and a linter that complains.

    python -m resd.envs.play task=house_style

A reply passes if it says what is asked and keeps every rule; both are reported (`content`, `style`). Which rules there
are depends on `rules`: `dev:N` for development, `report:N` for results. A set of rules belongs to one of the two for
ever, so that what was tuned on development sets has never seen a reporting one.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Literal, get_args

from resd.envs.house_style.offices import Item, items
from resd.envs.house_style.rules import LOOKS, RULES, Rule, Slot, kept, says
from resd.envs.options import choice
from resd.task import Split
from resd.thinking import strip_thinking
from resd.types import Messages, Problem, UserError, Verdict

Feedback = Literal["first", "parser", "vague", "all"]
Reward = Literal["sparse", "dense"]

MARKS: frozenset[Slot] = frozenset({"opening", "frame", "closing"})  # what no plain reply has
MAX_CHARS = 4000  # of a reply; a longer one counts as cut off


class HouseStyle:
    """Implements `resd.task.Task`. Raises UserError for an unknown option.

    rules: `dev:N` or `report:N`, the set of rules with that number
    count: how many rules, 2 to 6
    marks: how many of them are marks that no plain reply has, 2 or 3, for sets of like difficulty; None: 2 or more
    feedback: `first` complaint of the linter | `parser`: what it expected and found | `vague`: where, not what | `all`
        complaints
    reward: `sparse`: 1 for a reply that passes | `dense`: the share of rules kept and of content
    stated: whether the prompt states the rules, to measure what a model can follow
    """

    noun = "reply"

    def __init__(
        self,
        rules: str = "dev:0",
        count: int = 4,
        marks: int | None = None,
        feedback: Feedback = "first",
        reward: Reward = "sparse",
        stated: bool = False,
    ) -> None:
        choice("feedback", feedback, get_args(Feedback))
        choice("reward", reward, get_args(Reward))
        if count not in range(2, len(LOOKS) + 1):
            raise UserError(f"count={count!r} is out of range: write a number of rules from 2 to {len(LOOKS)}")
        if marks is not None and marks not in possible(count):
            good = " or ".join(map(str, possible(count)))
            raise UserError(f"marks={marks!r} does not go with count={count}: write {good}, or null for any of them")
        self.rules = [RULES[name] for name in draw(rules, count, marks)]
        self.feedback, self.reward, self.stated = feedback, reward, stated

    def problems(self, split: Split) -> list[Problem]:
        """320 for training or 200 for testing, families by turns. `cases` is the item."""
        return [
            Problem(f"{item.family}-{split}-{number}", item.statement, item.family, [item])
            for number, item in enumerate(items(split))
        ]

    def prompt(self, problem: Problem) -> Messages:
        """The item, alone or below the rules."""
        asked = stated(self.rules, problem.statement) if self.stated else problem.statement
        return [{"role": "user", "content": asked}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Every rule and the content; a reply that was cut off has no right content."""
        whole, item = strip_thinking(response), problem.cases[0]
        reply, truncated = whole[:MAX_CHARS].strip(), truncated or len(whole) > MAX_CHARS
        broken = [rule for rule in self.rules if not rule.holds(reply)]
        missing = self._content(item, reply, truncated)
        total = len(self.rules) + 1
        cases = total - len(broken) - bool(missing)
        complaints = [self._complaint(rule, reply) for rule in broken] + ([missing] if missing else [])
        feedback = "\n".join(complaints if self.feedback == "all" else complaints[:1])
        passed = not complaints
        scores = {"content": float(not missing), "style": float(not broken), "rules": 1 - len(broken) / len(self.rules)}
        reward = cases / total if self.reward == "dense" else float(passed)
        error = None if reply else "no_answer"
        return Verdict(reward, passed, cases, total, feedback, reply or None, error, scores)

    def self_test(self) -> str:
        """Raises UserError unless what keeps all rules passes, and neither plain content, nor an echo, nor nothing."""
        for problem in [*self.problems("train")[:5], *self.problems("test")[:5]]:
            item = problem.cases[0]
            right = kept(item.answer, self.rules)
            if not self.verify(problem, right).passed:
                raise UserError(f"the judge fails {right!r}, which keeps every rule")
            for wrong in ("", item.answer, problem.statement, kept(problem.statement, self.rules)):
                if self.verify(problem, wrong).passed:
                    raise UserError(f"the judge passes {wrong!r:.80}, which is no reply in this style")
        return f"house style: {len(self.rules)} rules"

    def _complaint(self, rule: Rule, reply: str) -> str:
        if self.feedback == "vague":
            return f"Something is wrong {rule.where}."
        if self.feedback == "parser":
            return f"Expected {rule.expected}, found {rule.found(reply)}."
        return rule.demand

    def _content(self, item: Item, reply: str, truncated: bool) -> str:
        """What is wrong with what a reply says, if anything."""
        vague = self.feedback == "vague"
        if truncated:
            return "Something is wrong with what the reply says." if vague else "The reply must come to an end."
        if says(reply, item.answer) and not says(reply, item.wrong):
            return ""
        if vague:
            return "Something is wrong with what the reply says."
        return f"The reply must say the right {item.asked}, and nothing else."


def stated(rules: Sequence[Rule], statement: str) -> str:
    """A statement below rules, as somebody would tell them."""
    return "\n".join(["Rules for every reply:", *(f"- {rule.demand}" for rule in rules), "", statement])


def draw(rules: str, count: int, marks: int | None = None) -> list[str]:
    """The names of the rules of a set, in the linter's order. Raises UserError for anything but `dev:N`, `report:N`.

    Two or more of them, or as many as `marks` says, are marks that no plain reply has. A set is drawn again until it
    has them and its hash says that it belongs here.
    """
    found = re.fullmatch(r"(dev|report):([0-9]{1,6})", str(rules))
    if found is None:
        raise UserError(f"rules={rules!r} names no set of rules: write dev:N to develop, or report:N for results")
    kind = found[1]
    source = random.Random(f"{kind}/{int(found[2])}/{count}")
    wanted = possible(count) if marks is None else [marks]
    while True:
        slots = source.sample(LOOKS, count)
        names = [source.choice([name for name, rule in RULES.items() if rule.slot == slot]) for slot in slots]
        if len(MARKS.intersection(slots)) in wanted and belongs(names) == kind:
            return sorted(names, key=lambda name: LOOKS.index(RULES[name].slot))


def possible(count: int) -> list[int]:
    """How many of `count` rules may be marks: two or more, and the rest has a slot each."""
    return [marks for marks in range(2, len(MARKS) + 1) if marks <= count <= marks + len(LOOKS) - len(MARKS)]


def belongs(names: Sequence[str]) -> str:
    """Whether a set of rules is one for development or for reports, whatever its number."""
    digest = hashlib.sha256(" ".join(sorted(names)).encode()).digest()
    return ("dev", "report")[digest[0] % 2]
