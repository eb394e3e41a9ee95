"""Be the policy: answer one problem of a task at a terminal, and read what a model would be told.

    python -m resd.envs.play task=manufactoria problem=has-ordered-201
    python -m resd.envs.play task=manufactoria problem=3 split=train family=compr feedback=official
    python -m resd.envs.play task=package.module:MyTask

Shows the prompt, reads an answer of any number of lines up to a line with a single dot or the end of the input, judges
it as a model's whole response is judged, shows score and feedback, and asks again until the answer is right or empty. A
task that answers in between is given one reply after another.
`problem` is a number from 1 or an id, `split` is test unless you say train; everything else goes to the task, over what
conf/task/ says. Nothing is trained, nothing is kept, and a verifier that hangs is not stopped.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper, UnsupportedOperation
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import yaml

import resd
from resd import envs
from resd.task import Following, Split, Task, follows, problems_of
from resd.types import Problem, UserError, Verdict
from resd.verdict import checked

CONF = Path(resd.__file__).parent / "conf" / "task"
_OPEN = ("${", "???")  # how values begin that only a run or its user can fill in


def main(arguments: Sequence[str], source: TextIO) -> int:
    """Runs the game on the lines of `source`; returns the exit status: 0, or 2 after one sentence about a mistake."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        for file in (CONF / f"{name.removeprefix('task=')}.yaml" for name in arguments):
            if file.is_file():
                print(file.read_text(encoding="utf-8"))
        return 0
    try:
        task, split, wanted = _setting(arguments)
        play(task, _choose(problems_of(task, split), wanted), source)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def play(task: Task, problem: Problem, source: TextIO) -> None:
    """One problem, as many attempts as the player wants."""
    family = f" ({problem.family})" if problem.family else ""
    print(f"{problem.id}{family}\n")
    for message in task.prompt(problem):
        print(f"--- {message['role']}\n{message['content']}")
    for attempt in count(1):
        print(f"\n--- your {task.noun}, then a line with a single dot (nothing: leave)", flush=True)
        answer = read(source)
        if not answer.strip():
            return
        try:
            if follows(task):
                verdict = checked(task.verify(problem, converse(task, problem, answer, source)))
            else:
                verdict = checked(task.verify(problem, answer))
        except (Exception, SystemExit) as error:  # the same loses a sample of a training run
            raised = "" if isinstance(error, UserError) else f"the verifier raised {type(error).__name__}: "
            print(f"\n--- attempt {attempt} is lost: {raised}{error}")
            continue
        print(f"\n--- attempt {attempt}: {_score(verdict)}")
        if verdict.feedback:
            print(verdict.feedback)
        if verdict.passed:
            return


def converse(task: Following, problem: Problem, reply: str, source: TextIO) -> list[str]:
    """The replies of an attempt at a task that answers; an empty one ends it."""
    replies = [reply]
    while replies[-1].strip() and (heard := task.follow(problem, list(replies))):
        for message in heard:
            print(f"\n--- {message['role']}\n{message['content']}")
        print("\n--- your reply, then a line with a single dot (nothing: leave it at that)", flush=True)
        replies.append(read(source))
    return replies if replies[-1].strip() else replies[:-1]


def read(source: TextIO) -> str:
    """The lines up to one with a single dot, or to the end, without the last line break."""
    lines = []
    for line in source:
        if line.strip() == ".":
            break
        lines.append(line)
    return "".join(lines).removesuffix("\n")


def _score(verdict: Verdict) -> str:
    outcome = "passed" if verdict.passed else "failed" + (f" ({verdict.error})" if verdict.error else "")
    parts = "".join(f", {name} {value:.2f}" for name, value in verdict.scores.items())
    return f"{outcome}, {verdict.cases_passed} of {verdict.cases_total} cases, reward {verdict.reward:.2f}{parts}"


def _setting(arguments: Sequence[str]) -> tuple[Task, Split, str]:
    given: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is no setting: write key=value, such as task=manufactoria problem=3")
        given[key.removeprefix("task.options.")] = value
    name, split, wanted = given.pop("task", None), given.pop("split", "test"), given.pop("problem", "1")
    if name is None:
        known = ", ".join(sorted(file.stem for file in CONF.glob("*.yaml")))
        raise UserError(f"task has no value: write task=package.module:callable, or one of {known}")
    if split not in ("train", "test"):
        raise UserError(f"split={split} does not exist: write train or test")
    name, options = _configured(name)
    for key, value in given.items():
        *sections, last = key.split(".")
        place = options
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"{key}={value}: {section} is no section, write {section}=VALUE")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            place[last] = value
    return envs.load(name, **options), split, wanted


def _configured(name: str) -> tuple[str, dict[str, Any]]:
    """The name and options in conf/task/, without those left open: the task knows values for them, or says so."""
    file = CONF / f"{name}.yaml"
    if not file.is_file():
        return name, {}
    kept = yaml.safe_load(file.read_text(encoding="utf-8"))
    known = {key: value for key, value in kept["options"].items() if not str(value).startswith(_OPEN)}
    return name if kept["name"] == "???" else kept["name"], known


def _choose(problems: Sequence[Problem], wanted: str) -> Problem:
    for number, problem in enumerate(problems, 1):
        if wanted in (problem.id, str(number)):
            return problem
    raise UserError(f"problem={wanted} does not exist: write a number from 1 to {len(problems)}, or an id")


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):
            with suppress(UnsupportedOperation):  # of what was read from already
                stream.reconfigure(errors="replace")  # as a run reads and shows what is no UTF-8
    try:
        sys.exit(main(sys.argv[1:], sys.stdin))
    except KeyboardInterrupt:
        sys.exit(130)
