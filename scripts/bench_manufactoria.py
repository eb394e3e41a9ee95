"""Throughput of the Manufactoria verifier on one core: solutions of all 874 problems with their test cases.

    python scripts/bench_manufactoria.py [--repeats 7] [--json]

`parse + grade` is what training waits for, from the response to the verdict; the other rows show where its time goes,
and what endless programs and the strict evaluator cost. CPU time, best of some repeats, with the parser's cache of
lines as warm as in a run. With --json the last line is one JSON object of cases per second.
"""

import argparse
import json
import time
from collections.abc import Callable

from resd.envs.manufactoria import grade, parse, solution
from resd.envs.manufactoria.problems import all_problems, goal_of
from resd.envs.manufactoria.strict import grade_strictly, rounds

LOOPING = """```
START start:
    NEXT pull

PULLER_RB pull:
    [R] paint
    [B] paint
    [EMPTY] paint

PAINTER_RED paint:
    NEXT pull

END end
```"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()

    problems = all_problems()
    sources = [solution(problem) for problem in problems]
    responses = [f"```manufactoria\n{source}\n```" for source in sources]
    n_cases = sum(len(problem.cases) for problem in problems)
    programs = [parse(source) for source in sources]
    tapes = [[case["input"] for case in problem.cases] for problem in problems]

    def grade_all() -> None:
        for problem, response in zip(problems, responses, strict=True):
            if not grade(response, problem.cases).passed:
                raise SystemExit(f"the solution of {problem.id} fails: the verifier is broken")

    def parse_all() -> None:
        for source in sources:
            parse(source)

    def run_all() -> None:
        for program, inputs in zip(programs, tapes, strict=True):
            for tape in inputs:
                program.run(tape).accepted  # noqa: B018

    def grade_looping() -> None:
        for problem in problems[::20]:
            grade(LOOPING, problem.cases)

    def grade_strict() -> None:
        for problem, response in zip(problems[::20], responses[::20], strict=True):
            grade_strictly(response, goal_of(problem))

    n_sample = len(problems[::20])
    n_sampled_cases = sum(len(problem.cases) for problem in problems[::20])
    n_strict_cases = n_sample * sum(map(len, rounds()))
    measured = {
        "parse + grade": (best(grade_all, arguments.repeats), len(problems), n_cases),
        "parse": (best(parse_all, arguments.repeats), len(problems), n_cases),
        "run": (best(run_all, arguments.repeats), len(problems), n_cases),
        "every test loops": (best(grade_looping, 2), n_sample, n_sampled_cases),
        "strict": (best(grade_strict, 2), n_sample, n_strict_cases),
    }
    print(f"{len(problems)} programs, {n_cases} cases, one core")
    print(f"{'':18}{'us/program':>12}{'programs/s':>14}{'cases/s':>14}")
    for name, (elapsed, n_programs, cases) in measured.items():
        print(f"{name:18}{elapsed / n_programs * 1e6:12.1f}{n_programs / elapsed:14,.0f}{cases / elapsed:14,.0f}")
    if arguments.json:
        rates = {name: cases / elapsed for name, (elapsed, _, cases) in measured.items()}
        print(json.dumps({"cases_per_s": rates["parse + grade"], "programs": len(problems), "cases": n_cases} | rates))


def best(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
