"""What reflections are worth on a fixed set of failed attempts: the failures of a batch differ more than updates do.

    python scripts/retries.py --failures runs/failures.jsonl --make 64 resd/model/nano task=manufactoria
    python scripts/retries.py --failures runs/failures.jsonl RUN/checkpoints/step_0000{10,20,30} task=manufactoria

With `--make N` the first checkpoint tries the test problems, and N failures become lines of the file: `problem` (id),
`response`, `feedback`. Every checkpoint then gets the same failures: `algorithm.group` reflections on each and a retry
after each reflection, and as many retries without one, with the settings of algorithm=reflect_retry_reward that stand
beside (`algorithm.library=FILE`, …). Printed for each: the share of plain retries and of retries after a reflection
that passed, their difference, and what has changed since the first checkpoint, with 95 % bootstrap intervals over
failures. The spread between training runs is not covered.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resd import algorithms, commandline, dist
from resd.advice import quoted
from resd.algorithms.reflect_retry_reward import Algorithm, says
from resd.config import Config
from resd.evaluate import settings_of
from resd.measure.forgetting import difference, means
from resd.observe.run import Run
from resd.services import evaluation_session
from resd.train import check_judge, guarded, load_task
from resd.types import Attempt, Problem, UserError, Verdict

Shares = dict[str, float]  # by failure


@dataclass(frozen=True, slots=True)
class Measured:
    """The share of retries that passed, by failure, and how many different reflections there were."""

    plain: Shares
    reflected: Shares
    distinct: int


def configured(checkpoint: str, words: Sequence[str]) -> Config:
    """The settings of one checkpoint."""
    chosen = [] if any(word.startswith("algorithm=") for word in words) else ["algorithm=reflect_retry_reward"]
    composed = commandline.composed([*chosen, *words, f"checkpoint={quoted(checkpoint)}"], "evaluate")
    settings, _ = settings_of(composed, words)
    return settings


@contextmanager
def opened(settings: Config) -> Iterator[tuple[Run, Algorithm, Sequence[Problem]]]:
    """A checkpoint that can be asked, and the problems it may be asked about."""
    task, problems = load_task(settings.task, "test")
    check_judge(task, problems, settings.verify)
    settings.algorithm.check(problems)
    with (
        dist.joined(settings.hardware.device, settings.hardware.threads),
        evaluation_session(settings, task, None) as run,
    ):
        algorithm = algorithms.build(run, settings.algorithm)
        if not isinstance(algorithm, Algorithm):
            raise UserError(f"algorithm={settings.algorithm.name} has no retries: write algorithm=reflect_retry_reward")
        yield run, algorithm, problems


def make(run: Run, algorithm: Algorithm, problems: Sequence[Problem], count: int, file: Path) -> None:
    """Write `count` failed attempts at as many problems. Raises UserError if there are fewer."""
    failed = [attempt for attempt in run.rollout(problems, prompt=algorithm.prompt) if not attempt.passed]
    if len(failed) < count:
        raise UserError(f"only {len(failed)} of {len(problems)} test problems failed: write --make {len(failed)}")
    lines = [
        {"problem": a.problem.id, "response": a.response, "feedback": a.verdict.feedback if a.verdict else ""}
        for a in failed[:count]
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def failures(run: Run, algorithm: Algorithm, problems: Sequence[Problem], file: Path) -> list[Attempt]:
    """The attempts of a file. Raises UserError if it holds none at these problems."""
    by_id, found = {problem.id: problem for problem in problems}, []
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        told = [(str(row["problem"]), str(row["response"]), str(row["feedback"])) for row in rows]
    except OSError as error:
        raise UserError(f"--failures {file} cannot be read ({error.strerror}): make it with --make 64") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"--failures {file} is not JSON a line with problem, response, feedback: make it anew"
        ) from None
    for number, (id, response, feedback) in enumerate(told):
        if id not in by_id:
            raise UserError(f"--failures {file} names the problem {id}, which the test split of this task has not")
        draft = run.speech.draft(by_id[id], algorithm.prompt(by_id[id]), f"{number}/{id}/0")
        draft.response, draft.verdict = response, Verdict(0.0, False, 0, max(1, len(by_id[id].cases)), feedback)
        found.append(draft)
    if not found:
        raise UserError(f"--failures {file} holds none: make it with --make 64")
    return found


def measure(algorithm: Algorithm, failed: Sequence[Attempt]) -> Measured:
    """Retries of these failures, with reflections and without. What is lost on the way is left out."""
    reflections = algorithm.reflect(failed)
    rewarded = algorithm.reward(reflections, algorithm.retry([r for r in reflections if says(r)]))
    plain = algorithm.retry(failed, times=algorithm.settings.group)
    texts = {each.reflection.text for each in reflections if each.reflection}
    return Measured(_by_failure(plain), _by_failure(rewarded), len(texts))


def _by_failure(attempts: Sequence[Attempt]) -> Shares:
    found: dict[str, list[float]] = {}
    for attempt in attempts:
        assert attempt.parent is not None
        found.setdefault(attempt.parent.id, []).append(float(attempt.passed))
    return means(found)


def row(checkpoint: str, measured: Measured, first: Measured) -> str:
    """A line of the table."""
    none = dict.fromkeys(measured.reflected, 0.0)
    pairs = [
        (dict.fromkeys(measured.plain, 0.0), measured.plain),
        (none, measured.reflected),
        (measured.plain, measured.reflected),
        (first.reflected, measured.reflected),
    ]
    cells = [checkpoint, str(len(measured.reflected)), *(_interval(*pair) for pair in pairs), str(measured.distinct)]
    return f"| {' | '.join(cells)} |"


def _interval(base: Shares, now: Shares) -> str:
    """`12.5 (4.0 to 21.3)` percent more than `base`, over the failures that both have."""
    both = [id for id in base if id in now]
    if not both:
        return "–"
    return "{:.1f} ({:.1f} to {:.1f})".format(
        *(100 * value for value in difference({id: base[id] for id in both}, {id: now[id] for id in both}))
    )


def report(checkpoints: Sequence[str], words: Sequence[str], file: Path, count: int | None) -> None:
    first: Measured | None = None
    for checkpoint in checkpoints:
        with opened(configured(checkpoint, words)) as (run, algorithm, problems):
            if count is not None and first is None:
                make(run, algorithm, problems, count, file)
            measured = measure(algorithm, failures(run, algorithm, problems, file))
            if first is None:
                print("| checkpoint | failures | plain retry, % | after a reflection, % | gain | change | distinct |")
                print("| --- | --- | --- | --- | --- | --- | --- |")
            first = first or measured
            print(row(checkpoint, measured, first), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", help="checkpoints, as resd.evaluate takes them, and settings (KEY=VALUE)")
    parser.add_argument("--failures", type=Path, required=True, help="a JSONL file of failed attempts")
    parser.add_argument("--make", type=int, metavar="N", help="write it first, from the first checkpoint")
    options = parser.parse_intermixed_args()
    checkpoints = [word for word in options.words if "=" not in word]
    words = [word for word in options.words if "=" in word]
    if not checkpoints or (options.make is not None and options.make < 1):
        parser.error("name a checkpoint, and make 1 failure or more")
    guarded(lambda: report(checkpoints, words, options.failures, options.make))


if __name__ == "__main__":
    main()
