"""What stands in metrics.jsonl, and on the console."""

import io
import json
import math
from pathlib import Path

import pytest
from command import rows

from resd.report.log import LINES, WIDTH, Log, clip
from resd.types import Attempt, Problem, Verdict


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    """So that any reader of JSON can read it; the curve shows it as it is."""
    log = Log(tmp_path, talks=False)
    log.metrics(1, "train", {"loss": math.nan, "grad_norm": math.inf, "lr": 1e-3, "interactions": 4})
    log.close()
    assert rows(tmp_path) == [
        {"step": 1, "kind": "train", "loss": None, "grad_norm": None, "lr": 1e-3, "interactions": 4}
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["lr"] == 1e-3


def attempt(response: str, verdict: Verdict | None) -> Attempt:
    return Attempt("0/p/0", Problem("p[1]", "?"), [], "", [1], [7, 8], [], response, False, verdict=verdict)


def test_responses_are_readable_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(None, talks=True)
    passed = attempt("[bold]one\n\n\x1b[2Jtwo\r", Verdict(1.0, True, 1, 1, ""))
    log.responses(4, [passed, attempt("", Verdict(0.0, False, 0, 1, "")), attempt("", None)])
    assert capsys.readouterr().out.splitlines() == [
        "  p[1]: passed, 2 tokens",
        "    [bold]one",
        "     [2Jtwo",
        "  p[1]: failed, 2 tokens",
        "  p[1]: no verdict, 2 tokens",
    ]


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "é \\ud83d"), ("ascii", "\\xe9 \\ud83d")])
def test_what_a_console_cannot_show_is_spelled(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", console)
    Log(None, talks=True).say("é \ud83d")
    console.seek(0)
    assert console.read() == f"{shown}\n"


def test_long_responses_are_clipped() -> None:
    assert clip("\n".join("abcdefgh"[: LINES + 1])) == [*"abcdefgh"[:LINES], "…"]
    assert clip("x" * (WIDTH + 1)) == ["x" * (WIDTH - 1) + "…"]
    assert clip("x" * WIDTH) == ["x" * WIDTH]
