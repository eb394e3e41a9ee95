"""What is told of a model's folder without reading a weight; tests/test_models.py has what is wrong inside one."""

from pathlib import Path

import pytest

from resd.model.files import problem


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("run", "run/best/model"),
        ("run/best", "run/best/model"),
        ("other", "other/checkpoints/step_000012/model"),
        ("models--a--b", "models--a--b/snapshots/1f"),
    ],
)
def test_the_model_in_a_folder_around_it_is_named(given: str, found: str, tmp_path: Path) -> None:
    steps = [f"{run}/checkpoints/step_{step}/model" for run in ("run", "other") for step in ("000004", "000012")]
    for name in (*steps, "models--a--b/snapshots/1f"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "run/best").symlink_to("checkpoints/step_000004")
    says = f"is not a model folder, {tmp_path / found} is: write that"
    assert problem(tmp_path / given) == says
