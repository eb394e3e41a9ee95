"""What stands in metrics.jsonl."""

import json
import math
from pathlib import Path

from command import rows

from resd.report.log import Log


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    """So that any reader of JSON can read it; the curve shows it as it is."""
    log = Log(tmp_path, talks=False)
    log.metrics(1, "train", {"loss": math.nan, "grad_norm": math.inf, "lr": 1e-3, "interactions": 4})
    log.close()
    assert rows(tmp_path) == [
        {"step": 1, "kind": "train", "loss": None, "grad_norm": None, "lr": 1e-3, "interactions": 4}
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["lr"] == 1e-3
