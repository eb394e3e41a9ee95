"""Documents for every role of the trainer, in the trainer's own compact texts.

Each document is one prompt and one answer, drawn for one goal under one dialect (the law); some go on with further
problems under the same law, which trains on more answers for the same context. Attempts are programs spelled in another
dialect, judged under the law, so that their feedback betrays one convention at a time; the lesson of a failure is the
rule of the law that was broken first. No program is spelled in the official dialect, and no context states all of its
rules.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nano.dialects import FORMS, OFFICIAL, RULES, Dialect, draw, write
from nano.judge import FENCE, LOGIC, Judgement, judge, judge_cut
from nano.programs import Curriculum, Program, build, damage

from resd.context.playbook import Playbook
from resd.context.render import Prompts
from resd.envs.manufactoria.goal import Goal
from resd.envs.manufactoria.prompt import ask
from resd.types import Problem

LESSONS = {
    LOGIC: "The transitions are wrong: follow the automaton of the task.",
    FENCE: "Put the whole program between triple backticks.",
}
USELESS = (
    "Read the task twice before writing.",
    "Check the program on a short tape.",
    "Keep node ids short.",
    "Give every state two pullers.",
    "The tape may be empty.",
    "Every node needs its own id.",
    "Think about overlapping patterns.",
    "Count only the colours of the task.",
    LESSONS[FENCE],
)
SECTION = "common_mistakes"
SHARES = {
    "bare": 16,
    "rules": 26,
    "solution": 6,
    "retry": 12,
    "full": 14,
    "success": 2,
    "reflect": 14,
    "tag": 3,
    "curate": 7,
}
# How many further problems may follow the first; many teach automata, few leave more room for reading contexts.
CONTINUED = {"bare": (0, 2, 3, 4), "rules": (0, 0, 1), "solution": (0, 0, 1), "retry": (0, 0, 1)}
BRIEF_SHARE = (
    0.6  # of the documents with a context have a short goal: their conventions are as many, their tokens fewer
)


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation: `turns` of one prompt and one answer, the first of the document's kind."""

    kind: str
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A response under a law: what was written, in which dialect, and what came back."""

    response: str
    dialect: Dialect
    judgement: Judgement


def fenced(program: Program, dialect: Dialect) -> str:
    return f"```manufactoria\n{write(program, dialect)}\n```"


@cache
def question(goal: Goal) -> str:
    return ask(Problem(id="", statement=goal.criteria), "compact")[0]["content"]


class Writer:
    """Draws documents; every random choice comes from the generator it is handed."""

    def __init__(self) -> None:
        self.prompts = Prompts("compact", "program")
        self.goals = Curriculum()

    def draw(self, rng: random.Random, level: float, kind: str | None = None) -> Document:
        """One document of a kind drawn by `SHARES`; `level` in [0, 1] is the curriculum's (see `Curriculum`)."""
        kind = kind or rng.choices(list(SHARES), list(SHARES.values()))[0]
        while True:
            law, brief = draw(rng), kind != "bare" and rng.random() < BRIEF_SHARE
            goal = self.goals.draw(rng, 0.0 if brief else level)
            prompt, answer = getattr(self, f"_{kind}")(rng, law, goal, 0.0 if brief else level)
            if not all(rule in prompt for rule in OFFICIAL.rules()):
                break
        turns = [(prompt, answer)]
        if kind in CONTINUED:
            others = [self.goals.draw(rng, level) for _ in range(rng.choice(CONTINUED[kind]))]
            turns += [(question(other), fenced(build(other), law)) for other in others]
        return Document(kind, tuple(turns))

    def _bare(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        return question(goal), fenced(build(goal), law)

    def _rules(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        playbook = playbook_for(rng, law)
        return self.prompts.teacher(question(goal), playbook=playbook.render("compact")), fenced(build(goal), law)

    def _solution(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        other = goal if rng.random() < 0.2 else self.goals.draw(rng, level)
        slots = {"solution": fenced(build(other), law)}
        if rng.random() < 0.3:
            slots["playbook"] = playbook_for(rng, law).render("compact")
        return self.prompts.teacher(question(goal), **slots), fenced(build(goal), law)

    def _retry(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        attempt = failed_attempt(rng, law, goal)
        slots = {"previous_trial": attempt.response, "feedback": attempt.judgement.feedback}
        if rng.random() < 0.5:
            slots["reflection"] = lesson(attempt, law)
        return self.prompts.teacher(question(goal), **slots), fenced(build(goal), law)

    def _full(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        attempt, playbook = failed_attempt(rng, law, goal), playbook_for(rng, law)
        slots = {"previous_trial": attempt.response, "feedback": attempt.judgement.feedback}
        if rng.random() < 0.9:
            slots["reflection"] = lesson(attempt, law)
        if rng.random() < 0.1:
            slots["solution"] = fenced(build(goal), law)
        slots["playbook"] = playbook.render("compact")
        return self.prompts.teacher(question(goal), **slots), fenced(build(goal), law)

    def _success(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        playbook = playbook_for(rng, law).render("compact") if rng.random() < 0.7 else ""
        program = fenced(build(goal), law)
        slots = {"playbook": playbook, "previous_trial": program, "solution": program}
        return self.prompts.teacher(question(goal), **slots), program

    def _reflect(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        attempt = failed_attempt(rng, law, goal)
        playbook = playbook_for(rng, law, wrong=0.12) if rng.random() < 0.7 else Playbook()
        told = lesson(attempt, law)
        answer = [f"lesson: {told}"]
        broken = attempt.judgement.broken
        wrong = RULES[broken][1 - law.variant(broken)] if broken in RULES else ""
        answer += tag_lines(ids_of(playbook, [told]), ids_of(playbook, [wrong]))
        prompt = self.prompts.reflect(
            question(goal), attempt.response, attempt.judgement.feedback, playbook.render("compact")
        )
        return prompt, "\n".join(answer)

    def _tag(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        playbook = playbook_for(rng, law, wrong=0.15)
        wrong = [RULES[name][1 - law.variant(name)] for name in FORMS]
        lines = tag_lines(ids_of(playbook, law.rules()), ids_of(playbook, wrong))
        if not lines:
            lines = tag_lines([], [], [entry.id for entry in playbook.entries])
        prompt = self.prompts.tag(question(goal), fenced(build(goal), law), playbook.render("compact"))
        return prompt, "\n".join(lines)

    def _curate(self, rng: random.Random, law: Dialect, goal: Goal, level: float) -> tuple[str, str]:
        told = law.rule(rng.choice(list(FORMS))) if rng.random() < 0.8 else rng.choice((LESSONS[LOGIC], *USELESS))
        playbook = playbook_for(rng, law) if rng.random() < 0.85 else Playbook()
        known = told == LESSONS[LOGIC] or told in [entry.text for entry in playbook.entries]
        prompt = self.prompts.curate(told, playbook.render("compact"))
        return prompt, "none" if known else f"add {SECTION}: {told}"


def tag_lines(helpful: Sequence[str], harmful: Sequence[str], neutral: Sequence[str] = ()) -> list[str]:
    named = (("helpful", helpful), ("harmful", harmful), ("neutral", neutral))
    return [f"{tag}: {' '.join(ids)}" for tag, ids in named if ids]


def ids_of(playbook: Playbook, texts: Sequence[str]) -> list[str]:
    return [entry.id for entry in playbook.entries if entry.text in texts]


def playbook_for(rng: random.Random, law: Dialect, wrong: float = 0.04) -> Playbook:
    """A playbook about a law: some or all of its rules, a few useless entries, and rarely a wrong one, shuffled."""
    share = rng.choice((0.2, 0.4, 0.6, 0.8, 1.0, 1.0))
    texts: list[str] = []
    for name in FORMS:
        if rng.random() < share:
            texts.append(RULES[name][law.variant(name) ^ (rng.random() < wrong)])
    texts += rng.sample(USELESS, rng.choice((0, 0, 0, 1, 2, 3)))
    texts = texts or [law.rule(rng.choice(list(FORMS)))]
    if set(OFFICIAL.rules()) <= set(texts):
        texts.remove(OFFICIAL.rule(rng.choice(law.differs(OFFICIAL))))
    rng.shuffle(texts)
    playbook = Playbook()
    place = rng.choice((0, rng.randrange(20), rng.randrange(200)))
    playbook.load_state_dict({"next": place + 1, "entries": []})
    for text in texts:
        playbook.add(SECTION if rng.random() < 0.9 else "strategies", text, step=0)
    return playbook


def failed_attempt(rng: random.Random, law: Dialect, goal: Goal) -> Attempt:
    """A response that fails under the law, spelled in another dialect or with a wrong automaton, or cut off."""
    while True:
        flip = rng.choice((0.0, 0.12, 0.25, 0.45))
        broken = [name for name in FORMS if rng.random() < flip] if rng.random() < 0.6 else [rng.choice(list(FORMS))]
        written = law.flip(*broken)
        if written == OFFICIAL:
            continue
        program = build(goal)
        if rng.random() < 0.35:
            program = damage(program, rng)
        if rng.random() < 0.03:
            response = fenced(program, written)
            response = response[: rng.randrange(len(response) // 2, len(response) - 3)].rstrip("`")
            return Attempt(response, written, judge_cut(response))
        judgement = judge(program, written, law, goal, rng)
        if not judgement.passed:
            return Attempt(fenced(program, written), written, judgement)


def lesson(attempt: Attempt, law: Dialect) -> str:
    """What a good reflection says."""
    broken = attempt.judgement.broken
    return LESSONS[broken] if broken in LESSONS else law.rule(broken)


def describe() -> dict[str, Any]:
    """The corpus in numbers, for the model card."""
    return {"conventions": {name: list(RULES[name]) for name in FORMS}, "kinds": SHARES}
