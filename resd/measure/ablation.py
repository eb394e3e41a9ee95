"""A library judged under many sets of its entries, and what follows for each entry (`resd.measure.worth`).

    python -m resd.evaluate checkpoint=resd/model/nano task=manufactoria library=RUN/playbook.jsonl \
        worth=80 left_out=0.1 samples=1 evaluation.limit=48 out=RUN

Every set is one evaluation with the same problems and seeds, in one engine, so a set that comes again is not judged
again; sets are not mixed, so that a batch shares the beginning of its prompts. `out` gets `worth.json`, written after
every set: repeated, the command goes on there, and the report of a run directory shows it. Beside the worth stand the
tags of the playbook, and whether they rank the entries as the measurement does. Where nothing can be said, a sentence
under `notes` says why.

Not covered: the order of entries, and libraries of several runs at once.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resd import dist, files
from resd.context import library as libraries
from resd.context.playbook import Playbook
from resd.measure.evaluation import evaluate, limited, scores
from resd.measure.forgetting import means
from resd.measure.worth import draw, rank_correlation, worth
from resd.observe.run import Run
from resd.report.read import WORTH
from resd.settings import EvaluationSettings, LibrarySettings
from resd.types import Problem, UserError

SAMPLED = {"samples", "limit", "temperature", "top_p"}  # of `evaluation`, what scores depend on


def ablate(
    run: Run,
    problems: Sequence[Problem],
    evaluation: EvaluationSettings,
    library: Playbook,
    settings: LibrarySettings,
    asked: Mapping[str, Any],
    out: Path | None,
) -> dict[str, Any]:
    """What `worth.json` holds: `settings`, `problems`, `sets`, and, of a finished measurement, `entries`, `tags`,
    `notes`.

    `asked` is what else the scores depend on. Raises UserError for fewer than two problems, and if the file under `out`
    is about something else.
    """
    assert settings.worth is not None
    chosen = limited(problems, evaluation.limit)
    if len(chosen) < 2:
        raise UserError(
            f"worth={settings.worth} needs two problems, and there is {len(chosen) or 'none'}: "
            "raise evaluation.limit, or choose a task with a test split"
        )
    told_S_E = draw(len(library), settings.worth, settings.left_out, run.seed)
    began: dict[str, Any] = {
        "settings": {**asked, **settings.model_dump(exclude={"library", "cap"})},  # which are in the entries
        "library": [{name: entry[name] for name in _SHOWN} for entry in library.state_dict()["entries"]],
        "problems": [problem.id for problem in chosen],
        "sets": [],
    }
    file = None if out is None else out / WORTH
    record = dist.on_first(lambda: _gone_on_with(file, began))
    for number in range(len(record["sets"]), len(told_S_E)):
        ids = [e.id for e, in_sight in zip(library.entries, told_S_E[number], strict=True) if in_sight]
        judged = next((of for of in record["sets"] if of["told"] == ids), None)
        if judged is None:
            told = libraries.told(run.task.prompt, libraries.part(library, ids), settings.placement, run.prompts)
            metrics, attempts = evaluate(run.speech, chosen, evaluation, run.sampling, told)
            by_problem = means(scores(attempts)[settings.outcome])
            lost = {name: int(metrics[f"eval/{name}"]) for name in ("too_long", "lost")}
            judged = {"told": ids, "scores": [by_problem[problem.id] for problem in chosen], **lost}
        record["sets"].append(judged)
        run.speech.log.say(
            f"set {number + 1}/{len(told_S_E)}  told {len(ids)} of {len(library)}  "
            f"{settings.outcome} {100 * np.mean(judged['scores']):.1f}%"
        )
        if number + 1 == len(told_S_E):
            record |= conclusion(record)
        if file is not None and dist.first():
            files.replace(file, json.dumps(record))
    return record


_SHOWN = ("id", "section", "text", "helpful", "harmful")


def _gone_on_with(file: Path | None, began: dict[str, Any]) -> dict[str, Any]:
    """What is in the file already, or `began`."""
    if file is None or not file.exists():
        return began
    try:
        found = json.loads(file.read_text("utf-8"))
        same = isinstance(found["sets"], list)
        same &= all(found[name] == began[name] for name in ("settings", "library", "problems"))
    except (ValueError, KeyError, TypeError, OSError):
        same = False
    if not same:
        raise UserError(f"{file} is about other entries, settings or problems: choose another out, or move it away")
    return dict(found)


def conclusion(record: Mapping[str, Any]) -> dict[str, Any]:
    """`entries`, best first, with `worth`, `low` and `high`; `tags`: their rank correlation with it; `notes`."""
    library, sets = record["library"], record["sets"]
    told_S_E = np.array([[entry["id"] in of["told"] for entry in library] for of in sets])
    scores_S_P = np.array([of["scores"] for of in sets], dtype=float)
    worth_E, half_E = worth(told_S_E, scores_S_P)
    tags_E = np.array([entry["helpful"] - entry["harmful"] for entry in library], dtype=float)
    found = rank_correlation(worth_E, tags_E) if np.isfinite(half_E).all() else None
    entries = [
        entry | {"worth": float(value), "low": _finite(value - half), "high": _finite(value + half)}
        for entry, value, half in zip(library, worth_E, half_E, strict=True)
    ]
    return {
        "entries": sorted(entries, key=lambda entry: -entry["worth"]),
        "tags": dict(zip(("correlation", "low", "high"), found or (None,) * 3, strict=True)),
        "notes": _notes(record, scores_S_P.mean(axis=1), tags_E),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _notes(record: Mapping[str, Any], accuracy_S: np.ndarray, tags_E: np.ndarray) -> list[str]:
    found, sets = [], record["sets"]
    nothing = int((accuracy_S == 0).sum())
    if len({tuple(of["scores"]) for of in sets}) == 1:
        found.append("All sets of entries scored the same on every problem, so nothing can be said of any entry.")
    if nothing > len(sets) / 2:
        found.append(
            f"{nothing} of {len(sets)} sets scored nothing, so intervals rest on few of them: where entries need most "
            "others to do anything, a smaller left_out says more."
        )
    if len(tags_E) < 4:
        found.append(f"A rank correlation with the tags wants four entries, and there are {len(tags_E)}.")
    elif len(set(tags_E)) == 1:
        found.append(
            "Nothing can be said of the tags: no entry has any."
            if not any(entry["helpful"] + entry["harmful"] for entry in record["library"])
            else "Nothing can be said of the tags: helpful less harmful is the same for every entry."
        )
    for name, what in (("lost", "answers have no verdict"), ("too_long", "prompts are beyond rollout.max_prompt")):
        if count := sum(of[name] for of in sets):
            found.append(f"{count} {what}, and count as failed.")
    return found


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The conclusion as numbers by name, `worth/ID`, `worth/ID/low`, …, `worth/tags/correlation`; no unknown ones."""
    named = {f"worth/{entry['id']}": entry["worth"] for entry in record["entries"]}
    named |= {f"worth/{entry['id']}/{end}": entry[end] for entry in record["entries"] for end in ("low", "high")}
    named |= {f"worth/tags/{name}": value for name, value in record["tags"].items()}
    return {name: value for name, value in named.items() if value is not None}
