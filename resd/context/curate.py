"""Turns reflections into playbook entries (paper section 3.3).

Every curator of a step sees the same playbook and not the others' answers, so the same lesson may come twice; what
differs in no word is merged when it is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from resd.context.concise import tally
from resd.context.parts import OperationsRead
from resd.context.playbook import Playbook
from resd.context.reflect import first_per_problem
from resd.context.render import Prompts, earlier_turns, split_problem
from resd.context.shorten import BEGINNING, ENTRIES, Budget, Slots
from resd.types import Attempt, Generate, Question


@dataclass(frozen=True, slots=True)
class Curation:
    """What one step of curation did: ids added, operations merged into existing entries, unusable outputs and parts,
    and outputs whose slips were mended."""

    added: tuple[str, ...] = ()
    duplicates: int = 0
    invalid: int = 0
    repaired: int = 0


_LOSS = {"problem": BEGINNING, "playbook": ENTRIES, "reflection": BEGINNING}


class Curator:
    """One question per failed problem, all in one call of `generate`; shortened where it exceeds the budget."""

    def __init__(self, generate: Generate, prompts: Prompts, budget: Budget | None = None) -> None:
        self.generate, self.prompts, self.budget = generate, prompts, budget

    def curate(self, attempts: Sequence[Attempt], playbook: Playbook, step: int) -> Curation:
        """Adds what the curators propose, in order.

        Attempts without a usable reflection are passed over; of the others the first of each problem counts.
        """
        reflected = first_per_problem([a for a in attempts if a.reflection and a.reflection.text])
        rules = playbook.render(self.prompts.style)
        statistics = ", ".join(f"{number} {category}" for category, number in tally(playbook.entries).items())
        questions = [self._question(attempt, rules, statistics) for attempt in reflected]
        added: list[str] = []
        duplicates = invalid = repaired = 0
        for attempt, output in zip(reflected, self.generate(questions), strict=True):
            read = OperationsRead([], 1) if output is None else self.prompts.operations(output)
            operations, faults, mended = read
            invalid += faults
            repaired += mended
            for operation in operations:
                entry = playbook.add(operation.section, operation.text, step, operation.parents, attempt.id)
                if entry is None:
                    duplicates += 1
                else:
                    added.append(entry.id)
        return Curation(tuple(added), duplicates, invalid, repaired)

    def _question(self, attempt: Attempt, rules: str, statistics: str) -> Question:
        index, problem = split_problem(attempt.prompt)
        earlier = earlier_turns(attempt.prompt, index)

        def render(slots: Slots) -> str:
            return self.prompts.curate(slots["reflection"], slots["playbook"], statistics, slots["problem"], earlier)

        reflection = attempt.reflection.text if attempt.reflection else ""
        slots, truncated = {"problem": problem, "playbook": rules, "reflection": reflection}, 0
        if self.budget:
            taken = self.prompts.taken("curate", self.budget.count)
            slots, truncated = self.budget.fit(slots, _LOSS, render, taken)
        return self.prompts.question("curate", attempt.id, render(slots), truncated > 0)
