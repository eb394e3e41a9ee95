"""A model card: what a run directory knows about one of its checkpoints, as the `README.md` of a model on the hub.

Its numbers are those of `metrics.jsonl`, also in the YAML at its head. Folders and addresses of the machine are left
out: a base model that was a folder is called by the folder's name. Not covered: the licence, but for one that a card in
the base model's folder states.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resd.report.groups import group_runs, plain, score_names
from resd.report.html import LABORATORY
from resd.report.markdown import cell, table
from resd.report.ranking import alike, samples
from resd.report.read import RunRecord
from resd.word import flat

NAME = "README.md"
PLAYBOOK = "playbook.md"
TEMPLATE = Path(__file__).parent / "card.md.j2"
SHIPPED = "resd/model/nano"
FILES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".py", ".gguf", ".safetensors")
# Settings that are shown, with all that is in them; the rest is in `resd.yaml`.
SHOWN = (
    *("task.options", "steps", "seed", "batch_size", "inner_updates", "algorithm.group", "algorithm.objective"),
    *("algorithm.policy_gradient", "algorithm.teacher.kind", "algorithm.teacher.rate"),
    *("algorithm.playbook.max_entries", "optimizer.lr", "optimizer.schedule", "optimizer.warmup", "loss.reduction"),
    *("model.prompts", "model.enable_thinking", "model.lora", "rollout", "engine.name", "hardware.dtype"),
)


def card(
    run: RunRecord,
    config: Mapping[str, Any],
    step: int,
    *,
    base: str | None = None,
    papers: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    laboratory: bool = False,
) -> str:
    """The card of the weights after update `step`, trained with `config`.

    base: the base model's name on the hub; None: what `model.path` says, if that is such a name
    papers: arXiv numbers of the algorithm
    laboratory: whether this is a model like nano, whose numbers must not be taken for more than they are
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # most of a second

    settings = flat(config)
    path = str(settings["model.path"])
    base = base or (path if on_hub(path, run.path) else None)
    task, algorithm, second = (
        _plain_name(settings.get(f"{key}.name", "")) for key in ("task", "algorithm", "forgetting.task")
    )
    name = "-".join([Path(base or path).name, algorithm, task])
    licence = _licence(Path(path))
    evaluations = run.evaluations
    there = evaluations.get(step, {})
    columns = _columns(run, step, evaluations)
    names = _scores(run, [there, *columns.values()])
    results = [
        EvalResult("text-generation", task, task, _short(each), there[each], dataset_split="test")
        for each in names
        if there.get(each) is not None
    ]
    data = ModelCardData(
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=licence,
        datasets=source if on_hub(source := str(settings.get("task.options.source")), run.path) else None,
        tags=["resd", algorithm, task],
        model_name=name if results else None,
        eval_results=results or None,
    )
    forgetting = {row["step"]: row for row in run.rows if row["kind"] == "forgetting"}
    kept = [each for each in next(iter(forgetting.values()), {}) if re.search(r"/(mean|best)@", each)]
    found = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        base=f"[{base}](https://huggingface.co/{base})" if base else f"`{Path(path).name}`",
        task=task,
        algorithm=algorithm,
        papers=papers,
        step=step,
        steps=settings.get("steps"),
        adapter="model.lora.rank" in settings,
        playbook=(run.path / PLAYBOOK).is_file(),
        evaluation=_table("metric", columns, names),
        evaluated=step in evaluations,
        asked=_asked(run, step, settings),
        second=second if forgetting else None,
        forgetting=_table("metric", _columns(run, step, forgetting), kept),
        settings=_settings(settings, run.path),
        versions=versions,
        place=SHIPPED if path.endswith(SHIPPED) else None if path == base else base or "BASE",
        limits=list(_limits(run, step, laboratory, forgetting and second, licence)),
    )
    return f"{str(found).rstrip()}\n"


def on_hub(name: str, run: Path) -> bool:
    """Whether this reads like OWNER/NAME, is no name of a file, and nothing here or above the run is called so."""
    reads = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not name.endswith(FILES)
    return reads and not any((folder / name).exists() for folder in (Path(), *run.resolve().parents))


