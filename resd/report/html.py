"""One self-contained HTML file about one or more runs: tables, curves, test answers, playbook, attempts, one trace.

    python -m resd.report RUN [RUN …] --out report.html

The page loads nothing: style, script and data are inside it, and its content security policy forbids the rest. Tables
and bars are written here; the scripts of this folder draw the other parts from the data embedded as compressed JSON.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resd import __version__
from resd.report.groups import (
    Estimate,
    Group,
    best,
    checkpoints,
    differing,
    group_runs,
    otherwise,
    plain,
    score_names,
)
from resd.report.matrix import told
from resd.report.payload import packed, payload
from resd.report.read import PHASES, RunRecord, read_runs
from resd.report.worth import WIDTH, drawn, honesty, summary
from resd.types import UserError

HERE = Path(__file__).parent
SCRIPTS = (
    *("dom", "view", "download", "health", "chart", "series", "curves", "tests", "playbook", "edition", "attempt"),
    *("attempts", "trace", "main"),
)
ATTEMPTS_BYTES = 6_000_000
ANSWERS_BYTES = 3_000_000
# Models whose numbers must not be taken for more than they are.
LABORATORY = {
    "nano": "nano is this project's laboratory model, a few million parameters pretrained for this task: "
    "its numbers show how the methods behave and claim nothing about large models."
}


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    title: str = "resd report",
    across: Sequence[str] = (),
    attempts_bytes: int = ATTEMPTS_BYTES,
    answers_bytes: int = ANSWERS_BYTES,
) -> int:
    """Write the page about the runs in `paths`; returns its size in bytes. `across`: see `group_runs`.

    About `attempts_bytes` bytes of attempts, compressed, are embedded at most, from updates spread over each run, and
    `answers_bytes` of answers to test problems; the page says what is missing. Raises UserError if a path is not a run
    directory, or what the disk refuses.
    """
    groups = group_runs(read_runs(paths), across)
    text = render(groups, title=title, attempts_bytes=attempts_bytes, answers_bytes=answers_bytes)
    page = text.encode("utf-8", "replace")  # a folder may have any name
    try:
        out.write_bytes(page)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    return len(page)


def policy(*, live: bool) -> str:
    """The content security policy of the page: it loads nothing, a live one itself and its events."""
    everything = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return f"{everything}; connect-src 'self'" if live else everything


def render(groups: Sequence[Group], *, title: str, attempts_bytes: int, answers_bytes: int, version: str = "") -> str:
    """The page as text. One with a `version` is served, and asks the server for newer ones."""
    names = score_names(groups)
    settings = [group.settings for group in groups if group.settings]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "span": span, "plain": plain, "duration": duration, "told": told}
    return environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        methods=[_method(group, names) for group in groups],
        scores=[_title(name) for name in names[::2]],
        several_seeds=any(len(group.runs) > 1 for group in groups),
        samples=sorted({group.samples for group in groups if group.samples}),
        phases=PHASES,
        notes=notes(groups),
        worths=[_worth(run.worth, run.named(group.label)) for group in groups for run in group.runs if run.worth],
        width=WIDTH,
        matrices=[(run.named(group.label), found) for group in groups for run in group.runs if (found := run.matrix)],
        settings=[(key, [s.get(key, "–") for s in settings]) for key in differing(settings)],
        style=(HERE / "page.css").read_text("utf-8"),
        script="\n".join(
            (HERE / f"{name}.js").read_text("utf-8") for name in (*SCRIPTS, *(["live"] if version else []))
        ),
        live=version,
        policy=policy(live=bool(version)),
        data=packed(payload(groups, attempts_bytes, answers_bytes)),
    )


def _method(group: Group, names: Sequence[str]) -> dict[str, Any]:
    """What the template shows of a group."""
    seeds = ", ".join(str(seed) for seed in group.seeds if seed is not None)
    model = Path(str(group.settings.get("model.path", ""))).name
    facts = (model, group.settings.get("task.name"), seeds and f"seed{'s' * (len(group.runs) > 1)} {seeds}")
    seconds = step_seconds(group)
    return {
        "group": group,
        "facts": " · ".join(str(fact) for fact in facts if fact),
        "checkpoints": checkpoints(group, names),
        "seconds": seconds,
        "total": sum(seconds.values()),
        "histograms": [found for run in group.runs if (found := histogram(run))],
    }


def _worth(weighed: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the template shows of what entries are worth."""
    notes = [honesty(weighed), *weighed["notes"]]
    return {"name": name, "lead": summary(weighed), "notes": notes, "entries": drawn(weighed["entries"])}


