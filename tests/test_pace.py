"""How far a run is."""

import io

import pytest
from rich.console import Console

from resd.report.log import Log
from resd.report.pace import Pace, span


def test_what_is_left_is_foreseen_from_this_process() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert str(pace) == ""
    pace.note(5, 16, {"time/rollout": 2.0, "time/update": 1.0, "perf/tokens_per_s": 830.4})
    assert str(pace) == "update 5/16  830 tokens/s  0:33 left"
    now[0] = 20.0  # two updates, with an evaluation between them
    pace.note(7, 16, {"time/rollout": 2.0})
    assert str(pace) == "update 7/16  1:30 left"
    pace.note(4, 16, {"time/rollout": 1.0})  # went back
    assert str(pace) == "update 4/16  0:12 left"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_it_stands_beside_the_bars() -> None:
    log = Log(None, talks=True, progress="on")
    log.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    log.pace.note(5, 16, {"time/rollout": 3.0})
    with log.progress("rollout", 3) as advance:
        advance()
    assert "update 5/16  0:33 left" in log.console.file.getvalue()
