"""What a run writes for people and programs: `metrics.jsonl`, TensorBoard, trackers, and a console with progress bars.

Names are the same everywhere. Only rank 0 writes; the others get a log that does nothing.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from resd import files
from resd.report.matrix import Matrix, parts, shown, title, told
from resd.report.pace import Pace
from resd.report.rewards import graded, is_reward, scores
from resd.report.tracking import Tracking
from resd.types import Attempt

Kind = Literal["train", "eval", "forgetting"]
LINES, WIDTH = 6, 100  # of a response on the console


class Log:
    """Metrics and progress of one run. Nothing is written without `run_dir`, nothing said unless `talks`.

    The curves that an earlier process drew after update `step` are hidden; `resd.storage.rundir` cuts its rows.
    """

    def __init__(
        self, run_dir: Path | None, *, talks: bool, step: int = -1, progress: Literal["auto", "on", "off"] = "auto"
    ) -> None:
        self.console = Console(
            quiet=not talks,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            force_jupyter=False,  # text, among what else is printed in a notebook, which says that it is a terminal
            force_terminal=False if Console().is_jupyter else None,
        )
        self.bars = talks and (progress == "on" or (progress == "auto" and self.console.is_terminal))
        self.file = None if run_dir is None else run_dir / "metrics.jsonl"
        self.pace = Pace()
        self.tracking: Tracking | None = None
        self.board = None
        if run_dir is not None:
            self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def rewind(self, step: int) -> None:
        """Hide the curves that were drawn after update `step`; it goes on from there."""
        if self.board is not None:
            folder = self.board.log_dir
            self.board.close()
            self.board = SummaryWriter(folder, purge_step=step + 1)

    def metrics(self, step: int, kind: Kind, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, null for what is no number, and one point of each TensorBoard curve."""
        if self.file is None or self.board is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        files.append(self.file, json.dumps({"step": step, "kind": kind, **finite}, allow_nan=False) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.board.flush()
        if self.tracking is not None:
            self.tracking.metrics(step, values)

    def text(self, step: int, name: str, text: str) -> None:
        """What the file `name` of the run says after update `step`, for trackers."""
        if self.tracking is not None:
            self.tracking.text(step, name, text)

    def update(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """An update's metrics, and one line of the console."""
        self.metrics(step, "train", values)
        self.pace.note(step, steps, values)
        seconds = sum(value for name, value in values.items() if name.startswith("time/"))
        shown = {
            "passed": f"{100 * values['train/per_task']:.1f}%" if "train/per_task" in values else None,
            "cases": f"{100 * values['train/per_case']:.1f}%" if "train/per_case" in values else None,
            "reward": f"{100 * values['train/reward']:.1f}%" if graded(values) else None,
            "loss": f"{values['loss']:.4f}" if "loss" in values else None,
            "grad": f"{values['grad_norm']:.2f}" if "grad_norm" in values else None,
            "length": f"{values['response/length']:.0f}" if "response/length" in values else None,
            "playbook": f"{values['playbook/size']:.0f}" if "playbook/size" in values else None,
            "pairs": f"{values['pairs/size']:.0f}" if "pairs/size" in values else None,
        }
        facts = "  ".join(f"{name} {value}" for name, value in shown.items() if value is not None)
        self.say(f"update {step:>{len(str(steps))}}/{steps}  {facts}  {seconds:.1f} s")

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """An evaluation's metrics, and one line of the console."""
        self.metrics(step, "eval", values)
        self.say(f"[bold]test after update {step}[/]  {escape(scores(values))}")
        if each := parts(values):
            self.say(f"  of each part  {escape(each)}")

    def responses(self, step: int, attempts: Sequence[Attempt]) -> None:
        """What was said to some test problems, clipped for people, whole for trackers."""
        for attempt in attempts:
            verdict = attempt.verdict
            became = "no verdict" if verdict is None else "passed" if verdict.passed else "failed"
            head = f"{attempt.problem.id}: {became}, {len(attempt.own(attempt.response_ids))} tokens"
            self.say(f"  [bold]{escape(printable(head))}[/]")
            for line in clip(attempt.response):
                self.say(f"    {escape(line)}")
            name = re.sub(r"[^\w.-]", "_", attempt.problem.id)
            self.text(step, f"responses/{name}.txt", f"{head}\n\n{attempt.response}")

    def forgetting(self, step: int, task: str, values: Mapping[str, float]) -> None:
        """The metrics of a second task, and one line of the console."""
        self.metrics(step, "forgetting", values)
        facts = []
        for name in ("per_task", "per_case", *(("reward",) if graded(values) else ())):
            mean = next(v for k, v in values.items() if k.startswith(f"forgetting/{name}/mean@"))
            facts.append(f"{name.removeprefix('per_')} {100 * mean:.1f}%")
            if f"forgetting/{name}/change" in values:
                change, low, high = (
                    100 * values[f"forgetting/{name}/{k}"] for k in ("change", "change_low", "change_high")
                )
                facts[-1] += f" ({change:+.1f}, 95 % interval {low:+.1f} to {high:+.1f})"
        self.say(f"[bold]{escape(task)} after update {step}[/]  {'  '.join(facts)}")

    def accuracy(self, evaluations: Mapping[int, Mapping[str, float]], best: int | None) -> None:
        """A table of evaluations by update."""
        table = Table(title="accuracy on the test split (%)", title_justify="left")
        table.add_column("metric")
        for step in evaluations:
            table.add_column(f"update {step}" + (" (best)" if step == best else ""), justify="right")
        measured = (name for metrics in evaluations.values() for name in metrics)
        names = dict.fromkeys(name for name in measured if name.startswith("eval/") and "@" in name)
        if not any(map(graded, evaluations.values())):
            names = dict.fromkeys(name for name in names if not is_reward(name))
        for name in names:
            values = (metrics.get(name) for metrics in evaluations.values())  # a score may be younger than the run
            texts = ["–" if value is None else f"{100 * value:.2f}" for value in values]
            table.add_row(escape(name.removeprefix("eval/")), *texts)
        self.console.print(table)

    def matrix(self, found: Matrix) -> None:
        """The forgetting matrix of a sequence of tasks."""
        table = Table(
            title=f"tasks solved of each part, mean@{found.samples} (%)\nand the change since its own block ended "
            "(95 % interval)",
            title_justify="left",
        )
        table.add_column("")
        table.add_column("update", justify="right")
        for part in found.parts:
            table.add_column(escape(part), justify="right")
        for row in found.rows:
            cells = [f"[bold]{shown(cell)}[/]" if cell.own else shown(cell) for cell in row.cells]
            table.add_row(escape(title(row)), str(row.step), *cells)
        self.console.print(table)
        if found.transfer:
            self.say(f"backward transfer, the mean of the last changes: {told(found.transfer)}")

    def say(self, text: str) -> None:
        """A line for people, in rich's markup: what is not ours must come escaped. What a console lacks is spelled."""
        encoding = self.console.encoding
        self.console.print(text.encode(encoding, "backslashreplace").decode(encoding))

    @contextmanager
    def progress(self, phase: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar that the yielded callable advances by one, and beside it how far the run is."""
        if not self.bars:
            yield lambda: None
            return
        bar = (TextColumn(f"  {phase:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        columns = (*bar, TextColumn(f"[dim]{self.pace}[/]"))
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(phase, total=total)
            yield lambda: bars.advance(task)

    def close(self, ok: bool = True) -> None:
        """`ok` is whether the run ended in order."""
        if self.board is not None:
            self.board.close()
        if self.tracking is not None:
            self.tracking.close(ok)


def clip(text: str) -> list[str]:
    """The first lines of a text, with … where something is missing."""
    lines = [printable(line) for line in text.splitlines() if line.strip()]
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines[:LINES]]
    return [*shown, "…"] if len(lines) > LINES else shown


def printable(text: str) -> str:
    """What a model wrote can move no cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
