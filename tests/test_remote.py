"""A teacher behind an address: a stand-in server with a real model's answers, in whole runs; and vLLM itself."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from stand_in import Server, serve
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, AutoTokenizer

from resd.address import Address, Failed
from resd.model.remote import RemoteTeacher
from resd.settings import RemoteSettings
from resd.types import UserError

OPD = ["algorithm=opd", "evaluation.before=false", "evaluation.every=0", "evaluation.limit=1", "batch_size=4"]
OPD += ["algorithm.objective.select=teacher", "algorithm.objective.top_k=20"]
TORCHRUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
SIGNALS = ["divergence", "sampled"]


def answers(folder: Path, rename: Callable[[str], str] = lambda text: text) -> Callable[[str, dict[str, Any]], Any]:
    """What vLLM answers to completions with the log-probabilities of the prompt, by the model in `folder`."""
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def answer(path: str, body: dict[str, Any]) -> Any:
        assert path == "/v1/completions"
        assert body["max_tokens"] == 1
        ids, top = body["prompt"], body["prompt_logprobs"]
        logprobs_T_V = lm(torch.tensor([ids])).logits[0].log_softmax(-1)
        rows: list[Any] = [None]
        for id, logprobs_V in zip(ids[1:], logprobs_T_V[:-1], strict=True):
            chosen = dict.fromkeys([id, *logprobs_V.topk(top).indices.tolist()])
            rows.append(
                {
                    str(i): {
                        "logprob": float(logprobs_V[i]),
                        "rank": int((logprobs_V > logprobs_V[i]).sum()) + 1,
                        "decoded_token": rename(tokenizer.decode([i])),
                    }
                    for i in chosen
                }
            )
        return {"choices": [{"index": 0, "text": "x", "prompt_logprobs": rows}]}

    return answer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture
def server(teacher: Path) -> Iterator[Server]:
    with serve(Server(answers(teacher))) as running:
        yield running


def elsewhere(server: Server) -> list[str]:
    return [f"algorithm.teacher.url={server.url}", "remote.retries=1"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_teacher_elsewhere_teaches_what_it_would_here(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path, server: Server, signal: str
) -> None:
    wanted = [*OPD, f"algorithm.signal={signal}"]
    here = of_kind(run(tiny_model, tmp_path / "here", *wanted, f"algorithm.teacher.path={teacher}"), "train")
    there = of_kind(run(tiny_model, tmp_path / "there", *wanted, *elsewhere(server)), "train")
    assert [row["step"] for row in there] == [1, 2]
    for ours, theirs in zip(here, there, strict=True):
        for name in ("loss", "grad_norm", "response/entropy", *(["topk_mass"] if signal == "divergence" else [])):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4, abs=1e-6), name
        assert ours["grad_norm"] > 0
        assert theirs["teacher/lost"] == theirs["teacher/retried"] == 0
    assert {body["prompt_logprobs"] for _, body in server.asked[1:]} == {20 if signal == "divergence" else 1}


HALF = (200, {}, b'{"choices": [{"prompt_logprobs": [null, {"5"')
BUSY = (429, {"Retry-After": "0"}, b"")
SHORT = {"choices": [{"prompt_logprobs": [None]}]}


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_lost_answer_costs_its_sample(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, server: Server, signal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four samples one is asked again, one has half an answer and one is of other tokens; two are learned from."""
    answer, number = server.answer, [0]

    def faulty(path: str, body: dict[str, Any]) -> Any:
        number[0] += 1
        faults: dict[int, Any] = {2: HALF, 3: SHORT, 4: BUSY}
        return faults.get(number[0]) or answer(path, body)

    server.answer = faulty
    row = of_kind(
        run(
            tiny_model, tmp_path, *OPD, f"algorithm.signal={signal}", *elsewhere(server), "steps=1", "remote.at_once=1"
        ),
        "train",
    )[0]
    assert (row["teacher/lost"], row["teacher/retried"]) == (2, 1)
    assert row["grad_norm"] > 0
    assert "2 x teacher/lost (samples without an answer from the teacher, left out): half an answer" in (
        capsys.readouterr().out
    )
    scored = [json.loads(line) for line in (tmp_path / "attempts/step_000001.jsonl").read_text().splitlines()]
    assert len(scored) == 4
    if signal == "divergence":
        assert sum("token_loss" in each for each in scored) == 2


