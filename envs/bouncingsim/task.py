"""The BouncingSim task: its options, and where its problems come from."""

from typing import Literal, get_args

from resd.envs import sandbox
from resd.envs.bouncingsim import feedback as explain
from resd.envs.bouncingsim.feedback import FeedbackKind
from resd.envs.bouncingsim.grade import FUNCTION, RewardKind, extract, run
from resd.envs.bouncingsim.prompt import Physics, PromptKind, ask
from resd.envs.bouncingsim.rows import from_facts, from_file, from_hub
from resd.envs.bouncingsim.scenes import LEVELS, draw_split
from resd.envs.bouncingsim.simulator import Facts
from resd.envs.options import choice
from resd.envs.rows import check_source
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

LevelKind = Literal["easy", "medium", "all"]


class BouncingSim:
    """Implements `resd.task.Task`. Raises UserError for a value of an option that does not exist.

    source: `generated` (drawn here), `hf` (as published), or a path: a folder with `train.jsonl` and `test.jsonl`, or
        one JSONL file that serves both splits; `rows` describes the columns
    level: `easy` (3 balls), `medium` (4 or 5, faster), or `all`
    physics: `hinted`, as published, or `stated`: the prompt tells the rules that the published one keeps silent about
    seconds: what one call of a program may take
    allow_unsafe: run programs even where the machine has nothing to hold them
    seed: draws the scenes of `generated`
    """

    noun = "program"

    def __init__(
        self,
        source: str = "generated",
        level: LevelKind = "easy",
        prompt: PromptKind = "full",
        physics: Physics = "hinted",
        feedback: FeedbackKind = "full",
        reward: RewardKind = "sparse",
        seconds: float = 1.0,
        allow_unsafe: bool = False,
        seed: int = 0,
    ) -> None:
        choice("level", level, get_args(LevelKind))
        choice("prompt", prompt, get_args(PromptKind))
        choice("physics", physics, get_args(Physics))
        choice("feedback", feedback, get_args(FeedbackKind))
        choice("reward", reward, get_args(RewardKind))
        source = check_source(source, "generated", "hf")
        if not seconds > 0:
            raise UserError(f"seconds={seconds} leaves a program no time: write a number above 0")
        self.source, self.level, self.prompt_kind, self.physics = source, level, prompt, physics
        self.feedback, self.reward, self.seconds = feedback, reward, seconds
        self.allow_unsafe, self.seed = allow_unsafe, seed

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one. Raises UserError for data that cannot be used."""
        levels = list(LEVELS) if self.level == "all" else [self.level]
        if self.source == "generated":
            return [
                from_facts(f"bouncing-{level}-{split}-{number:03d}", facts, level, self._ask)
                for level in levels
                for number, facts in enumerate(draw_split(level, split, self.seed))
            ]
        if self.source == "hf":
            return [problem for level in levels for problem in from_hub(level, split, self._ask)]
        found = from_file(self.source, split, self._ask)
        chosen = [problem for problem in found if problem.family in ("", *levels)]
        if not chosen:
            raise UserError(f"source={self.source!r} has no {split} problem of level={self.level!r}")
        return chosen

    def prompt(self, problem: Problem) -> Messages:
        """One user message. A row that came with its own prompt keeps it."""
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Grades one response: some milliseconds, and for a program that hangs little more than `seconds`."""
        return self._grade(problem, response, truncated, self.seconds)

    def _grade(self, problem: Problem, response: str, truncated: bool, seconds: float) -> Verdict:
        program, total = extract(response), len(problem.cases)
        if program is None:
            kind = "truncated" if truncated else "no_answer"
            return Verdict(0.0, False, 0, total, explain.no_answer(truncated), error=kind)
        if not total:
            return Verdict(0.0, False, 0, 0, "This problem has no tests.", program, error="no_cases")
        results = run(program, problem.cases, seconds, self.allow_unsafe)
        right = sum(result.passed for result in results)
        if right == total:
            return Verdict(1.0, True, right, total, answer=program)
        error = next((result.error for result in results if result.error), None)
        reward = right / total if self.reward == "dense" else 0.0
        return Verdict(reward, False, right, total, explain.failed(results, self.feedback), program, error)

    def self_test(self) -> str:
        """Says which layers hold programs. Raises UserError if a right answer fails here, or a wrong one passes."""
        problem = self.problems("test")[0]
        for name, response, passed in known_answers(problem):
            verdict = self._grade(problem, response, False, max(self.seconds, 20.0))  # none of them hangs
            if verdict.passed != passed and not (self.allow_unsafe and name == "reads a file"):
                says = "passes" if verdict.passed else f"fails: {verdict.feedback.splitlines()[0]}"
                raise UserError(f"the judge of this task does not work on this machine: an answer that {name} {says}")
        return f"programs are held by {', '.join(sandbox.layers())}"

    def _ask(self, facts: Facts) -> str:
        return ask(facts, self.prompt_kind, self.physics)


def known_answers(problem: Problem) -> list[tuple[str, str, bool]]:
    """Answers with a known verdict: what each does, its text, and whether it is right."""
    table = {f"{case.time:.6f}": [list(position) for position in case.positions] for case in problem.cases}
    near = 0.8 * min(case.tolerance for case in problem.cases)
    far = 1.2 * max(case.tolerance for case in problem.cases)

    def answer(result: str) -> str:
        return f"```python\ndef {FUNCTION}(t):\n    found = {table}[f'{{t:.6f}}']\n    return {result}\n```"

    return [
        ("repeats the true positions", answer("found"), True),
        ("is off by less than the tolerance", answer(f"[[x + {near}, y] for x, y in found]"), True),
        ("is off by more than the tolerance", answer(f"[[x, y - {far}] for x, y in found]"), False),
        ("misses one ball", answer("found[1:]"), False),
        ("is not a number", answer("[[float('nan')] * 2 for _ in found]"), False),
        ("reads a file", answer("found if open('/etc/passwd').read() else 0"), False),
        ("is no program", "```python\nfound\n```", False),
    ]
