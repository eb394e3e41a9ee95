"""What users do wrong at a terminal: each ends with status 2 and one sentence that says what to write instead, nothing
is left behind, and, but for what only a model can tell, torch was never imported.

All commands of a kind go through one process (`mistaken.py`); a handful also as processes of their own.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
JUDGED = "task=local task.options.source=rows.jsonl task.options.verifier"

MISTAKES = {
    "words": {
        "train --steps 4": ["--steps 4 is not an option: settings have no dashes, write steps=4"],
        "train --steps=4 seed=1": ["--steps=4 is not an option", "write steps=4"],
        "train --lr 1e-4": ["write optimizer.lr=1e-4"],
        "train '--run_dir=a b'": ["write 'run_dir=a b'"],
        "train --multirum steps=1": ["did you mean --multirun?"],
        "train steps 4": ["write steps=4, without blanks around ="],
        "train steps: 4": ["write steps=4, without blanks"],
        "train task =manufactoria": ["write task=manufactoria, without blanks"],
        "train task= manufactoria": ["write task=manufactoria, without blanks"],
        "train house_style": ["write task=house_style"],
    },
    "names": {
        "train lr=1e-4": ["lr is not a setting: did you mean optimizer.lr?"],
        "train group=8": ["did you mean algorithm.group?"],
        "train batch=8": ["did you mean batch_size?"],
        "train every=2": ["evaluation.every or forgetting.every or checkpoints.every?"],
        "train STEPS=4": ["did you mean steps?"],
        "train learning_rate=1e-4": ["did you mean optimizer.lr?"],
        "train model_path=x": ["did you mean model.path?"],
        "train tensor_parallel=2": ["engine.tensor_parallel is one of engine=vllm"],
        "train algorithm=grpo algorithm.playbook.max_entries=3": ["not a setting of algorithm=grpo", "algorithm=resd"],
        "train task.options.level=easy": ["not a setting of task=manufactoria", "task=bouncingsim"],
        "train +x=1": ["x is not a setting here: remove it"],
        "train ++steps=4 batch_size=0": ["batch_size=0: write a number that is at least 1"],
        "train ~task": ["~task would take away what a run needs: write task=VALUE"],
        "train ~steps": ["write steps=VALUE"],
    },
    "choices": {
        "train task=manufactoira": [
            "task=manufactoira does not exist: choose one of bouncingsim,",
            "mean manufactoria?",
        ],
        "train model=qwen": ["did you mean qwen2_5_0_5b or qwen3_0_6b", "a folder with a model is model.path=…"],
        "train algorithm=RESD": ["choose one of custom, grpo,", "did you mean resd?"],
        "train engine=vLLM": ["choose one of transformers, vllm; did you mean vllm?"],
        "train hardware=gpu": ["choose one of cpu, gpu1, h200x8; did you mean gpu1?"],
        "train preset=papr": ["did you mean paper?"],
        "train --multirun algorithm=resd,grpoo": ["algorithm=grpoo does not exist", "did you mean grpo"],
        "train --multirun steps=1,abc": ["steps=abc: write a whole number"],
        "train --multirun steps=4": ["--multirun has nothing to try: write KEY=A,B"],
        "train steps=1,2": ["add --multirun to try each"],
        "train task=custom": ["task.name has no value: set it"],
        "train task=local": ["task.options.source has no value: set it"],
    },
    "values": {
        "train steps=abc": ["steps=abc: write a whole number"],
        "train steps=": ["steps=: write a whole number"],
        "train steps=-1": ["steps=-1: write a number that is at least 1"],
        "train steps=1.5": ["steps=1.5: write a whole number"],
        "train seed=null": ["seed=null: write a whole number"],
        "train shuffle=maybe": ["shuffle=maybe: write true or false"],
        "train evaluation.temperature=-1": ["evaluation.temperature=-1", "at least 0"],
        "train rollout.top_p=2": ["rollout.top_p=2: write a number that is at most 1"],
        "train hardware.dtype=float16": ["write 'float32' or 'bfloat16'"],
        "train optimizer.betas=0.9": ["optimizer.betas=0.9: write a list"],
        "train optimizer=adamw": ["write optimizer.NAME=VALUE"],
        "train steps=100000": ["exceeds the stream", "lower steps"],
    },
    "folders": {
        "train task=custom task.name=fussy:Fussy run_dir=a_file": [
            "run_dir=a_file cannot be written"
        ],  # its judge waits
        "train task=custom task.name=fussy:Fussy steps=90": ["steps=90 exceeds the stream"],
        "train run_dir=a_file": ["run_dir=a_file cannot be written", "choose another run_dir"],
        "train run_dir=/proc/resd": ["choose another run_dir"],
        "train run_dir=old seed=2": ["run_dir=old holds a run with seed=1, not 2"],
        "train resume=somewhere": ["resume=somewhere is not a checkpoint: write auto, never, or"],
        "train model.path=./nowhere": ["model.path=./nowhere is not a model folder"],
        "train --config-dir missing": ["--config-dir missing is not a folder"],
        "train --config-name other": ["there is no other.yaml"],
        "train 'run_dir=[a, b'": ["if the value is a text"],
        f"train {JUDGED.replace('rows', 'none')}=judge:check": ["none.jsonl", "neither a file nor a folder"],
        f"train {JUDGED}=torn:check": ["torn.py, line 1", "mend that line"],
        f"train {JUDGED}=judge:chekc": ["no attribute 'chekc'", "write package.module:function"],
        f"train {JUDGED}=lacks:check": ["No module named 'nothing_there'", "mend or install what it imports"],
        "train task.options.colour=red": ["colour is not a setting"],
        "train +task.options.colour=red": ["colour"],
        "train task.options.family=nope": ["nope"],
    },
    "commands": {
        "evaluate": ["checkpoint has no value: write checkpoint=RUN/checkpoints/step_N"],
        "evaluate old": ["write checkpoint=old"],
        "evaluate checkpoint=nowhere": ["checkpoint=nowhere does not exist: write checkpoint=RUN"],
        "evaluate checkpoint=empty": ["checkpoint=empty is not a model folder"],
        "evaluate checkpoint=a_file": ["checkpoint=a_file is not a model folder"],
        "evaluate checkpoint=old smaples=2": ["did you mean samples?"],
        "evaluate checkpoint=old model.path=empty": ["model.path is checkpoint in an evaluation", "checkpoint=VALUE"],
        "evaluate checkpoint=old +model={path:x}": ["model.path is checkpoint"],
        "evaluate checkpoint=old samples=4 evaluation.samples=8": [
            "evaluation.samples=8 and samples=4 are two answers"
        ],
        "evaluate checkpoint=old run_dir=x": ["run_dir is out in an evaluation", "write out=VALUE"],
        "evaluate checkpoint=old cap=8": ["cap does nothing without library: write library=VALUE as well"],
        "evaluate checkpoint=old library=rows.jsonl left_out=0.1": ["left_out does nothing without worth"],
        "report": ["RUN"],
        "report empty": ["empty is not a run directory"],
        "report nowhere": ["nowhere is not a run directory"],
        "report old --otu x": ["did you mean --out?"],
        "plan --machine a100": ["a100", "h200"],
        "plan --model qwen9": ["model=qwen9 does not exist: choose one of"],
        "plan --processes many": ["--processes: many is not a number above 0"],
        "plan --model nano --processes 0": ["0 is not a number above 0"],
        "plan lr=1e-4": ["did you mean optimizer.lr?"],
        "plan --check nowhere": ["nowhere is not a run directory"],
        "play": ["task has no value"],
        "play task=manufactoira": ["did you mean manufactoria?"],
        "play task=manufactoria problem=0": ["problem=0 does not exist"],
        "doctor all": ["doctor takes no all"],
        "push": ["RUN"],
        "push nowhere": ["nowhere is not a run directory"],
        "push young": ["young has no checkpoint: go on with the run"],
        "push young --checkpoint 3": ["young has no checkpoint"],
        "push young --to mine": ["--to=mine is no name of a model on the hub: write OWNER/NAME"],
        "push young --base ../weights": ["--base=../weights is no name of a model on the hub"],
        "push young --private": ["write --to OWNER/NAME, or leave it out"],
        "push young old": ["push takes one run, not old as well"],
        "push young --chekpoint 3": ["did you mean --checkpoint?"],
        "trian task=manufactoria": ["trian is not a command", "did you mean train?"],
    },
    "models": {  # only torch can tell
        "train hardware=gpu1": ["write hardware=cpu"],
        "train algorithm.objective.divergence=kl": ["reverse_kl"],
        "train rollout.max_response=100000": ["do not fit into the", "lower"],
        "train model.path=half_model model=custom": ["model.path=half_model"],
        "evaluate checkpoint=half_model": ["half_model"],
    },
}
HELP = {  # ends with status 0
    "train --help": ["algorithm.playbook.max_entries=200", "how many it may have", "optimizer.lr=0.0003", "at least 0"],
    "train task=local algorithm=grpo -h": ["task.options.verifier=???", "algorithm.group=8", "algorithm.normalise_std"],
    "evaluate --help": ["checkpoint=???", "samples=4", "rollout.temperature=1.0"],
    "report --help": ["RUN", "--out FILE"],
    "plan --help": ["--processes", "one a GPU"],
    "play --help": ["problem=3"],
    "play task=manufactoria --help": ["family: has"],
    "doctor --help": ["what is missing"],
    "push --help": ["--to OWNER/NAME", "RUN/push/step_N"],
    "--help": ["train", "evaluate", "doctor"],
}
FUSSY = """from resd.types import Problem, UserError

