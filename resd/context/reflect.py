"""Asks a model what its own attempts teach: why one failed, and which playbook entries helped (paper section 3.2).

The attempts were made without the playbook in sight, so a tag says whether an entry would have helped.
"""

from collections.abc import Iterable, Mapping, Sequence

from resd.context.formats import Role, Tags
from resd.context.playbook import Playbook
from resd.context.render import Prompts, split_problem
from resd.context.thinking import strip_thinking
from resd.types import Attempt, Generate, Reflection, Tag


class Reflector:
    """Two questions, each asked for a whole batch in one call of `generate`."""

    def __init__(self, generate: Generate, prompts: Prompts) -> None:
        self.generate, self.prompts = generate, prompts

    def reflect(self, attempts: Sequence[Attempt], playbook: Playbook) -> list[Reflection | None]:
        """One reflection per failed attempt, in order; None where the prompt was too long or the generation failed."""
        rules = playbook.render(self.prompts.style)
        texts = [
            self.prompts.reflect(
                split_problem(attempt.prompt)[1],
                self._said(attempt),
                attempt.verdict.feedback if attempt.verdict else "",
                rules,
            )
            for attempt in attempts
        ]
        outputs = ask(self.generate, texts, "reflect", self.prompts)
        return [None if output is None else self.prompts.format.parse_reflection(output) for output in outputs]

    def tag(self, attempts: Sequence[Attempt], playbook: Playbook) -> list[tuple[Tags, int]]:
        """Tags and the number of unusable parts, one pair per solved problem (its first attempt counts).

        An empty playbook has nothing to tag: then nothing is asked.
        """
        if not len(playbook):
            return []
        rules = playbook.render(self.prompts.style)
        firsts = first_per_problem(attempts)
        texts = [self.prompts.tag(split_problem(a.prompt)[1], self._said(a), rules) for a in firsts]
        outputs = ask(self.generate, texts, "tag", self.prompts)
        return [({}, 1) if output is None else self.prompts.format.parse_tags(output) for output in outputs]

    def _said(self, attempt: Attempt) -> str:
        return strip_thinking(attempt.response, self.prompts.format.thinking_opened)


def count_invalid(reflections: Iterable[Reflection | None]) -> int:
    """The metric `reflect/invalid`: missing reflections and unusable parts of the others."""
    return sum(1 if reflection is None else reflection.invalid for reflection in reflections)


def apply_tags(playbook: Playbook, judgements: Iterable[Mapping[str, Tag]], step: int) -> int:
    """Applies one mapping per reflection, in order; returns how many tags named an unknown entry."""
    return sum(not playbook.tag(id, tag, step) for tags in judgements for id, tag in tags.items())


def first_per_problem(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The first attempt at each problem, in order."""
    firsts: dict[str, Attempt] = {}
    for attempt in attempts:
        firsts.setdefault(attempt.problem.id, attempt)
    return list(firsts.values())


def ask(generate: Generate, texts: Sequence[str], role: Role, prompts: Prompts) -> list[str | None]:
    """The model's outputs for one user message each. An empty batch asks nothing."""
    if not texts:
        return []
    messages = [[{"role": "user", "content": text}] for text in texts]
    return generate(messages, role=role, schema=prompts.format.schema(role))
