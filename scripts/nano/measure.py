"""What nano can do before any reinforcement, on the official task: success by what its context tells.

Problems are drawn from all 874 "has" problems. Attempts without context are sampled first; the failed ones are then
asked again with their feedback, and with the model's own reflection on it. Sampling is at temperature 1, as in
training. Intervals are 95 % Wilson intervals over problems.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nano.dialects import FORMS, OFFICIAL
from nano.documents import LESSONS, SECTION, fenced, question
from nano.judge import FENCE, first_broken
from nano.programs import build
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from resd.context.formats import LinesFormat
from resd.context.playbook import Playbook
from resd.context.render import Prompts
from resd.engine.transformers import TransformersEngine
from resd.envs.manufactoria.grade import extract, grade
from resd.envs.manufactoria.parser import ParseError, parse
from resd.envs.manufactoria.problems import all_problems, goal_of
from resd.types import Problem, Reflection, Request, Verdict

MAX_ANSWER, MAX_REFLECTION, MAX_LENGTH = 320, 96, 1536


class Model:
    """A Hugging Face folder that answers prompts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        eos = [self.tokenizer.eos_token_id]
        self.engine = TransformersEngine(model, eos_ids=eos, max_batch=64, max_length=MAX_LENGTH)
        self.seeds = random.Random(seed)

    def answer(self, prompts: Sequence[str], max_tokens: int = MAX_ANSWER) -> list[tuple[str, bool]]:
        """(text, truncated) for each prompt."""
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = [self.tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        requests = [Request(i, max_tokens, seed=self.seeds.getrandbits(32)) for i in ids]
        answers = [("", True)] * len(requests)
        for index, done in self.engine.generate(requests):
            answers[index] = (str(self.tokenizer.decode(done.ids, skip_special_tokens=True)), done.truncated)
        return answers


def measure(folder: Path, samples: int, seed: int) -> dict[str, Any]:
    """Evaluates the model in `folder`, prints a table, and writes `evaluation.json` there."""
    rng, model, prompts = random.Random(f"{seed}/measure"), Model(folder, seed), Prompts("compact", "program")
    problems, others = rng.choices(all_problems(), k=samples), rng.choices(all_problems(), k=samples)
    asked = [question(goal_of(problem)) for problem in problems]
    examples = [fenced(build(goal_of(problem)), OFFICIAL) for problem in others]
    some = [rng.sample(OFFICIAL.rules(), len(FORMS) // 2) for _ in problems]
    told = {
        "no context": asked,
        "full playbook": [prompts.teacher(q, playbook=playbook_of(OFFICIAL.rules())) for q in asked],
        "half of the playbook": [
            prompts.teacher(q, playbook=playbook_of(rules)) for q, rules in zip(asked, some, strict=True)
        ],
        "solution of another problem": [prompts.teacher(q, solution=e) for q, e in zip(asked, examples, strict=True)],
    }
    graded = {name: _grade(model, problems, texts) for name, texts in told.items()}
    failures = [
        Failed(p, q, response, verdict.feedback)
        for p, q, (response, verdict) in zip(problems, asked, graded["no context"], strict=True)
        if not verdict.passed
    ]
    lost = [failure.problem for failure in failures]
    reflections = _reflect(model, prompts, failures)
    graded["failed, then its feedback"] = _grade(model, lost, [f.retry(prompts) for f in failures])
    graded["failed, then its own reflection"] = _grade(
        model, lost, [f.retry(prompts, reflection=r.text) for f, r in zip(failures, reflections, strict=True)]
    )
    graded["failed, then the right lesson"] = _grade(
        model, lost, [f.retry(prompts, reflection=lesson_for(f.broken)) for f in failures]
    )
    result = {
        "samples": samples,
        "seed": seed,
        "situations": {name: _summary(verdicts) for name, verdicts in graded.items()},
        "reflections_valid": _share(sum(not r.invalid for r in reflections), len(reflections)),
        "reflections_name_the_rule": _named(failures, reflections),
        "curating": _curating(model, prompts, rng, samples),
    }
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return result


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt without context that failed."""

    problem: Problem
    asked: str
    response: str
    feedback: str

    @property
    def broken(self) -> str:
        """The convention (or `logic`, `fence`) that was broken first."""
        source = extract(self.response)
        return FENCE if source is None else first_broken(source, self.problem.cases)

    def retry(self, prompts: Prompts, reflection: str = "") -> str:
        """The prompt of a second attempt."""
        slots = {"previous_trial": self.response, "feedback": self.feedback, "reflection": reflection}
        return prompts.teacher(self.asked, **slots)


def lesson_for(broken: str) -> str:
    return LESSONS[broken] if broken in LESSONS else OFFICIAL.rule(broken)


def _reflect(model: Model, prompts: Prompts, failures: Sequence[Failed]) -> list[Reflection]:
    texts = model.answer([prompts.reflect(f.asked, f.response, f.feedback) for f in failures], MAX_REFLECTION)
    return [LinesFormat().parse_reflection(text) for text, _ in texts]


def _named(failures: Sequence[Failed], reflections: Sequence[Reflection]) -> dict[str, Any]:
    """How often reflections state the broken rule, by rule and in all."""
    hits: dict[str, list[bool]] = {}
    for failure, reflection in zip(failures, reflections, strict=True):
        broken = failure.broken
        hits.setdefault(broken, []).append(reflection.text == lesson_for(broken))
    shares = {name: _share(sum(found), len(found)) for name, found in sorted(hits.items())}
    return shares | {"all": _share(sum(map(sum, hits.values())), len(failures))}


def _curating(model: Model, prompts: Prompts, rng: random.Random, samples: int) -> dict[str, Any]:
    """How often exactly the lesson is added to a playbook that lacks it, and nothing to one that has it."""
    wanted, asked = [], []
    for i in range(samples):
        told, *rules = rng.sample(OFFICIAL.rules(), rng.randint(2, len(FORMS)))
        known = i % 2 == 1
        rules = rng.sample([told, *rules], len(rules) + 1) if known else rules
        asked.append(prompts.curate(told, playbook_of(rules)))
        wanted.append([] if known else [told])
    texts = [text for text, _ in model.answer(asked, MAX_REFLECTION)]
    added = [[operation.text for operation in LinesFormat().parse_operations(text)[0]] for text in texts]
    right = [a == w for a, w in zip(added, wanted, strict=True)]
    return {"new": _share(sum(right[::2]), len(right[::2])), "known": _share(sum(right[1::2]), len(right[1::2]))}


def show(result: dict[str, Any]) -> None:
    table = Table("situation", "n", "parses", "per case", "solved", "95 %")
    for name, s in result["situations"].items():
        low, high = s["solved"]["interval"]
        rates = (f"{100 * s[key]['share']:.1f}" for key in ("parses", "cases", "solved"))
        table.add_row(name, str(s["solved"]["n"]), *rates, f"{100 * low:.1f} to {100 * high:.1f}")
    Console().print(table)
    Console().print(result["reflections_name_the_rule"])


def playbook_of(rules: Sequence[str]) -> str:
    playbook = Playbook()
    for rule in rules:
        playbook.add(SECTION, rule, step=0)
    return playbook.render("compact")


def _grade(model: Model, problems: Sequence[Problem], asked: Sequence[str]) -> list[tuple[str, Verdict]]:
    answers = model.answer(asked)
    return [
        (text, grade(text, p.cases, truncated, feedback="compact"))
        for p, (text, truncated) in zip(problems, answers, strict=True)
    ]


def _parses(verdict: Verdict) -> bool:
    try:
        return verdict.answer is not None and bool(parse(verdict.answer))
    except ParseError:
        return False


def _summary(graded: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    verdicts = [verdict for _, verdict in graded]
    return {
        "solved": _share(sum(v.passed for v in verdicts), len(verdicts)),
        "parses": _share(sum(map(_parses, verdicts)), len(verdicts)),
        "cases": {"share": round(sum(v.case_fraction for v in verdicts) / max(1, len(verdicts)), 4)},
    }


def _share(hits: int, n: int, z: float = 1.96) -> dict[str, Any]:
    """A share and its Wilson interval."""
    if not n:
        return {"share": 0.0, "n": 0, "interval": [0.0, 1.0]}
    centre, spread = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    interval = [max(0.0, (centre - spread) / (n + z * z)), min(1.0, (centre + spread) / (n + z * z))]
    return {"share": round(hits / n, 4), "n": n, "interval": [round(x, 4) for x in interval]}
