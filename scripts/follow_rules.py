"""Which rules of house_style a model follows when it is told one, and how often it keeps each without being told.

    python scripts/follow_rules.py MODEL_FOLDER --out runs/follow.jsonl --problems 8 --untold 25

Greedy, problems of the training split. Every reply is a line of the file as soon as its batch is done; a repeated
command goes on after the last. At the end a table: per rule, kept when told, content right meanwhile, kept untold.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fetch_model import model_settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resd import envs
from resd.engine.transformers import TransformersEngine
from resd.envs.house_style.rules import RULES
from resd.envs.house_style.task import stated
from resd.model.chat import Chat
from resd.model.load import load_model
from resd.types import Problem, Request

BATCH = 25  # prompts


def asked(problems: Sequence[Problem], each: int, untold: int) -> list[tuple[str, Problem]]:
    """(rule or "", problem) of every question: rules by turns, so that a part of the file tells about all of them."""
    names = [name for _ in range(each) for name in RULES]
    told = [(name, problems[(i + i // len(RULES)) % len(problems)]) for i, name in enumerate(names)]  # of all families
    return [*(("", problem) for problem in problems[:untold]), *told]


def answer(
    folder: str, questions: Sequence[tuple[str, Problem]], out: Path, limit: int, bfloat16: bool = False
) -> list[dict[str, Any]]:
    """The lines of `out`, those that are missing generated first."""
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if len(done) >= len(questions):
        return done
    settings = model_settings(folder)
    chat = Chat(settings)
    engine = TransformersEngine(
        load_model(settings),
        eos_ids=chat.eos_ids,
        max_batch=BATCH,
        max_length=512,
        dtype=torch.bfloat16 if bfloat16 else torch.float32,
    )
    while len(done) < len(questions):
        batch = questions[len(done) : len(done) + BATCH]
        requests = []
        for name, problem in batch:
            asked = stated([RULES[name]], problem.statement) if name else problem.statement
            ids = chat.ids([{"role": "user", "content": asked}])
            requests.append(Request(ids, limit, temperature=0.0))
        replies = dict(engine.generate(requests))
        lines = [
            {
                "rule": name,
                "problem": problem.id,
                "reply": chat.decode(replies[i].ids),
                "truncated": replies[i].truncated,
            }
            for i, (name, problem) in enumerate(batch)
        ]
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        done += lines
        print(f"{len(done)} of {len(questions)}", flush=True)
    return done


def table(lines: Sequence[dict[str, Any]], problems: Sequence[Problem]) -> list[str]:
    """One line a rule: shares of replies."""
    task = envs.load("house_style")
    by_id = {problem.id: problem for problem in problems}

    def content(line: dict[str, Any]) -> float:
        return task.verify(by_id[line["problem"]], line["reply"], line["truncated"]).scores["content"]

    untold = [line for line in lines if not line["rule"]]
    rows = [f"content right untold: {_share([content(line) for line in untold])}", ""]
    rows += ["| rule | kept when told | content then | kept untold |", "| --- | --- | --- | --- |"]
    for name, rule in RULES.items():
        told = [line for line in lines if line["rule"] == name]
        kept = _share([rule.holds(line["reply"].strip()) for line in told])
        meanwhile = _share([content(line) for line in told])
        before = _share([rule.holds(line["reply"].strip()) for line in untold])
        rows.append(f"| {rule.demand} | {kept} | {meanwhile} | {before} |")
    return rows


def _share(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.0f} % of {len(values)}" if values else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face folder or id")
    parser.add_argument("--out", type=Path, required=True, help="a JSONL file of replies")
    parser.add_argument("--problems", type=int, default=8, help="of each rule")
    parser.add_argument("--untold", type=int, default=25, help="problems asked without any rule")
    parser.add_argument("--tokens", type=int, default=40, help="of a reply")
    parser.add_argument("--bfloat16", action="store_true", help="some three times as fast on a CPU that has it")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    problems = envs.load("house_style").problems("train")
    questions = asked(problems, options.problems, options.untold)
    lines = answer(options.model, questions, options.out, options.tokens, options.bfloat16)
    print("\n".join(table(lines, problems)))


if __name__ == "__main__":
    main()
