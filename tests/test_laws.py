"""Dialects as tasks: what is right under one law is what the official one says of its image, and wrong elsewhere."""

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))

from laws import EXCHANGES, Law  # noqa: E402
from nano.dialects import FORMS, OFFICIAL, Dialect, write  # noqa: E402
from nano.programs import Curriculum, build  # noqa: E402

from resd.envs.manufactoria.suite import draw_cases  # noqa: E402
from resd.types import Problem, UserError  # noqa: E402

SPELLINGS = [*EXCHANGES]


def laws() -> list[tuple[str, ...]]:
    rng = random.Random(0)
    return [
        (),
        *((name,) for name in SPELLINGS),
        *(tuple(rng.sample(SPELLINGS, 3)) for _ in range(6)),
        tuple(SPELLINGS),
    ]


@pytest.mark.parametrize("other", laws())
def test_a_text_s_exchange_is_the_program_in_the_image_s_spelling(other: tuple[str, ...]) -> None:
    rng, curriculum, law = random.Random(1), Curriculum(), OFFICIAL.flip(*other)
    for _ in range(20):
        program = build(curriculum.draw(rng, 1.0))
        written = Dialect(tuple(rng.choice((0, 1)) if name in SPELLINGS else 0 for name in FORMS))
        text = write(program, written)
        for name in other:
            text = EXCHANGES[name](text)
        assert text == write(program, law.image(written))


@pytest.mark.parametrize("other", laws())
def test_only_the_law_s_own_spelling_passes(other: tuple[str, ...]) -> None:
    rng, task, law = random.Random(2), Law(other), OFFICIAL.flip(*other)
    goal = Curriculum().draw(rng, 0.0)
    program = build(goal)
    problem = Problem("p", "", cases=draw_cases(goal, "0"))
    for name in ("", *SPELLINGS):
        written = law.flip(name) if name else law
        verdict = task.verify(problem, f"```manufactoria\n{write(program, written)}\n```")
        assert verdict.passed == (name == "")
        assert bool(verdict.feedback) == (name != "")


def test_problems_and_prompts_tell_nothing_of_the_law() -> None:
    one, two = Law([]), Law(SPELLINGS)
    assert one.problems("test") == two.problems("test")
    problem = one.problems("train")[0]
    assert one.prompt(problem) == two.prompt(problem)
    with pytest.raises(UserError, match="other=id is no convention: write some of colon"):
        Law(["id"])