def test_a_teacher_that_dies_ends_the_run_with_a_sentence(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, server: Server
) -> None:
    answer = server.answer

    def dying(path: str, body: dict[str, Any]) -> Any:
        return answer(path, body) if len(server.asked) <= 5 else (200, {"Content-Length": "9"}, b"")

    server.answer = dying
    with pytest.raises(UserError, match=r"update 2 has no sample to learn from \(4 x teacher/lost\)"):
        run(tiny_model, tmp_path, *OPD, *elsewhere(server), "remote.retries=0", "on_empty=stop")
    assert [row["teacher/lost"] for row in of_kind(metrics(tmp_path), "train")] == [0, 4]
    assert (tmp_path / "checkpoints/step_000001").is_dir()


def refused(model: Path, run_dir: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        run(model, run_dir, *OPD, *overrides)
    assert not (run_dir / "metrics.jsonl").exists()
    return str(caught.value)


def test_what_cannot_teach_is_refused_before_anything_loads(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("resd.services.build_student", loaded)
    monkeypatch.setattr("resd.session.build_student", loaded)
    there = elsewhere(server)
    cases: list[tuple[list[str], str]] = [
        (
            ["algorithm.teacher.url=http://127.0.0.1:9/v1"],
            "algorithm.teacher.url=http://127.0.0.1:9/v1 does not answer",
        ),
        ([*there, "algorithm.objective.select=student"], "write algorithm.objective.select=teacher"),
        ([*there, "algorithm.objective.support=full"], "algorithm.objective.support=tail"),
        ([*there, "rollout.temperature=0.7"], "write rollout.temperature=1.0"),
        ([*there, f"algorithm.teacher.path={teacher}"], "one of teacher.path=…, teacher.url=…"),
        ([], "one of teacher.path=…, teacher.url=…"),
        (["algorithm.teacher.url=localhost"], "localhost is no address: write http://HOST:PORT/v1"),
        ([*there, "algorithm.teacher.model=big"], "has no model big: write one of served"),
    ]
    for i, (overrides, said) in enumerate(cases):
        assert said in refused(tiny_model, tmp_path / str(i), *overrides)
    server.card["max_model_len"] = 512
    assert "reads 512 tokens" in refused(tiny_model, tmp_path / "short", *there)
    server.card["max_model_len"] = 4096
    server.answer = answers(teacher, str.swapcase)
    assert "has another vocabulary: token" in refused(tiny_model, tmp_path / "swapped", *there)
    for fault in [
        (400, {}, b'{"error": {"message": "Requested prompt logprobs of 20, which is greater than max allowed: 10"}}'),
        {"choices": [{"text": "no log-probabilities"}]},
        {"choices": []},
    ]:
        server.faults = [fault]
        said = refused(tiny_model, tmp_path / "faults", *there)
        assert "--max-logprobs 20" in said
        assert said.count("\n") == 0


def test_numbers_that_are_none_are_lost(server: Server) -> None:
    there = RemoteTeacher(Address("t", server.url, "served", RemoteSettings(timeout=5, retries=0, at_once=1)), 2, 260)
    good = {"5": {"logprob": -1.0}, "6": {"logprob": -0.5}, "7": {"logprob": -9999.0}}
    rows: list[Any] = [
        good,
        {**good, "5": {"logprob": float("nan")}},
        {**good, "5": {"logprob": 1.0}},
        {**good, "5": {}},
        {"5": {"logprob": -1.0}},
        {"6": {"logprob": -1.0}, "7": {"logprob": -2.0}},
        {**good, "900": {"logprob": -0.1}},
        {"x": {"logprob": -1.0}, **good},
        None,
        "5",
    ]
    server.faults = [{"choices": [{"prompt_logprobs": [None, row]}]} for row in rows]
    told = there.ask([([3], [5])] * len(rows), compared=True)
    assert [isinstance(each, Failed) for each in told] == [False] + [True] * 9
    assert not isinstance(told[0], Failed)
    assert (list(told[0].logprobs), list(told[0].top_ids), list(told[0].top_logprobs)) == ([-1.0], [6, 5], [-0.5, -1.0])


@contextmanager
def vllm_server(folder: Path, log: Path) -> Iterator[str]:
    """`vllm serve` of a folder on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--max-logprobs", "20", "--dtype", "float32", "--max-model-len", "2048"]
    command += ["--enforce-eager", "--served-model-name", "teacher"]
    inherited = {name: value for name, value in os.environ.items() if name not in TORCHRUN}  # of the `mesh` fixture
    environment = {**inherited, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            address = Address("t", f"http://127.0.0.1:{port}/v1", None, RemoteSettings(timeout=5, retries=0, at_once=1))
            deadline = time.monotonic() + 600
            while True:
                try:
                    address.open()
                    break
                except UserError:
                    assert process.poll() is None, log.read_text()[-3000:]
                    assert time.monotonic() < deadline, log.read_text()[-3000:]
                    time.sleep(1)
            yield address.url
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.vllm
def test_vllm_serves_a_teacher_and_an_author(mesh: DeviceMesh, tmp_path: Path) -> None:
    """nano, served: it teaches a nano with noisy weights what it would here, and what it writes is read."""
    nano, noisy = Path(__file__).parent.parent / "resd/model/nano", tmp_path / "noisy"
    shutil.copytree(nano, noisy)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(nano / "model.safetensors")
    spread = {name: 0.1 * w.float().std() * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    save_file(
        {n: (w + spread[n]).to(w.dtype) for n, w in weights.items()}, noisy / "model.safetensors", {"format": "pt"}
    )
    small = ["evaluation.before=false", "evaluation.every=0", "evaluation.limit=1", "rollout.max_response=40"]
    small += ["task=manufactoria", "task.name=manufactoria", "rollout.max_prompt=1000", "steps=1", "hardware.threads=1"]
    with vllm_server(nano, tmp_path / "log") as url:
        for signal in SIGNALS:
            wanted = [*OPD, *small, f"algorithm.signal={signal}", "seed=3"]
            [here] = of_kind(
                run(noisy, tmp_path / f"here_{signal}", *wanted, f"algorithm.teacher.path={nano}"), "train"
            )
            [there] = of_kind(
                run(noisy, tmp_path / f"there_{signal}", *wanted, f"algorithm.teacher.url={url}"), "train"
            )
            assert there["teacher/lost"] == there["teacher/retried"] == 0
            assert here["grad_norm"] > 1e-3
            assert there["grad_norm"] == pytest.approx(here["grad_norm"], rel=1e-2)
            assert there["loss"] == pytest.approx(here["loss"], rel=1e-2, abs=1e-4)
            if signal == "divergence":
                assert there["teacher_topk_mass"] == pytest.approx(here["teacher_topk_mass"], abs=1e-4)
                assert there["teacher_entropy"] == pytest.approx(here["teacher_entropy"], abs=1e-4)
        settings = ["algorithm=resd", "model.max_prompt=1500", "author.max_response=200", f"author.url={url}"]
        [row] = of_kind(run(nano, tmp_path / "author", *small, *settings), "train")
        assert row["reflect/lost"] == row["reflect/retried"] == 0
        lines = (tmp_path / "author/attempts/step_000001.jsonl").read_text().splitlines()
        assert any(each["reflection"] and each["reflection"]["text"] for each in map(json.loads, lines))
        with pytest.raises(UserError, match="--max-logprobs 100"):
            run(nano, tmp_path / "many", *OPD, *small, "algorithm.objective.top_k=100", f"algorithm.teacher.url={url}")
