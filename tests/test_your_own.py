"""docs/your_own.md: every file on it is written, every command on it is run, from nothing to a report."""

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from command import rows, train
from torch.distributed.device_mesh import DeviceMesh
from transformers import LlamaConfig, LlamaForCausalLM

from resd import algorithms
from resd.algorithms import base, grpo
from resd.envs import play
from resd.objectives.divergence import divergence
from resd.report import __main__ as report
from resd.types import UserError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/your_own.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
# What keeps a run short, and a random model from being stopped for having nothing to say.
SHORT = (
    *("steps=1", "on_empty=warn", "rollout.max_prompt=600", "rollout.max_response=12", "model.max_prompt=3500"),
    *("evaluation.before=false", "evaluation.samples=2"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files beside a random Llama; Python finds there what it finds for `python -m`."""
    for language, text in BLOCKS:
        if language in ("csv", "python"):
            name, content = text.split("\n", 1)
            (tmp_path / name.removeprefix("# ")).write_text(content)
    config = LlamaConfig(
        **{"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096},
        **{"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None},
    )
    lm = LlamaForCausalLM(config).eval()
    tiny.widen(lm)
    tiny.write(lm, tmp_path / "llama")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_the_page(folder: Path, mesh: DeviceMesh, capfd: pytest.CaptureFixture[str]) -> None:
    first, *trainings, last = COMMANDS
    said, _, game = first.partition(" | ")
    words = shlex.split(game)
    assert words[:3] == ["python", "-m", "resd.envs.play"]
    assert play.main(words[3:], io.StringIO(shlex.split(said)[1] + "\n")) == 0
    assert "cases, reward 0." in (out := capfd.readouterr().out)
    assert "brief: Say the number alone." in out

    for line in trainings:
        words = shlex.split(line)
        assert words[:3] == ["torchrun", "-m", "resd.train"]
        done = train(capfd, *words[3:], *SHORT)
        assert done.status == 0, f"{line}\n{done.err}"
        assert "update 1/1" in done.out
    evaluated = [rows(folder / f"runs/{name}")[-1] for name in ("first", "chi", "best")]
    assert {"eval/reward/mean@2", "eval/reward/near/mean@2", "eval/reward/brief/best@2"} <= evaluated[0].keys()
    learned = [rows(folder / f"runs/{name}")[0] for name in ("chi", "best")]
    assert all(row["grad_norm"] > 0 for row in learned)

    words = shlex.split(last)
    assert words[:3] == ["python", "-m", "resd.report"]
    assert report.main(words[3:]) == 0
    page = (folder / "report.html").read_text()
    assert "Reward: near" in page
    assert "Reward: brief" in page


def test_the_page_has_nothing_that_is_not_run() -> None:
    assert len(BLOCKS) * 2 == len(re.findall(r"^```", PAGE, re.MULTILINE))
    assert {language for language, _ in BLOCKS} == {"csv", "python", "sh"}
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


# ------------------------------------------------------------------------------------ divergences and algorithms


def total(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def crossed(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    return -log_q.exp() * log_p


def backwards(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    return -log_q.exp() * (log_q - log_p)


def detached(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    return log_q.exp() * (log_q - log_p.detach())


def endless(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    return (log_q - log_p).abs().sqrt()  # without a gradient where they agree


def two(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return log_p - log_q


def picky(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    if alpha > 0.5:
        raise UserError("alpha is at most 0.5")
    return log_q.exp() * (log_q - log_p)


def test_a_divergence_by_its_path() -> None:
    log_p, log_q = torch.randn(2, 4, 5).log_softmax(-1)
    own, known = divergence("test_your_own:picky", 0.1), divergence("forward_kl", 0.1)
    torch.testing.assert_close(own(log_p, log_q), known(log_p, log_q))
    with pytest.raises(UserError, match=r"alpha is at most 0\.5"):
        divergence("test_your_own:picky", 0.6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("total", r"gives \[2\] for \[2, 3\]: return a value for each bucket"),
        ("crossed", r"is 1\.03 where student and teacher agree"),
        ("backwards", r"is 0 where student and teacher agree and -"),
        ("detached", r"fails on log-probabilities .*does not require grad"),
        ("endless", r"or its gradient is not finite"),
        ("two", r"fails on log-probabilities .*takes 2 positional arguments but 3 were given"),
        ("nobody", r"cannot be imported .*nobody"),
    ],
)
def test_what_is_no_divergence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^algorithm\.objective\.divergence=.*test_your_own:{name}.* {message}"):
        divergence(f"test_your_own:{name}", 0.5)


class Plain(base.Algorithm[Any]):
    pass


class Narrow(grpo.Algorithm):
    pass


def test_an_algorithm_has_the_settings_of_its_class() -> None:
    plain = algorithms.settings({"name": "test_your_own:Plain", "group": 2})
    assert (plain.name, plain.group) == ("test_your_own:Plain", 2)
    values = {**yaml.safe_load((ROOT / "conf/algorithm/grpo.yaml").read_text()), "name": "test_your_own:Narrow"}
    narrow = algorithms.settings(values)
    assert isinstance(narrow, grpo.Settings)
    assert narrow.name == "test_your_own:Narrow"
    assert algorithms.module(narrow.name).Algorithm is Narrow
    with pytest.raises(ValueError, match="test_your_own:Narrow compares rollouts of one prompt"):
        algorithms.settings({**values, "group": 1})
    with pytest.raises(UserError, match=r"is no algorithm: write a subclass of resd.algorithms.base.Algorithm"):
        algorithms.settings({"name": "test_your_own:total"})
    with pytest.raises(UserError, match=r"algorithm\.name='test_your_own:Nobody' cannot be imported"):
        algorithms.settings({"name": "test_your_own:Nobody"})
