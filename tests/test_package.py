"""What is installed lives beside other packages: a wheel, in a folder that has `envs` and `conf` of its own."""

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages
from test_train import SMALL

import resd
from resd import doctor, envs
from resd.__main__ import COMMANDS, main
from resd.config import CONF

ROOT = Path(__file__).parent.parent
TASK = """
from resd.types import Problem, Verdict


class Echo:
    noun = "answer"

    def problems(self, split):
        return [Problem(f"{split}{n}", f"Say {n}.") for n in range(4)]

    def prompt(self, problem):
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem, response, truncated=False):
        return Verdict(0.0, False, 0, 1, "No.")
"""


def own_folder(folder: Path) -> Path:
    """A folder with packages of the commonest names, one of which has a task."""
    for name, text in (("envs", ""), ("envs/mine", TASK), ("conf", "raise ImportError('the wrong conf')\n")):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    return folder


def python(folder: Path, *arguments: object, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the wheel."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation"]
    source = tmp_path_factory.mktemp("source")  # pip leaves build/ where it builds
    for name in ("resd", "envs", "conf"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", wheels, source], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", target, *wheels.glob("*.whl")], check=True)
    return target


@pytest.mark.slow
def test_a_wheel_trains_evaluates_and_reports_beside_other_packages(
    site: Path, tiny_model: Path, tmp_path: Path
) -> None:
    tops = {path.name for path in site.iterdir() if "dist-info" not in path.name}
    assert tops == {"resd", "bin"}
    folder, run = own_folder(tmp_path / "here"), tmp_path / "run"
    mine = ["task=custom", "task.name=envs.mine:Echo"]
    words = [*SMALL, *mine, "steps=1", "batch_size=2", "evaluation.limit=1", f"model.path={tiny_model}"]
    assert "update 1/1" in python(folder, "-m", "resd.train", *words, f"run_dir={run}", path=site)
    checkpoint = f"checkpoint={run}/checkpoints/step_000001"
    told = python(folder, "-m", "resd.evaluate", checkpoint, *mine, "samples=1", path=site)
    assert "per_task" in told
    python(folder, "-m", "resd.report", run, "--out", tmp_path / "report.html", path=site)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    where = python(folder, "-c", "import resd, envs; print(resd.__file__, envs.__file__)", path=site)
    assert where.split() == [f"{site}/resd/__init__.py", f"{folder}/envs/__init__.py"]
    assert sum(1 for _ in (site / "resd/conf").rglob("*.yaml")) == sum(1 for _ in (ROOT / "conf").rglob("*.yaml"))


def test_the_build_takes_one_package_and_finds_all_of_it() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = find_namespace_packages(str(ROOT), include=setuptools["packages"]["find"]["include"])
    assert {name.split(".")[0] for name in found} == {"resd"}
    folders = {path.parent.relative_to(ROOT) for name in ("resd", "envs") for path in (ROOT / name).rglob("*.py")}
    names = {"resd." * (folder.parts[0] == "envs") + ".".join(folder.parts) for folder in folders}
    assert names <= set(found)


def test_links_lead_to_the_folders_beside() -> None:
    for name in ("envs", "conf"):
        assert (ROOT / "resd" / name).readlink() == Path("..", name)
    assert Path(resd.__file__).parent / "conf" == CONF
    assert Path(envs.__file__) == CONF.parent / "envs" / "__init__.py"


def test_the_old_name_gives_the_same_tasks_and_is_a_users_own_elsewhere(tmp_path: Path) -> None:
    old = __import__("envs")
    assert type(old.load("manufactoria")) is type(envs.load("manufactoria"))
    assert old._factory("local") is envs._factory("local")
    folder = own_folder(tmp_path)
    assert python(folder, "-c", "import envs; print(envs.__file__)", path=ROOT).strip() == f"{folder}/envs/__init__.py"


def resd_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["resd", *words])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != os.getcwd()])
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)


def test_the_command_runs_its_modules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"resd": "resd.__main__:main"}
    for module, what in COMMANDS.values():
        assert importlib.util.find_spec(module), what
    assert resd_command(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{resd.__version__}\n"
    assert resd_command(monkeypatch, "trian") == 2
    assert "resd trian is not a command: choose one of train, evaluate" in capsys.readouterr().err
    (tmp_path / "echo_here.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)  # where a script of pip would not look
    monkeypatch.setattr(sys, "stdin", io.StringIO("hm\n"))
    assert resd_command(monkeypatch, "play", "task=echo_here:Echo") == 0
    assert "attempt 1: failed" in capsys.readouterr().out
    assert resd_command(monkeypatch, "report", "nowhere", "--out", str(tmp_path / "x.html")) == 2


def test_the_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("vllm", "peft") else find(name))
    said = "\n".join(doctor.lines())
    assert "no vllm, for engine=vllm: pip install 'vllm==0.32.0'" in said
    assert "no peft, for model.lora: pip install" in said
    assert "GB of memory" in said
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "vllm==0.32.0" in extras["vllm"]


def test_no_page_installs_from_a_name_that_is_not_ours() -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("resd/**/*.py"), *ROOT.glob("envs/**/*.py")]
    for file in files:
        assert not re.search(r"pip install '?\"?resd\b", file.read_text()), file
