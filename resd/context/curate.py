"""Turns reflections into playbook entries (paper section 3.3).

Every curator of a step sees the same playbook and not the others' answers, so the same lesson may come twice; what
differs in no word is merged when it is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from resd.context.concise import tally
from resd.context.playbook import Playbook
from resd.context.reflect import first_per_problem
from resd.context.render import Prompts
from resd.types import Attempt, Generate


@dataclass(frozen=True, slots=True)
class Curation:
    """What one step of curation did: ids added, operations merged into existing entries, unusable outputs and parts."""

    added: tuple[str, ...] = ()
    duplicates: int = 0
    invalid: int = 0


class Curator:
    """One question per failed problem, all in one call of `generate`."""

    def __init__(self, generate: Generate, prompts: Prompts) -> None:
        self.generate, self.prompts = generate, prompts

    def curate(self, attempts: Sequence[Attempt], playbook: Playbook, step: int) -> Curation:
        """Adds what the curators propose, in order.

        Attempts without a usable reflection are passed over; of the others the first of each problem counts.
        """
        reflected = first_per_problem([a for a in attempts if a.reflection and a.reflection.text])
        rules = playbook.render(self.prompts.style)
        statistics = ", ".join(f"{number} {category}" for category, number in tally(playbook.entries).items())
        questions = [
            self.prompts.question("curate", a.id, self.prompts.curate(a.reflection.text, rules, statistics))
            for a in reflected
            if a.reflection
        ]
        added: list[str] = []
        duplicates = invalid = 0
        for output in self.generate(questions):
            operations, faults = ([], 1) if output is None else self.prompts.format.parse_operations(output)
            invalid += faults
            for operation in operations:
                entry = playbook.add(operation.section, operation.text, step, operation.parents)
                if entry is None:
                    duplicates += 1
                else:
                    added.append(entry.id)
        return Curation(tuple(added), duplicates, invalid)
