"""The controls of RESD: reflections handed round, and a playbook that is given."""

import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from torch.distributed.device_mesh import DeviceMesh

from resd.config import CONF, validate
from resd.train import train

ENTRIES = ["First rule.", "Second rule."]


def run(model: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    """The attempts of update 1 of two."""
    settings = ["task=custom", "task.name=verifier_tasks:Echo", "batch_size=4", "rollout.max_response=12", "steps=2"]
    settings += ["rollout.max_prompt=200", "model.max_prompt=800", "evaluation.before=false", "evaluation.samples=1"]
    settings += ["algorithm.writing.max_response=200", "on_empty=warn"]  # noise that holds whole lines
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(validate(compose("config", [*settings, f"model.path={model}", f"run_dir={run_dir}", *overrides])))
    return [json.loads(line) for line in (run_dir / "attempts/step_000001.jsonl").read_text().splitlines()]


def test_swapped_reflections_are_those_of_the_next_failure(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    plain = run(tiny_model, tmp_path / "plain")
    swapped = run(tiny_model, tmp_path / "swapped", "algorithm=resd_swapped")
    assert [a["response"] for a in swapped] == [a["response"] for a in plain]
    texts = [a["reflection"]["text"] for a in plain if not a["verdict"]["passed"]]
    assert len(set(texts)) > 1
    assert [a["reflection"]["text"] for a in swapped if not a["verdict"]["passed"]] == texts[1:] + texts[:1]


def test_a_given_playbook_is_read_and_stays(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    entries = f"algorithm.entries={json.dumps(ENTRIES)}"
    attempts = run(tiny_model, tmp_path, "algorithm=resd_fixed", "algorithm.playbook.frequency=1", entries)
    teachers = [a["teacher_prompt"] for a in attempts if a["teacher_prompt"]]
    assert teachers
    assert all(entry in prompt for prompt in teachers for entry in ENTRIES)
    events = [json.loads(line) for line in (tmp_path / "playbook.jsonl").read_text().splitlines()]
    assert [event["text"] for event in events if event["event"] == "add"] == ENTRIES
    assert not [event for event in events if event["event"] == "remove"]
