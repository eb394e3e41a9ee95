"""Asks a model what its own attempts teach: why one failed, and which playbook entries helped (paper section 3.2).

The attempts were made without the playbook in sight, so a tag says whether an entry would have helped.
"""

from collections.abc import Iterable, Mapping, Sequence

from resd.context.parts import Role, TagsRead
from resd.context.playbook import Playbook
from resd.context.render import Prompts, earlier_turns, split_problem
from resd.context.shorten import BEGINNING, BOTH_ENDS, END, ENTRIES, Budget, Slots
from resd.turns import spoken
from resd.types import Attempt, Generate, Question, Reflection, Tag

# In order of loss; an answer stands at the end of a response, the plan of one of several turns at its beginning.
_LOSS = {"response": END, "playbook": ENTRIES, "feedback": BEGINNING}
_LOSS_OF_TURNS = {**_LOSS, "response": BOTH_ENDS}


class Reflector:
    """Two questions, each asked for a whole batch in one call of `generate`; both follow from attempt and playbook.

    A question over the budget is shortened, except for the problem (None: nothing is).
    """

    def __init__(self, generate: Generate, prompts: Prompts, budget: Budget | None = None) -> None:
        self.generate, self.prompts, self.budget = generate, prompts, budget

    def reflect(self, attempts: Sequence[Attempt], playbook: Playbook) -> list[Reflection | None]:
        """One reflection per failed attempt, in order; None where the prompt was too long or the generation failed."""
        outputs = self.generate([self.question(attempt, playbook) for attempt in attempts])
        return [None if output is None else self.prompts.reflection(output) for output in outputs]

    def tag(self, attempts: Sequence[Attempt], playbook: Playbook) -> dict[str, TagsRead]:
        """What was judged, by the id of the attempt: the first at each solved problem.

        An empty playbook has nothing to tag: then nothing is asked.
        """
        firsts = first_per_problem(attempts) if len(playbook) else []
        outputs = self.generate([self.question(attempt, playbook) for attempt in firsts])
        read = [TagsRead({}, 1) if output is None else self.prompts.format.parse_tags(output) for output in outputs]
        return {attempt.id: tags for attempt, tags in zip(firsts, read, strict=True)}

    def question(self, attempt: Attempt, playbook: Playbook) -> Question:
        """What is asked about a verified attempt: why it failed, or what helped it."""
        index, problem = split_problem(attempt.prompt)
        earlier = earlier_turns(attempt.prompt, index)

        def render(slots: Slots) -> str:
            if attempt.passed:
                return self.prompts.tag(problem, slots["response"], slots["playbook"], earlier)
            return self.prompts.reflect(problem, slots["response"], slots["feedback"], slots["playbook"], earlier)

        slots, truncated = (
            {
                "response": spoken(attempt, self.prompts.format.thinking_opened),
                "playbook": playbook.render(self.prompts.style),
                "feedback": attempt.verdict.feedback if attempt.verdict and not attempt.passed else "",
            },
            0,
        )
        role: Role = "tag" if attempt.passed else "reflect"
        if self.budget:
            taken = self.prompts.taken(role, self.budget.count)
            slots, truncated = self.budget.fit(
                slots, _LOSS_OF_TURNS if len(attempt.turns) > 1 else _LOSS, render, taken
            )
        return self.prompts.question(role, attempt.id, render(slots), truncated > 0)


def count_invalid(reflections: Iterable[Reflection | None]) -> int:
    """The metric `reflect/invalid`: missing reflections and unusable parts of the others."""
    return sum(1 if reflection is None else reflection.invalid for reflection in reflections)


def apply_tags(playbook: Playbook, judgements: Iterable[tuple[str, Mapping[str, Tag]]], step: int) -> int:
    """Applies the tags of each attempt, named by its id, in order; returns how many named an unknown entry."""
    return sum(not playbook.tag(id, tag, step, attempt) for attempt, tags in judgements for id, tag in tags.items())


def first_per_problem(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The first attempt at each problem, in order."""
    firsts: dict[str, Attempt] = {}
    for attempt in attempts:
        firsts.setdefault(attempt.problem.id, attempt)
    return list(firsts.values())
