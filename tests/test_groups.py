"""Which runs a report takes for seeds of one method, when some are older than others."""

from pathlib import Path
from typing import Any

from test_defaults import dumped, without
from test_report import write_run

from resd.report.groups import group_runs
from resd.report.html import differing
from resd.report.read import read_runs

YOUNGER = ("algorithm.playbook.novelty", "evaluation.patience", "style", "rollout.max_turns")


def run_of(folder: Path, seed: int, config: dict[str, Any]) -> Path:
    own = {key: value for key, value in config.items() if key not in ("seed", "run_dir")}
    return write_run(folder, [0.1, 0.2], seed, **own)


def test_a_run_that_is_older_than_a_setting_is_a_seed_of_the_same_method(tmp_path: Path) -> None:
    young, other = dumped("algorithm=resd"), dumped("algorithm=resd", "algorithm.playbook.novelty=word")
    old = young
    for key in YOUNGER:
        old = without(old, key)
    runs = [run_of(tmp_path / str(seed), seed, config) for seed, config in enumerate((old, young, other))]
    groups = group_runs(read_runs(runs))
    assert [(group.label, group.seeds) for group in groups] == [
        ("resd playbook.novelty=text", [0, 1]),
        ("resd playbook.novelty=word", [2]),
    ]
    assert differing([group.settings for group in groups]) == ["algorithm.playbook.novelty"]


def test_a_setting_that_is_missing_and_one_that_is_null_are_alike(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "0", 0, {"x": {"y": None}}), run_of(tmp_path / "1", 1, {})]
    assert [group.seeds for group in group_runs(read_runs(runs))] == [[0, 1]]
