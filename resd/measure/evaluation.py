"""Evaluation: several samples of every test problem, plain prompts, no playbook (paper section 4.1).

`mean@n` averages over samples; `best@n` is the true maximum over the n samples of a problem (the released evaluation
logs a bootstrap with replacement, which is lower). Both per task (all cases passed), per case (the share of a problem's
cases, averaged over problems), for the reward and for every further score of the verdicts. `per_case/pooled` is the
share of all cases of all problems together; `vote@n` is what the commonest answer of a problem earns. For a sequence of
tasks the same is said of each part (`part/NAME/…`).
"""

from collections import Counter
from collections.abc import Callable, Sequence

from resd.context.votes import elected
from resd.observe.speech import Speech
from resd.report.ranking import ASKED
from resd.settings import EvaluationSettings, SamplingSettings
from resd.task import OWN_SCORES
from resd.types import Attempt, Messages, Problem


def evaluate(
    speech: Speech,
    problems: Sequence[Problem],
    settings: EvaluationSettings,
    rollout: SamplingSettings,
    prompt: Callable[[Problem], Messages],
) -> tuple[dict[str, float], list[Attempt]]:
    """Metrics and attempts of the engine's current weights on `problems`, with the same seeds at every call.

    Lengths are those of `rollout`, temperature and top-p those of `settings`, whose `limit` holds for each part.
    """
    sampling = rollout.model_copy(update={"temperature": settings.temperature, "top_p": settings.top_p})
    with speech.clock("evaluate"):
        attempts = speech.drafts(limited(problems, settings.limit), settings.samples, prompt)
        speech.converse(attempts, sampling, "evaluate")
        speech.verify(attempts, "evaluate")
    metrics = summarise(attempts, settings.samples)
    if settings.vote:
        metrics |= voted(attempts, settings.samples)
    for part, own in by_part(attempts).items():
        metrics |= summarise(own, settings.samples, f"part/{part}")
    asked = (len(attempts) // settings.samples, sampling.temperature, sampling.top_p, sampling.max_response)
    return metrics | dict(zip(ASKED, asked, strict=True)), attempts


def limited(problems: Sequence[Problem], limit: int | None) -> list[Problem]:
    """The first `limit` problems of each part, in order."""
    seen: Counter[str] = Counter()
    kept = []
    for problem in problems:
        seen[problem.part] += 1
        if limit is None or seen[problem.part] <= limit:
            kept.append(problem)
    return kept


def by_part(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """The attempts at the problems of each part of a sequence of tasks; nothing for any other task."""
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.problem.part:
            found.setdefault(attempt.problem.part, []).append(attempt)
    return found


def summarise(attempts: Sequence[Attempt], samples: int, prefix: str = "eval") -> dict[str, float]:
    """`eval/…` metrics of verified attempts. A lost verdict and a prompt beyond the limit count as failed."""
    metrics: dict[str, float] = {}
    for name, scores_P_G in scores(attempts).items():
        count = max(1, len(scores_P_G))
        metrics[f"{prefix}/{name}/mean@{samples}"] = sum(sum(s) / len(s) for s in scores_P_G.values()) / count
        metrics[f"{prefix}/{name}/best@{samples}"] = sum(max(s) for s in scores_P_G.values()) / count
    passed = sum(a.verdict.cases_passed for a in attempts if a.verdict)
    cases = sum(a.verdict.cases_total if a.verdict else len(a.problem.cases) for a in attempts)
    metrics[f"{prefix}/per_case/pooled"] = passed / max(1, cases)
    total = max(1, len(attempts))
    metrics[f"{prefix}/response/length"] = sum(len(a.own(a.response_ids)) for a in attempts) / total
    if turns := [len(a.turns) for a in attempts if a.turns]:
        metrics[f"{prefix}/response/turns"] = sum(turns) / len(turns)
    metrics[f"{prefix}/response/truncated"] = sum(a.truncated for a in attempts) / total
    metrics[f"{prefix}/too_long"] = sum(not a.response_ids for a in attempts)
    metrics[f"{prefix}/lost"] = sum(a.verdict is None for a in attempts)
    return metrics


def voted(attempts: Sequence[Attempt], samples: int) -> dict[str, float]:
    """`eval/per_task/vote@n`: the share of problems whose commonest answer passes, of equal ones the first given.

    What a model is worth to somebody without a judge; `best@n` is what a judge would choose. Where verdicts name no
    answers there is nothing to count.
    """
    by_problem: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_problem.setdefault(attempt.problem.id, []).append(attempt)
    chosen = [winners[0].passed for winners in map(elected, by_problem.values()) if winners]
    return {f"eval/per_task/vote@{samples}": sum(chosen) / len(by_problem)} if chosen else {}


def scores(attempts: Sequence[Attempt]) -> dict[str, dict[str, list[float]]]:
    """By name of the score and id of the problem: one number a sample, 0 for a lost verdict."""
    further = dict.fromkeys(name for attempt in attempts if attempt.verdict for name in attempt.verdict.scores)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (*OWN_SCORES, *further)}
    for attempt in attempts:
        verdict = attempt.verdict
        of: dict[str, float] = {}
        if verdict is not None:
            of = {"per_task": float(verdict.passed), "per_case": verdict.case_fraction, "reward": verdict.reward}
            of |= verdict.scores
        for name, by_problem in found.items():
            by_problem.setdefault(attempt.problem.id, []).append(of.get(name, 0.0))
    return found