class Fussy:
    noun = "answer"

    def problems(self, split):
        return [Problem(f"{split}-{n}", "Say it.", "", []) for n in range(32)]

    def prompt(self, problem):
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem, response, truncated=False):
        raise UserError("no answer is judged")

    def self_test(self):
        raise UserError("the judge was tried")
"""
ALONE = ["train --steps 4", "train lr=1e-4", "evaluate checkpoint=nowhere", "report nowhere", "trian"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid(tmp_path_factory.mktemp("desk"))


def laid(desk: Path) -> Path:
    """The folder, with what lies where the commands are given."""
    rows = [{"split": split, "id": split, "prompt": "Say it."} for split in ("train", "test")]
    (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk / "judge.py").write_text("def check(row, response):\n    return True\n")
    (desk / "torn.py").write_text("def check(row, response:\n    return True\n")
    (desk / "fussy.py").write_text(FUSSY)
    (desk / "lacks.py").write_text("import nothing_there\n")
    (desk / "a_file").write_text("")
    (desk / "empty").mkdir()
    (desk / "half_model").mkdir()
    (desk / "half_model/config.json").write_text('{"model_type": "qwen2"}')
    (desk / "old/checkpoints/step_000001").mkdir(parents=True)
    (desk / "old/config.yaml").write_text("seed: 1\n")
    (desk / "young").mkdir()
    (desk / "young/metrics.jsonl").write_text("")
    return desk


def environment(desk: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{desk}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def ended(desk: Path, commands: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each command ended with."""
    here = Path(tempfile.mkdtemp(dir=desk.parent))
    for path in desk.iterdir():
        (here / path.name).symlink_to(path)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("mistaken.py")],
        input="".join(json.dumps(shlex.split(command)) + "\n" for command in commands),
        cwd=here,
        env=environment(desk),
        capture_output=True,
        text=True,
        check=True,
    )
    return zip(commands, map(json.loads, done.stdout.splitlines()), strict=True)


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(desk: Path, kind: str) -> None:
    wrong = []
    for command, found in ended(desk, MISTAKES[kind]):
        notes, _, sentence = found["err"].rstrip("\n").rpartition("\n")
        right = [
            (found["status"], found["left"]) == (2, []),
            sentence.startswith("error: ") and "Traceback" not in notes,
            all(part in sentence for part in MISTAKES[kind][command]),
            kind == "models" or not (found["torch"] or found["out"] or notes),
        ]
        if not all(right):
            wrong.append(f"{command} {right}: {found}")
    assert not wrong, "\n".join(wrong)


def test_help_helps_at_once(desk: Path) -> None:
    for command, found in ended(desk, HELP):
        assert (found["status"], found["left"], found["err"], found["torch"]) == (0, [], "", False), found
        for part in HELP[command]:
            assert part in found["out"], command


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, MISTAKES.values())) >= 60


@pytest.mark.parametrize("command", ALONE)
def test_the_same_as_a_process_of_its_own(desk: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resd", *shlex.split(command)],
        cwd=desk,
        env=environment(desk),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
