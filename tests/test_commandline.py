"""What users write, mistakes above all: each is one sentence that says what to write instead, or works."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from resd import commandline
from resd.advice import quoted
from resd.commandline import readable
from resd.config import CONF, Config, validate
from resd.train import train
from resd.types import UserError


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("bad.jsonl").write_text('{"name": "half a row"\n')
    Path("empty.jsonl").write_text("")
    Path("conf/task").mkdir(parents=True)
    Path("conf/task/mine.yaml").write_text("name: manufactoria\noptions: { family: regex }\n")
    Path("broken/task").mkdir(parents=True)
    Path("broken/task/mine.yaml").write_text("name: [")


def load(*words: str) -> Config:
    """The configuration that a command line makes, as `resd.train` reads it."""
    overrides = [word for word in readable(words, "config") if not word.startswith("-")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", overrides))


MISTAKES = {
    # names
    "stepz=3": "stepz is not a setting: did you mean steps?",
    "lr=1e-3": "did you mean optimizer.lr?",
    "max_response=9": "or algorithm.writing.max_response?",
    "algorithm.playbok.max_entries=3": "did you mean algorithm.playbook.max_entries?",
    "qqqqqqqqqqqq=3": "see conf/config.yaml for what there is",
    "optimizer.lr.x=3": "optimizer.lr.x is not a setting",
    "+optimizer.lrr=1": "optimizer.lrr is not a setting here",
    "~stepz": "stepz is not a setting: did you mean steps?",
    # groups
    "task=manufactorio": "task=manufactorio does not exist: choose one of bouncingsim,",
    "task=": "task= does not exist: choose one of bouncingsim,",
    "task=null": "task=null is not a name: write one of bouncingsim,",
    "task=[finer,ifeval]": "task=[finer,ifeval] is not a name",
    "task@forgetting.task=nope": "task@forgetting.task=nope does not exist: choose one of",
    "forgetting.task=ifeval": "write task@forgetting.task=ifeval",
    "algorithm=RESD": "algorithm=RESD does not exist: choose one of custom, grpo, opd,",
    "algorithm.name=ppo": "choose one of grpo, opd, opsd, reflect_retry_reward, resd, resd_fixed,",
    "preset=offical": "preset=offical does not exist: choose one of default, official, paper",
    "model=some/folder": "a folder with a model is model.path=…",
    "model=~/folder": "a folder with a model is model.path=…",
    "hydra/launcher=none": "choose one of basic, torchrun",
    # values
    "steps=many": "steps=many",
    "steps=": "steps=: ",
    "steps=2.5": "steps=2.5",
    "batch_size=0": "batch_size=0",
    "optimizer=adam": "write optimizer.NAME=VALUE",
    "algorithm.objective=null algorithm.objective.alpha=1": "algorithm.objective",
    "run_dir=": "is empty: write a folder",
    "run_dir=2024": "write 'run_dir=\"2024\"' for a text",
    "run_dir=${nothing}": "nothing",
    "run_dir=${nothing": "cannot be set",
    "model.path=~/missing": "missing is not a model folder",
    "resume=~/missing": "is not a checkpoint: write auto, never, or",
    # Hydra's grammar
    "run_dir=a,b": "add --multirun to try each, or write 'run_dir=\"a,b\"' if it is one text",
    "run_dir=f(1)": "write 'run_dir=\"f(1)\"' if the value is a text",
    "run_dir=[a": "write 'run_dir=\"[a\"' if the value is a text",
    "algorithm.entries=[don't]": "or 'algorithm.entries=[\"one text\",2]' if it is a list",
    "seed=range(1,3)": "--multirun",
    "algorithm.objective": "write algorithm.objective=VALUE",
    "steps:3": "steps:3 is not a setting with a value: write steps=3",
    "=3": "=3 is not a setting with a value",
    "ste/ps%=3": "not the name of a setting",
    "run_dir=\udce4": "is not UTF-8",
    # options
    "--steps=3": "--steps=3 is not an option: settings have no dashes, write steps=3",
    "--steps 3": "--steps 3 is not an option: settings have no dashes, write steps=3",
    "--config-dir nowhere": "--config-dir nowhere is not a folder",
    "--config-dir": "expected one argument",
    "--config-name nothing": "there is no nothing.yaml in conf/",
    "--config-path /nowhere steps=1": "nowhere",
    "--config-dir broken task=mine": "mine.yaml",
    # sweeps
    "--multirun lrr=1,2": "lrr is not a setting",
    "--multirun seed=0,1 run_dir=a=b,c": "write 'run_dir=\"a=b,c\"' if the value is a text",
    "--multirun hydra/launcher=basic seed=0,1": "write hydra/launcher=torchrun, which gives each its own",
    "--multirun hydra/launcher=basic seed=0,1 run_dir=r": "'run_dir=runs/mine/${hydra:job.num}'",
}
LATER = {  # what only the data can tell
    "steps=100000": "lower steps",
    "batch_size=5000": "lower batch_size",
    "+task.options.colour=red": "colour",
    "task.options.source=bad.jsonl": "bad.jsonl",
    "task.options.source=empty.jsonl": "empty.jsonl",
    "task.options.source=missing.jsonl": "neither a file nor a folder",
    "task.options.source=3": "source=3 is neither a file nor a folder",
    "task=local": "task.options.source has no value: set it",
    "run_dir=/proc/resd": "choose another run_dir",
}


def complaint(work: Any, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        work(load(*words))
    says = str(caught.value)
    assert "\n" not in says
    assert not any(raw in says for raw in ("Exception", "hydra.cc", "Traceback", "LexerNo", "search path:"))
    return says


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence(words: str) -> None:
    assert MISTAKES[words] in complaint(lambda _: None, *words.split())


@pytest.mark.parametrize("words", LATER)
def test_a_mistake_about_the_data_is_one_sentence(words: str) -> None:
    assert LATER[words] in complaint(train, *words.split())


TEMPLATES = [
    "{{ a }} or {{ b[0] }}?",
    "{{ a }}, {{ b }}",
    "{% if a %}x{% endif %}",
    "{# a #}{{ b }}",
    "${{ a }}",
    "a ${{ b }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_taken_as_it_stands(template: str) -> None:
    for value in (template, quoted(template), template.replace("${{", r"\${{")):
        words = readable(["task=local", f"task.options.template={value}"], "config")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose("config", words).task.options.template == template


NAMES = ["a=b", "läufe", "~", "it's a run", "x[/b]", "a#b", "a;b&c", "50%", "a(b", "{x}", "über uns/日本", "a\\b", " x"]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_hydra_has_no_place_for_is_taken_as_it_stands(name: str) -> None:
    if name[0] not in "{":
        assert load(f"run_dir=r/{name}").run_dir == f"r/{name}"
    assert load(f"run_dir={quoted(f'r/{name}')}").run_dir == f"r/{name}"


@pytest.mark.parametrize(
    "words", ["run_dir=f(1)", "run_dir=a,b", "run_dir=[a", "run_dir='a", 'run_dir="it', "run_dir={a"]
)
def test_what_the_sentence_says_works(words: str) -> None:
    says = complaint(lambda _: None, words)
    [advice] = shlex.split(
        says.partition("or write ")[2].partition(" if it is")[0]
        or says.partition(": write ")[2].partition(" if the")[0]
    )
    assert load(advice).run_dir == words.partition("=")[2]


def test_homes_are_found(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "model").mkdir(parents=True)
    (home / "model" / "config.json").write_text("{}")
    (home / "model" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (home / "checkpoint" / "state").mkdir(parents=True)
    for quote in ("", "'", '"'):
        settings = load(*(f"{key}={quote}~/{name}{quote}" for key, name in (("run_dir", "r"), ("model.path", "model"))))
        assert (settings.run_dir, settings.model.path) == (f"{home}/r", f"{home}/model")
    assert load("resume=~/checkpoint").resume == f"{home}/checkpoint"
    assert readable(["hydra.sweep.dir=~/sweep"], "config") == [f'hydra.sweep.dir="{home}/sweep"']


@pytest.mark.parametrize(
    "flags",
    [["--config-dir", "conf"], ["--config-dir=conf"], ["-cd", "conf"], ["hydra.searchpath=[file://{here}/conf]"]],
)
@pytest.mark.parametrize("turn", [False, True])
def test_options_of_hydra_reach_it(flags: list[str], turn: bool) -> None:
    flags = [flag.replace("{here}", os.getcwd()) for flag in flags]
    words = ["task=mine", *flags, "steps=1"] if turn else [*flags, "task=mine", "steps=1"]
    expected = [*flags, "task=mine", "steps=1"]
    assert sorted(readable(words, "config")) == sorted(expected)


def test_a_home_in_an_option(tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(tmp_path)
    assert readable(["--config-dir=~/conf", "task=mine"], "config")[0] == f"--config-dir={tmp_path}/home/conf"


def test_a_configuration_of_ones_own() -> None:
    Path("conf/config.yaml").write_text("x: 1\n")
    assert readable(["--config-path", f"{os.getcwd()}/conf", "x=2"], "config")[-1] == "x=2"
    with pytest.raises(UserError, match="x is not a setting"):
        readable(["x=2"], "config")
    Path("conf/other.yaml").write_text("defaults: [config, _self_]\ny: 1\n")
    words = ["--config-name", "other", "--config-dir", "conf", "steps=2"]
    assert readable(words, "config") == words


@pytest.mark.parametrize(
    ("words", "hydras"),
    [
        ([], False),
        (["seed=3", "run_dir=a=b"], False),
        (["seed=3", "--cfg", "job"], True),
        (["-m", "seed=1,2", "steps=1"], True),
        (["hydra.mode=MULTIRUN", "steps=1"], True),
        (["run_dir=runs/${hydra:job.num}"], True),
        (["seed=3", "--config-dir", "conf"], True),
    ],
)
def test_one_job_is_composed_once(monkeypatch: pytest.MonkeyPatch, words: list[str], hydras: bool) -> None:
    monkeypatch.setattr(sys, "argv", ["resd", *words])
    job = commandline.job("config")
    assert (job is None) is hydras
    if job:
        assert validate(job.composed).seed == (3 if words else 0)
        assert job.words == sys.argv[1:] == [word.replace("a=b", '"a=b"') for word in words]


@pytest.mark.parametrize("flags", [["--hydra-help"], ["--info"], ["-i", "config"], ["-sc", "install=bash"]])
def test_what_hydra_answers_alone_is_left_to_it(flags: list[str]) -> None:
    assert readable(["stepz=3", *flags], "config") == ["stepz=3", *flags]


def test_sweeps_pass() -> None:
    for words in (
        ["-m", "seed=0,1"],
        ["seed=range(0,3)", "--multirun"],
        ["-m", "algorithm=resd,sdpo", "run_dir=r/${seed}"],
    ):
        assert sorted(readable(words, "config")) == sorted(words)
    free = ["--multirun", "hydra/launcher=basic", "seed=0,1", "run_dir=r/${seed}"]
    assert readable(free, "config") == free
    assert readable(["-m", "samples=1,2", "checkpoint=x"], "evaluate") == ["-m", "samples=1,2", "checkpoint=x"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["preset=paper", "task=custom"], "preset=paper has no values of its own for task=custom with algorithm=resd"),
        (
            ["preset=official", "task=ifeval", "algorithm=grpo"],
            "for task=ifeval with algorithm=grpo: those that it has",
        ),
        (["preset=paper", "task=mine", "--config-dir", "conf"], "for task=mine with algorithm=resd"),
        (["preset=paper", "algorithm=resd_swapped"], ""),
        (["preset=paper", "task=finer", "algorithm=sdpo_ss"], ""),
        (["task=custom"], ""),
        (["-m", "preset=paper", "task=mine", "seed=0,1", "--config-dir", "conf"], ""),
    ],
)
def test_a_preset_says_that_it_knows_nothing_of_a_task(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readable(words, "config")
    said = capsys.readouterr().out
    assert says in said
    assert said.count("\n") == bool(says)
    monkeypatch.setenv("RANK", "1")
    readable(words, "config")
    assert not capsys.readouterr().out


def test_an_algorithm_of_ones_own_has_the_table_of_what_it_builds_upon(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/algorithm").mkdir()
    Path("conf/algorithm/mine.yaml").write_text("defaults: [resd_swapped]\ngroup: 2\n")
    readable(["preset=paper", "algorithm=mine", "--config-dir", "conf"], "config")
    assert not capsys.readouterr().out


def test_the_words_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resd.train", "run_dir=a=b"])
    commandline.job("config")
    assert sys.argv == ["resd.train", 'run_dir="a=b"']


def test_a_task_in_a_folder_of_ones_own_is_run(tiny_model: Path, tmp_path: Path) -> None:
    """The whole way, with words that need every mechanism at once."""
    words = ["--config-dir", "conf", "task=mine", f"model.path={tiny_model}", "run_dir=it's=ä", "steps=100000"]
    done = subprocess.run(
        [sys.executable, "-m", "resd.train", *words], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: steps=100000 exceeds the stream")
