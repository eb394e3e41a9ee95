"""Evaluation: several samples of every test problem, plain prompts, no playbook (paper section 4.1).

    python -m resd.evaluate checkpoint=RUN/checkpoints/step_000040 task=manufactoria samples=4

`mean@n` averages over samples; `best@n` is the true maximum over the n samples of a problem (the released evaluation
logs a bootstrap with replacement, which is lower). Both per task (all cases passed) and per case.
"""

from collections import defaultdict
from collections.abc import Sequence

from resd.run import Run
from resd.settings import EvaluationSettings
from resd.types import Attempt, Problem


def evaluate(
    run: Run, problems: Sequence[Problem], settings: EvaluationSettings
) -> tuple[dict[str, float], list[Attempt]]:
    """Metrics and attempts of the engine's current weights on `problems`, with the same seeds at every call."""
    problems = problems[: settings.limit]
    with run.clock("evaluate"):
        attempts = run.attempt(problems, settings.samples, settings, "evaluate")
        run.verify(attempts, "evaluate")
    return summarise(attempts, settings.samples), attempts


def summarise(attempts: Sequence[Attempt], samples: int) -> dict[str, float]:
    """`eval/…` metrics of verified attempts. A lost verdict counts as failed and is reported."""
    passed_P_G: dict[str, list[float]] = defaultdict(list)
    cases_P_G: dict[str, list[float]] = defaultdict(list)
    for attempt in attempts:
        passed_P_G[attempt.problem.id].append(float(attempt.passed))
        cases_P_G[attempt.problem.id].append(attempt.verdict.case_fraction if attempt.verdict else 0.0)
    metrics: dict[str, float] = {}
    for name, scores_P_G in (("per_task", passed_P_G), ("per_case", cases_P_G)):
        count = max(1, len(scores_P_G))
        metrics[f"eval/{name}/mean@{samples}"] = sum(sum(s) / len(s) for s in scores_P_G.values()) / count
        metrics[f"eval/{name}/best@{samples}"] = sum(max(s) for s in scores_P_G.values()) / count
    total = max(1, len(attempts))
    metrics["eval/response/length"] = sum(len(a.response_ids) for a in attempts) / total
    metrics["eval/response/truncated"] = sum(a.truncated for a in attempts) / total
    metrics["eval/lost"] = sum(a.verdict is None for a in attempts)
    return metrics


if __name__ == "__main__":
    from resd.cli import evaluate_main

    evaluate_main()
