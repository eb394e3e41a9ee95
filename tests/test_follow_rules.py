"""scripts/follow_rules.py: every rule is asked as often as the others, and an interrupted measurement goes on."""

import json
import sys
from collections import Counter
from pathlib import Path

from resd import envs
from resd.envs.house_style.rules import RULES

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from follow_rules import answer, asked, table

PROBLEMS = envs.load("house_style").problems("train")


def test_a_part_of_the_questions_tells_about_all_rules_and_families() -> None:
    questions = asked(PROBLEMS, each=5, untold=10)
    told = questions[10:]
    assert len(questions) == 10 + 5 * len(RULES)
    assert {name for name, _ in questions[:10]} == {""}
    assert {name for name, _ in told[: len(RULES)]} == set(RULES)
    families = Counter((name, problem.family) for name, problem in told)
    assert set(families.values()) == {1}


def test_an_interrupted_measurement_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    questions, out = asked(PROBLEMS, each=1, untold=8), tmp_path / "replies.jsonl"
    whole = answer(str(tiny_model), questions, out, limit=3)
    lines = out.read_text().splitlines(keepends=True)
    assert [(line["rule"], line["problem"]) for line in whole] == [(name, problem.id) for name, problem in questions]
    out.write_text("".join(lines[:25]))
    assert answer(str(tiny_model), questions, out, limit=3) == whole
    assert out.read_text() == "".join(lines)
    assert len(table(whole, PROBLEMS)) == 4 + len(RULES)


def test_the_table_counts_what_holds() -> None:
    item = PROBLEMS[0].cases[0]
    told = {"rule": "opening_0", "problem": PROBLEMS[0].id, "reply": f"Answer: {item.answer}", "truncated": False}
    untold = {"rule": "", "problem": PROBLEMS[0].id, "reply": "Answer: nothing", "truncated": False}
    rows = table([json.loads(json.dumps(line)) for line in (told, untold)], PROBLEMS)
    assert rows[0] == "content right untold: 0 % of 1"
    assert f"| {RULES['opening_0'].demand} | 100 % of 1 | 100 % of 1 | 100 % of 1 |" in rows
    assert f"| {RULES['opening_1'].demand} | none | none | 0 % of 1 |" in rows
