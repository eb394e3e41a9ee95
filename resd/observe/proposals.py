"""Problems that the student proposes, as far as they can be tried."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resd import seeds
from resd.settings import SamplingSettings
from resd.task import Proposing
from resd.types import Attempt, Messages, Problem, Verdict

if TYPE_CHECKING:
    from resd.observe.run import Run


@dataclass(slots=True)
class Proposals:
    """What was said, in order, and the problem that each states, by its id; `readable` of them state one at all.

    What cannot be read, or repeats another of these, has a verdict of 0 and no problem. What may be a test problem has
    neither, for it is nobody's fault and not to be learned from.
    """

    said: list[Attempt]
    problems: dict[str, Problem] = field(default_factory=dict)
    readable: int = 0


def propose(run: "Run", sampling: SamplingSettings, prompts: int, each: int, level: int | None = None) -> Proposals:
    """`each` proposals to every one of so many prompts of a level, or of one by lot (None).

    Those to one prompt answer one problem, `proposal-N`. `propose/…` counts those that cannot be tried.
    """
    task, step = run.task, run.step
    assert isinstance(task, Proposing)

    def asked(slot: Problem) -> Messages:
        seed = seeds.derive(run.seed, "propose", step, slot.id)
        return task.propose_prompt(seed, seed % task.levels if level is None else level)

    slots = [Problem(f"proposal-{number}", "") for number in range(prompts)]
    found = Proposals(run.speak(run.speech.drafts(slots, each, asked, draw=step), sampling, "propose"))
    stated, held_out, unread, repeated = set[str](), 0, "", 0
    for proposal in found.said:
        proposal.proposes = True
        try:
            problem = task.proposed(proposal.response, proposal.id.replace("/", "-"))
            kept_apart, statement = task.held_out(problem), problem.statement
        except Exception as error:  # of a task of somebody's own, any; a proposal is lost and not the run
            unread = unread or str(error) or type(error).__name__
            proposal.verdict = _refused(f"This cannot be read: {error}.", "invalid")
            continue
        found.readable += 1
        if kept_apart:
            held_out += 1
        elif statement in stated:
            repeated += 1
            proposal.verdict = _refused("Another proposal is the same.", "duplicate")
        else:
            stated.add(statement)
            found.problems[proposal.id] = problem
    run.journal.count("propose/invalid", len(found.said) - found.readable, unread)
    run.journal.count("propose/duplicate", repeated)
    run.journal.count("propose/held_out", held_out)
    return found


def _refused(feedback: str, error: str) -> Verdict:
    return Verdict(0.0, False, 0, 1, feedback, error=error)