def _title(name: str) -> str:
    """`Per task`, `Reward`, `Reward: exact`, of the name of a metric."""
    first, *judge = name.split("/")[1:-1]
    return ": ".join([first.replace("_", " ").capitalize(), *judge])


def notes(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before believing the numbers."""
    models = dict.fromkeys(Path(str(group.settings.get("model.path", ""))).name for group in groups)
    found = [LABORATORY[model] for model in models if model in LABORATORY]
    for group in groups:
        if len(set(map(str, group.seeds))) < len(group.runs):
            found.append(f"{group.label}: a seed occurs more than once, so its interval is too narrow.")
        made = [max(run.timeline.steps, default=0) for run in group.runs]
        wanted = group.settings.get("steps") or max(made)
        counts = f"its runs have made {', '.join(map(str, made))} of {wanted} updates"
        patience = group.settings.get("evaluation.patience")
        short = [run for run, count in zip(group.runs, made, strict=True) if count < wanted]
        if any(not patience or sum(step > best(run) for step in run.evaluations) < patience for run in short):
            found.append(f"{group.label}: unfinished, {counts}.")
        elif short:
            found.append(f"{group.label}: {counts}, and ended without a new best (evaluation.patience={patience}).")
        for run in group.runs:
            if steps := otherwise(run):
                found.append(
                    f"{run.named(group.label)}: its evaluations after updates {', '.join(map(str, steps))} were asked "
                    "otherwise than the last one (other problems, samples or sampling), and do not compare with it."
                )
    if len({(group.settings.get("evaluation.limit"), group.samples) for group in groups if group.settings}) > 1:
        found.append("The methods were not evaluated on the same number of problems and samples.")
    return found


def step_seconds(group: Group) -> dict[str, float]:
    """Mean seconds of an update by phase, over all updates of all runs of the group; phases it never had are absent."""
    updates = [row for run in group.runs for row in run.rows if row["kind"] == "train"]
    means = {p: sum(row.get(f"time/{p}", 0.0) for row in updates) / max(1, len(updates)) for p in PHASES}
    return {phase: seconds for phase, seconds in means.items() if seconds > 0}


def histogram(run: RunRecord) -> list[int] | None:
    """Number of problems of which 0, 1, … samples passed, from the attempts of `resd.evaluate`; None without them."""
    passed: dict[str, list[bool]] = defaultdict(list)
    for attempt in run.attempts(0):
        passed[str(attempt.get("problem"))].append(bool((attempt.get("verdict") or {}).get("passed")))
    if not passed:
        return None
    problems = [0] * (max(map(len, passed.values())) + 1)
    for outcomes in passed.values():
        problems[sum(outcomes)] += 1
    return problems


def percent(value: Estimate | None) -> str:
    """`1.6 ± 0.4`; a dash if unknown."""
    if value is None:
        return "–"
    return f"{100 * value.mean:.1f}" + ("" if value.half is None else f" ± {100 * value.half:.1f}")


def span(values: Sequence[float]) -> str:
    """`1,024`, or `640 to 1,024` if they are not the same."""
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def duration(seconds: float) -> str:
    """Two significant digits, milliseconds below a tenth of a second."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