def _public(value: Any, run: Path) -> str | None:
    """A setting as it may be read by all: of what is a path its last name, of an address nothing."""
    text = plain(value)
    if not isinstance(value, str) or on_hub(value, run):
        return text
    if "://" in text:
        return None
    path = text.startswith(("/", "~", ".", "\\")) or text[1:3] == ":\\" or not re.search(r"\s", text)
    return re.split(r"[/\\]", text)[-1] if path else text


def _plain_name(name: str) -> str:
    """A task or an algorithm of a user's own is `file.py:Name`."""
    return re.sub(r"[^\w.-]+", "-", name)


def _licence(folder: Path) -> str | None:
    from huggingface_hub import ModelCard

    try:
        found = ModelCard.load(folder / NAME).data.license if (folder / NAME).is_file() else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _scores(run: RunRecord, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The scores that are shown of these evaluations; the best of one answer is not."""
    counts = dict.fromkeys(n for row in rows if (n := samples(row)))
    names = (name.format(n=n) for n in counts for name in score_names(group_runs([run])))
    return [name for name in names if not name.endswith("/best@1")]


def _short(name: str) -> str:
    return name.partition("/")[2]


def _columns(run: RunRecord, step: int, rows: Mapping[int, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Before training, these weights, the best and the last, as far as there are rows of them. What was not asked like
    these weights says so."""
    marks = {"before": 0, "these weights": step, "best": run.kept_best, "last": max(rows, default=0) or None}
    shown = sorted({mark for mark in marks.values() if mark in rows and mark is not None})
    told = {each: ", ".join(name for name, mark in marks.items() if mark == each) for each in shown}
    told |= {
        each: f"{told[each]}; asked otherwise" for each in shown if not alike(rows[each], rows.get(step, rows[each]))
    }
    return {f"update {each} ({told[each]})": rows[each] for each in shown}


def _table(first: str, columns: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    """Shares in percent, a line a metric; nothing without columns."""
    lines = []
    for name in names:
        values = [row.get(name) for row in columns.values()]
        lines.append([cell(_short(name)), *("–" if value is None else f"{100 * value:.2f}" for value in values)])
    return table([first, *columns], lines, numbers=True) if columns else ""


def _settings(settings: Mapping[str, Any], run: Path) -> str:
    lines = []
    for name in SHOWN:
        for key, value in settings.items():
            if value is not None and (key == name or key.startswith(f"{name}.")):
                texts = [_public(each, run) for each in (value if isinstance(value, list) else [value])]
                if None not in texts:
                    lines.append([f"`{key}`", cell(", ".join(map(str, texts)))])
    return table(["setting", "value"], lines)


def _asked(run: RunRecord, step: int, settings: Mapping[str, Any]) -> str:
    """How many problems, how many answers, and how they were sampled."""
    steps = run.kept_steps("evaluations")
    answers = run.kept("evaluations", step if step in steps else steps[-1]) if steps else []
    problems = len({row.get("problem") for row in answers}) if steps else settings.get("evaluation.limit")
    sampled = ", ".join(
        f"`{key}={plain(settings[key])}`"
        for key in ("evaluation.temperature", "evaluation.top_p", "rollout.max_response")
        if key in settings
    )
    count = samples(run.evaluations.get(step, {})) or run.samples
    return f"{problems or 'all'} problem(s), {count} answer(s) to each, {sampled}"


def _limits(run: RunRecord, step: int, laboratory: bool, second: Any, licence: str | None) -> Iterable[str]:
    """What a reader must know before believing the numbers."""
    if laboratory:
        yield LABORATORY["nano"]
    if run.evaluations:
        also = f", and `{second}`" if second else ""
        yield (
            f"What was measured is that test split{also}, asked in that way, and nothing else: neither what "
            "became of other abilities of the base model, nor safety."
        )
    trained = [each for each in run.evaluations if each > 0]
    if step == run.kept_best and len(trained) > 1:
        yield (
            f"These weights are the best of {len(trained)} evaluations on the very problems above, which flatters "
            "their numbers."
        )
    if trained and 0 not in run.evaluations:
        yield "The base model was not evaluated: what training has changed is not known."
    yield "This is one run with one seed; what another would give is not known."
    if licence is None:
        yield "No licence is stated here; that of the base model holds for what was made of it."
