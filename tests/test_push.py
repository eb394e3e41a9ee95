"""resd.push: a card with the numbers of the run, a folder that loads, and what a stand-in of the hub is sent."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from test_train import environment, run
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, AutoTokenizer

from resd import algorithms, push
from resd.report.card import card
from resd.report.ranking import METRICS
from resd.report.read import read_run
from resd.storage.checkpoint import fault

ROOT = Path(__file__).parent.parent
NAMES = [name.format(n=2) for name in METRICS]
WORDS = ["evaluation.every=1", "evaluation.limit=3", "algorithm.teacher_prompt.max_tokens=400"]
Pushed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(mesh: DeviceMesh, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates whose evaluations, each of them, found something else: 1 is the best, 2 the last."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    rows = run(tiny_model, run_dir, *WORDS)
    for number, row in enumerate(row for row in rows if row["kind"] == "eval"):
        row.update({name: (number + 1) / 10 + place / 100 for place, name in enumerate(NAMES)})
        row.update({name.replace("per_task", "reward"): row[name] for name in NAMES[:2]})
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run_dir / "playbook.md").write_text("# Playbook\n")
    assert (run_dir / "best").readlink().name == "step_000001"
    return run_dir


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


@pytest.fixture
def pushed(capsys: pytest.CaptureFixture[str]) -> Pushed:
    def ended(*words: object) -> tuple[int, str, str]:
        status = push.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return ended


def table(text: str, title: str) -> dict[str, list[str]]:
    """The rows of the first table after a heading, by their first cell."""
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_card_has_the_numbers_of_the_run(here: Path, pushed: Pushed) -> None:
    status, out, _ = pushed(here, "--base", "someone/tiny")
    assert status == 0
    assert f"{here}/push/step_000001 is the model after update 1" in out
    text = (here / "push/step_000001/README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    (index,) = head.pop("model-index")
    assert head == {
        "base_model": "someone/tiny",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["resd", "verifier_tasks-Echo"],
    }
    (result,) = index["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == pytest.approx(
        {name.removeprefix("eval/"): 0.2 + place / 100 for place, name in enumerate(NAMES)}
    )
    shown = table(text, "Evaluation")
    assert shown["metric"] == ["update 0 (before)", "update 1 (these weights, best)", "update 2 (last)"]
    assert shown["per_task/mean@2"] == ["10.00", "20.00", "30.00"]
    assert shown["per_case/best@2"] == ["13.00", "23.00", "33.00"]
    assert "3 problem(s), 2 answer(s) to each, `evaluation.temperature=0.6`" in text
    settings = table(text, "Training")
    asked = {"steps": "2", "seed": "0", "batch_size": "4", "optimizer.lr": "0.001", "algorithm.teacher.kind": "ema"}
    assert {key: settings[key] for key in asked} == {key: [value] for key, value in asked.items()}
    assert "https://arxiv.org/abs/2605.12741" in text
    versions = json.loads((here / "best/state/run.json").read_text())["versions"]
    assert f"torch {versions['torch']}, transformers {versions['transformers']}" in text
    assert "best of 2 evaluations" in text
    assert "laboratory" not in text
    assert not re.search(r"\n\n\n|\{\{|None", text)
    assert str(here.parent) not in text
    assert ModelCard(text).data.eval_results[0].dataset_split == "test"


def test_the_folder_loads_and_the_checkpoint_is_as_it_was(here: Path, pushed: Pushed) -> None:
    status, _, _ = pushed(here, "--checkpoint", "last", "--out", here.parent / "out")
    assert status == 0
    folder = here.parent / "out"
    model, chat = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    saved = load_file(here / "checkpoints/step_000002/model/model.safetensors")
    assert all(model.state_dict()[name].equal(weight) for name, weight in saved.items())
    assert chat.apply_chat_template([{"role": "user", "content": "hm"}], tokenize=False)
    assert (folder / "playbook.md").read_text() == "# Playbook\n"
    (folder / "resd.yaml").write_text("changed: by hand\n")
    assert fault(here / "checkpoints/step_000002") is None
    assert not (here / "checkpoints/step_000002/model/README.md").exists()


def test_what_was_changed_by_hand_stays(here: Path, pushed: Pushed) -> None:
    pushed(here)
    (here / "push/step_000001/README.md").write_text("mine")
    status, out, _ = pushed(here)
    assert status == 0
    assert "stays" in out
    assert (here / "push/step_000001/README.md").read_text() == "mine"


def test_the_command_of_the_card_repeats_the_run(here: Path, pushed: Pushed, tiny_model: Path, tmp_path: Path) -> None:
    pushed(here)
    folder = here / "push/step_000001"
    (command,) = re.findall(r"^python (-m resd\.train .*)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert "--config-name=resd" in command
    words = command.replace("BASE", str(tiny_model)).split()
    environs = {**environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    subprocess.run([sys.executable, *words], cwd=folder, env=environs, check=True, capture_output=True)
    again, first = folder / "runs/again/checkpoints/step_000002/model", here / "checkpoints/step_000002/model"
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_a_run_without_evaluations_claims_nothing(here: Path, pushed: Pushed) -> None:
    rows = [line for line in (here / "metrics.jsonl").read_text().splitlines() if '"eval"' not in line]
    (here / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert pushed(here)[0] == 0
    text = (here / "push/step_000001/README.md").read_text()
    assert "Nothing was measured." in text
    assert "model-index" not in text
    assert "best of" not in text


def test_evaluations_that_were_asked_otherwise_are_named(here: Path) -> None:
    rows = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    texts = [json.dumps(row).replace("@2", "@4") if row["step"] == 2 else json.dumps(row) for row in rows]
    (here / "metrics.jsonl").write_text("".join(text + "\n" for text in texts))
    record = read_run(here)
    text = card(record, record.config, 2)
    numbers = table(text, "Evaluation")
    assert numbers["metric"][0] == "update 0 (before; asked otherwise)"
    assert numbers["per_task/mean@4"] == ["–", "–", "30.00"]
    assert numbers["per_task/mean@2"][:2] == ["10.00", "20.00"]
    assert "3 problem(s), 4 answer(s) to each" in text
    assert "3 problem(s), 2 answer(s) to each" in card(record, record.config, 1)


def test_a_second_task_an_adapter_and_the_laboratory_are_told(here: Path) -> None:
    second = [{"step": n, "kind": "forgetting", "forgetting/per_task/mean@2": 0.5 - n / 10} for n in (0, 1)]
    with (here / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in second)
    record = read_run(here)
    config: dict[str, Any] = json.loads(json.dumps(record.config))
    config["model"] |= {"path": "someone/tiny", "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}}
    text = card(record, config, 1, laboratory=True)
    assert "| per_task/mean@2 | 50.00 | 40.00 |" in text
    assert "On a second task, `ifeval`" in text
    assert "merged" in text
    assert "| `model.lora.targets` | q_proj, v_proj |" in text
    assert "nano is this project's laboratory model" in text
    assert "base_model: someone/tiny" in text
    assert "run_dir=runs/again\n" in text


def test_folders_and_addresses_stay_on_the_machine(here: Path) -> None:
    record = read_run(here)
    config: dict[str, Any] = json.loads(json.dumps(record.config))
    options = {
        "source": "/home/ann/secret project/rows.jsonl",
        "verifier": "/home/ann/judges/mine.py:check",
        "server": "http://10.0.0.7:8000/v1",
        "files": ["../ann/a.csv", "b.csv"],
        "system": "Answer yes/no, in one word.",
        "share": 0.5,
    }
    config["task"]["options"] = options
    (here.parent / "models/qwen").mkdir(parents=True)  # above the run, wherever it is pushed from
    config["model"]["path"] = "models/qwen"
    text = card(record, config, 1)
    for secret in ("ann", "secret", "10.0.0.7", "huggingface.co/models", "datasets:"):
        assert secret not in text
    shown = table(text, "Training")
    assert "task.options.server" not in shown
    assert {key: shown[f"task.options.{key}"] for key in options if key != "server"} == {
        "source": ["rows.jsonl"], "verifier": ["mine.py:check"], "files": ["a.csv, b.csv"],
        "system": ["Answer yes/no, in one word."], "share": ["0.5"],
    }  # fmt: skip
    config["task"]["options"] = {"source": "data/train.jsonl"}
    assert "datasets:" not in card(record, config, 1)
    config["task"]["options"] = {"source": "openai/gsm8k"}
    assert "datasets: openai/gsm8k\n" in card(record, config, 1)


def test_every_paper_is_found_inside_algorithms_too() -> None:
    inner = {"name": "srpo", "context": {"name": "resd_fixed", "teacher": {"kind": "ema"}}}
    assert algorithms.papers(inner) == ["2604.02288", "2605.12741"]
    assert algorithms.papers({"name": "file.py:Class"}) == []
    assert algorithms.papers({"name": "gone"}) == []


def test_mistakes(here: Path, pushed: Pushed, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letters.txt").write_text("private")
    for words, part in {
        ("--checkpoint", "9"): "--checkpoint=9 is not there: choose best, last or one of 1, 2",
        ("--checkpoint", "first"): "choose best, last or one of 1, 2",
        ("--to", "name"): "write OWNER/NAME",
        ("--to", "a/b--c"): "write OWNER/NAME",
        ("--base", "./models/tiny"): "--base=./models/tiny is no name of a model on the hub",
        ("--private",): "write --to OWNER/NAME",
        ("other",): "push takes one run, not other as well",
        ("--out", here / "best/model"): "is a checkpoint",
        ("--out", tmp_path / "full"): "holds something else",
        ("--out", "/proc/nothing"): "/proc/nothing cannot be written",
    }.items():
        status, out, err = pushed(here, *words)
        assert (status, out, err.count("\n")) == (2, "", 1), words
        assert part in err
    assert not (here / "push").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letters.txt"]
    assert fault(here / "checkpoints/step_000001") is None
    pushed(here, "--out", tmp_path / "out")
    assert "holds another model" in pushed(here, "--checkpoint", "last", "--out", tmp_path / "out")[2]


def test_a_damaged_checkpoint_and_one_without_weights_are_not_pushed(here: Path, pushed: Pushed) -> None:
    weights = here / "checkpoints/step_000001/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "step_000001 is damaged (model/model.safetensors has changed" in pushed(here)[2]
    shutil.rmtree(here / "checkpoints/step_000002/model")
    assert f"what was learned is {here}/playbook.md" in pushed(here, "--checkpoint", "last")[2]
    shutil.rmtree(here / "checkpoints")
    assert "has no checkpoint" in pushed(here)[2]


class Hub:
    """What huggingface_hub asks of a hub when it pushes files, none of which goes to another storage."""

    def __init__(self) -> None:
        self.status, self.private = 200, False
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.tokens: dict[str, str | None] = {}

    def answer(self, path: str, body: bytes) -> Any:
        match path.removeprefix("/api/"):
            case "repos/create":
                self.created = json.loads(body)
                return {"url": f"{self.url}/me/model"}
            case "models/me/model":
                return {"id": "me/model", "private": self.private, "siblings": [], "tags": []}
            case "models/me/model/preupload/main":
                names = [file["path"] for file in json.loads(body)["files"]]
                return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            case "models/me/model/commit/main":
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                return {"commitUrl": f"{self.url}/me/model/commit/1", "commitOid": "1" * 40}
        return {}


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.tokens[self.path] = self.headers.get("Authorization")
            content = json.dumps(found.answer(self.path.partition("?")[0], body)).encode()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


def command(run_dir: Path, *words: str, **environs: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for the library reads these variables when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    plain = {**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(run_dir.parent / "hf"), **environs}
    arguments = [sys.executable, "-m", "resd.push", str(run_dir), "--to", "me/model", *words]
    return subprocess.run(arguments, env=plain, capture_output=True, text=True, check=False)


def test_the_hub_is_sent_the_folder(here: Path, hub: Hub) -> None:
    done = command(here, HF_ENDPOINT=hub.url, HF_TOKEN="hf_stand_in")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{hub.url}/me/model"
    folder = here / "push/step_000001"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"README.md", "playbook.md", "resd.yaml", "model.safetensors", "config.json"} <= hub.files.keys()
    assert (hub.created["organization"], hub.created["name"], hub.created.get("visibility")) == ("me", "model", None)
    assert hub.tokens["/api/models/me/model/commit/main"] == "Bearer hf_stand_in"


@pytest.mark.parametrize("private", [True, False])
def test_what_is_to_be_private_never_gets_public(here: Path, hub: Hub, private: bool) -> None:
    """The hub takes no notice of the wish if the model is there already."""
    hub.private = private
    done = command(here, "--private", HF_ENDPOINT=hub.url, HF_TOKEN="hf_stand_in")
    assert hub.created["visibility"] == "private"
    assert (done.returncode, bool(hub.files)) == ((0, True) if private else (2, False))
    assert ("everybody can see it" in done.stderr) is not private


@pytest.mark.parametrize(
    ("status", "environs", "part"),
    [
        (200, {}, "there is no token for the hub: run hf auth login"),
        (200, {"HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        (200, {"HF_TOKEN": "hf_x", "HF_ENDPOINT": "http://127.0.0.1:9"}, "(127.0.0.1:9|refused)"),
        (401, {"HF_TOKEN": "hf_x"}, "does not know this token"),
        (403, {"HF_TOKEN": "hf_x"}, "may not write to me/model"),
    ],
)
def test_what_keeps_from_the_hub_is_one_sentence(
    here: Path, hub: Hub, status: int, environs: dict[str, str], part: str
) -> None:
    hub.status = status
    done = command(here, **{"HF_ENDPOINT": hub.url, **environs})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert re.search(f"^error: .*{part}", done.stderr)
    assert done.stderr.endswith(f"push/step_000001 is kept, go on with: python -m resd.push {here} --to me/model\n")
    assert (here / "push/step_000001/README.md").is_file()
    assert not hub.files
