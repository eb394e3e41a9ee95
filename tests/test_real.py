"""`make real`, with a random model of a few thousand parameters in place of the weights."""

import json
import re
from pathlib import Path

from hydra import compose, initialize_config_dir

from resd.config import CONF, validate
from resd.report.__main__ import main
from resd.train import train

MAKEFILE = (Path(__file__).parent.parent / "Makefile").read_text()
# What a model of single bytes needs, and what keeps the run short; the rest is the command's own.
BYTES = ["rollout.max_prompt=400", "rollout.max_response=8", "model.max_prompt=2500", "on_empty=warn"]
SHORT = ["steps=2", "batch_size=4", "evaluation.limit=3", "checkpoints.every=1"]


def settings_of_make_real() -> list[str]:
    found = re.search(r"^real:.*?resd\.train (.*?)\$\(ARGS\)", MAKEFILE, re.DOTALL | re.MULTILINE)
    assert found is not None
    words = found[1].replace("\\\n", " ").split()
    return [word for word in words if not word.startswith(("model.path=", "run_dir="))]


def test_it_trains_an_adapter_on_rules_for_reports_and_writes_a_page(tiny_model: Path, tmp_path: Path) -> None:
    own = settings_of_make_real()
    paths = [f"model.path={tiny_model}", f"run_dir='{tmp_path / 'run'}'"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = validate(compose("config", [*own, *paths, *BYTES, *SHORT]))
    assert settings.task.options["rules"].startswith("report:")
    assert settings.model.prompts == "small"
    assert settings.model.lora is not None
    train(settings)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    evaluated = [row for row in rows if row["kind"] == "eval"]
    assert {"eval/content/mean@1", "eval/style/mean@1", "eval/rules/mean@1"} <= evaluated[-1].keys()
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000
