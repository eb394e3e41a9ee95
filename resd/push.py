"""A checkpoint for others: its model folder with a card, and the way to the Hugging Face hub.

    python -m resd.push RUN                        # a folder beside the checkpoints; nothing leaves this machine
    python -m resd.push RUN --to OWNER/NAME        # and to the hub

A checkpoint is never written to, for it would be damaged (`resd.storage.manifest`): the folder has copies of its files,
and a second name for the weights, which take no room. What is in the folder already stays, so that a card can be
changed by hand and pushed. Not covered: data sets, and deleting what a model on the hub has besides.
"""

import filecmp
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from resd import __version__, algorithms, files
from resd.arguments import Parser
from resd.config import NANO
from resd.model.files import alike
from resd.report.card import NAME, PLAYBOOK, card
from resd.report.ranking import best_step
from resd.report.read import RunRecord, read_run
from resd.storage import manifest
from resd.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 after one sentence on standard error."""
    parser = Parser(prog="python -m resd.push", description="A checkpoint with a model card, for the Hugging Face hub.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--to", metavar="OWNER/NAME", help="push it to this model on the hub; else nothing is sent")
    parser.add_argument("--private", action="store_true", help="nobody else may see that model")
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or the number of an update")
    parser.add_argument("--base", metavar="OWNER/NAME", help="the base model on the hub, if model.path was a folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/push/step_N")
    words = sys.argv[1:] if arguments is None else arguments
    try:
        chosen, others = parser.parse(words)
        if others:
            raise UserError(f"push takes one run, not {others[0]} as well")
        for option, name in (("--to", chosen.to), ("--base", chosen.base)):
            check_name(option, name)
        if chosen.private and chosen.to is None:
            raise UserError("--private is about what is pushed: write --to OWNER/NAME, or leave it out")
        run = read_run(chosen.run)
        checkpoint = find(run, chosen.checkpoint)
        folder = chosen.out or run.path / "push" / checkpoint.name
        for line in write(run, checkpoint, folder, chosen.base):
            print(line)
        if chosen.to is None:
            print(f"read {NAME}, and resd.yaml, which names folders of this machine")
            print(f"then push them with: {_again(words)} --to OWNER/NAME")
        else:
            print(upload(folder, chosen.to, chosen.private, f"{folder} is kept, go on with: {_again(words)}"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _again(words: Sequence[str]) -> str:
    return f"python -m resd.push {shlex.join(words)}"


def check_name(option: str, name: str | None) -> None:
    """Raises UserError unless this can be a model on the hub."""
    if name is None:
        return
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
        right = name.count("/") == 1
    except HFValidationError:
        right = False
    if not right:
        raise UserError(
            f"{option}={name} is no name of a model on the hub: write OWNER/NAME, of letters, digits and single -_."
        )


def find(run: RunRecord, which: str) -> Path:
    """The checkpoint that `which` means. Raises UserError if there is none, or none that is whole and has weights."""
    there = files.numbered(run.path / "checkpoints")
    if not there:
        raise UserError(f"{run.path} has no checkpoint: go on with the run until it has saved one (checkpoints.every)")
    best = best_step(run.evaluations) if run.kept_best is None else run.kept_best
    named = {"best": best, "last": max(there)}
    step = int(which) if which.isdecimal() else named.get(which, -1)
    if step not in there:
        raise UserError(f"--checkpoint={which} is not there: choose best, last or one of {', '.join(map(str, there))}")
    checkpoint = there[step]
    if not (checkpoint / "model").is_dir():
        raise UserError(f"{checkpoint} has no weights, for none are trained: what was learned is {run.path / PLAYBOOK}")
    if (why := manifest.model_damage(checkpoint)) is not None:
        raise UserError(f"{checkpoint} is damaged ({why}): choose another --checkpoint")
    return checkpoint


def write(run: RunRecord, checkpoint: Path, folder: Path, base: str | None = None) -> list[str]:
    """Make the folder; what is to be said of it. Raises UserError where it cannot be, or holds another model."""
    from resd.evaluate import trained_settings

    config = trained_settings(checkpoint / "model")
    if config is None:
        raise UserError(f"{run.path} has no config.yaml, which says what was trained: restore it")
    step = int(checkpoint.name.removeprefix("step_"))
    sources = sorted((checkpoint / "model").iterdir())
    _check_out(run, folder, sources)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            _place(source, folder / source.name)
        files.copy(run.path / PLAYBOOK, folder / PLAYBOOK)
        if (folder / NAME).exists():
            return [
                f"{folder} is the model after update {step}; its {NAME} was there, and stays: remove it for a new one"
            ]
        text = card(
            run,
            config,
            step,
            base=base,
            papers=algorithms.papers(config["algorithm"]),
            versions=_versions(checkpoint),
            laboratory=alike(folder, NANO),
        )
        files.replace(folder / NAME, text)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({files.reason(error)}): choose another --out") from None
    return [f"{folder} is the model after update {step}, with a card ({NAME})"]


def _check_out(run: RunRecord, folder: Path, sources: Sequence[Path]) -> None:
    """Raises UserError for a folder whose other contents would be pushed, and for a checkpoint's own."""
    if (run.path / "checkpoints").resolve() in folder.resolve().parents:
        raise UserError(f"--out={folder} is a checkpoint, which nothing else may be written to: choose another --out")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and not there & {source.name for source in sources}:
        raise UserError(f"--out={folder} holds something else, which would be pushed too: choose a new folder")


def _place(source: Path, target: Path) -> None:
    """A copy, or a second name for weights; what is there stays, unless it is the weights of another model."""
    if source.suffix != ".safetensors":
        files.copy(source, target)
    elif not target.exists():
        try:
            os.link(source, target)
        except OSError:  # another disk
            files.copy(source, target)
    elif not (target.samefile(source) or filecmp.cmp(source, target, shallow=False)):
        raise UserError(f"--out={target.parent} holds another model: remove it, or choose another --out")


def _versions(checkpoint: Path) -> dict[str, str] | None:
    """Of the run that saved it; None if they were not noted yet."""
    try:
        return dict(json.loads((checkpoint / "state" / "run.json").read_bytes())["versions"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def upload(folder: Path, to: str, private: bool, later: str) -> str:
    """Push the folder; its address. Raises UserError that ends with `later`."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline_mode():
        raise UserError(f"HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE keeps this process from the hub: unset it; {later}")
    if get_token() is None:
        raise UserError(f"there is no token for the hub: run hf auth login, or set HF_TOKEN; {later}")
    api = HfApi(library_name="resd", library_version=__version__)
    try:
        address = api.create_repo(to, private=private or None, exist_ok=True)
        if private and not api.model_info(to).private:
            raise UserError(f"{to} is there already, and everybody can see it: choose another --to; {later}")
        api.upload_folder(repo_id=to, folder_path=folder, commit_message="Upload by resd", ignore_patterns=[".*"])
    except UserError:
        raise
    except Exception as error:  # hub, HTTP library and storage have one for every kind of failure
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status == 401:
            why = "the hub does not know this token: run hf auth login, or set HF_TOKEN"
        elif status == 403:
            why = f"this token may not write to {to}: choose another --to, or a token that may"
        else:
            why = f"{to} cannot be pushed to {api.endpoint} ({files.reason(error)}): try again when it can be reached"
        raise UserError(f"{why}; {later}") from None
    return str(address)


if __name__ == "__main__":
    sys.exit(main())
