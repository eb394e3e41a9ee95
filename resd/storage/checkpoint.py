"""Checkpoints: what can be loaded (`model/`, a Hugging Face folder) and what can be continued (`state/`).

A checkpoint is written beside the training loop into a hidden folder and renamed when it is whole, so that a kill at
any moment leaves only whole ones; `manifest.json`, its last file, has the checksums that resuming compares. `state/`
has student, optimizer and teacher shards (torch DCP, float32) and `run.json`: playbook, solutions, counters, which are
all of it where nothing is trained. Random state and the stream's cursor are functions of the update's number. All ranks
must see the same file system.
"""

import copy
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from transformers.core_model_loading import revert_weight_conversion

from resd import __version__, again, dist, files
from resd.learn.learner import Learner
from resd.model.chat import Chat
from resd.model.lora import weights
from resd.model.shard import full_tensors, reshard
from resd.storage import manifest
from resd.storage.shards import ShardPlanner, ShardReader, read_metadata
from resd.types import UserError

FORMAT = 2  # since then a checkpoint has a manifest
SETTINGS = "resd.yaml"  # in `model/`: the run's configuration, which a copied or moved model keeps


class Checkpoints:
    """The folder `checkpoints/` of a run and the link `best`.

    `settings` is the run's configuration as YAML; `say` tells people something at once. The latest one that is not
    after `spared` stays, however many follow, and so does the `best` one of the state that is saved.
    """

    spared: int | None = None

    def __init__(
        self, run_dir: Path, *, keep: int, dtype: torch.dtype, settings: str, say: Callable[[str], None]
    ) -> None:
        self.run_dir = run_dir
        self.say = say
        self.root = run_dir / "checkpoints"
        self.keep = keep
        self.dtype = dtype
        self.settings = settings
        self.group = torch_dist.new_group(backend="gloo")  # its own, since saving overlaps with training
        self.thread = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None

    def save(self, step: int, learner: Learner | None, chat: Chat, run: Mapping[str, Any]) -> None:
        """Start saving; returns once nothing that training changes is needed any more. Collective."""
        self.wait()
        weighs = learner is not None
        record = json.dumps({"step": step, "format": FORMAT, "versions": versions(), "weights": weighs, **run})
        part = self.root / f".step_{step:06d}"
        if dist.first():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
        dist.barrier()
        if learner is None:
            self.pending = self.thread.submit(self._finish, step, part, None, {}, None, chat, record)
            return
        weights = {name: w.to("cpu", self.dtype, copy=True) for name, w in full_tensors(learner.policy) if dist.first()}
        sharded = dcp.async_save(_state(learner), checkpoint_id=part / "state", process_group=self.group)
        self.pending = self.thread.submit(self._finish, step, part, sharded, weights, learner, chat, record)

    def _finish(
        self,
        step: int,
        part: Path,
        sharded: Any,
        weights: dict[str, Tensor],
        learner: Learner | None,
        chat: Chat,
        record: str,
    ) -> None:
        try:
            if sharded is not None:
                sharded.result()  # on rank 0 this means that all ranks have written
            if not dist.first():
                return
            (part / "state").mkdir(exist_ok=True)
            if learner is not None:
                write_model(part / "model", weights, learner.policy.lm, chat)
                files.replace(part / "model" / SETTINGS, self.settings)
            files.replace(part / "state" / "run.json", record)
            manifest.write(part)
            files.sync_tree(part)
            for name in ("metrics.jsonl", "playbook.jsonl"):
                files.sync(self.run_dir / name)  # a resumed run does not write again what comes before a checkpoint
            final = self.root / f"step_{step:06d}"
            if final.exists() or final.is_symlink():
                files.move_aside(final, self.run_dir / "abandoned")
            part.rename(final)
            files.sync(self.root)
            self._prune(json.loads(record)["best"])
        except BaseException as error:
            why = _storage_fault(error)
            if why is None:
                raise
            told = (
                f"the checkpoint of update {step} could not be written to {self.root} ({why}): make room or mend this; "
                f"{self._kept()} go on with: {again.command(self.run_dir)}"
            )
            self.say(f"{told}; stopping after this update")
            raise UserError(told) from error

    def _kept(self) -> str:
        whole = list(files.numbered(self.root))
        return f"everything up to update {whole[-1]} is kept:" if whole else "nothing was saved before it:"

    def _prune(self, best: int | None) -> None:
        """Keep the latest ones, the best and the spared one."""
        self.link_best(best)
        steps = list(files.numbered(self.root))
        spared = max((step for step in steps if self.spared is not None and step <= self.spared), default=None)
        for step in steps[: -self.keep]:
            if step not in (best, spared):
                shutil.rmtree(self.root / f"step_{step:06d}")

    def link_best(self, best: int | None) -> int | None:
        """Point the link `best` to the checkpoint of that update, or to the latest if there is none; returns which."""
        steps = list(files.numbered(self.root))
        if not steps:
            return None
        best = best if best in steps else steps[-1]
        link, new = self.run_dir / "best", self.run_dir / ".best"
        new.unlink(missing_ok=True)
        new.symlink_to(Path("checkpoints") / f"step_{best:06d}", target_is_directory=True)
        if link.exists() and not link.is_symlink():  # a copied run
            files.move_aside(link, self.run_dir / "abandoned")
        new.replace(link)
        return best

    def check(self) -> None:
        """Raises what went wrong in the save that is under way, as soon as any rank knows it. Collective."""
        mine = None
        if self.pending is not None and self.pending.done() and self.pending.exception() is not None:
            mine = str(self.pending.exception())
        told = next((why for why in dist.gather({dist.rank(): mine}).values() if why is not None), None)
        if mine is not None:
            self.wait()
        if told is not None:
            raise UserError(told)

    @property
    def busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def wait(self) -> None:
        """Block until the last save is whole; raises what went wrong in it."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self.thread.shutdown()


def _storage_fault(error: BaseException) -> str | None:
    """What the file system said, or None if it was something else."""
    if isinstance(error, dcp.api.CheckpointException):
        return next((why for cause, _ in error.failures.values() if (why := _storage_fault(cause))), None)
    if isinstance(error, OSError):
        return files.reason(error)
    if "inline_container" in str(error):
        return "a file could not be written whole, as when the disk is full"  # torch does not pass on why
    if isinstance(error, SafetensorError):
        return files.reason(error)
    inner = error.__cause__ or error.__context__
    return _storage_fault(inner) if inner is not None else None


def versions() -> dict[str, str]:
    """Of what makes a run the one it is."""
    found = {"resd": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in ("torch", "transformers")}


def find(run_dir: Path, resume: str, latest: int | None = None) -> tuple[Path | None, list[str]]:
    """The checkpoint to continue from, and what is wrong with those after it: `auto` takes the latest whole one of this
    run (none after update `latest`), `never` none, else it is a path. Collective.

    Raises UserError if the given one is damaged, or all of them.
    """
    if resume == "never":
        return None, []
    if resume != "auto":
        given = Path(resume)
        why = fault(given)
        if why is not None:
            raise UserError(
                f"resume={resume} is damaged ({why}): write resume=auto, which continues at the last whole checkpoint"
            )
        return given, []
    damaged: list[str] = []
    numbered = files.numbered(run_dir / "checkpoints").items()
    found = dist.broadcast([path for step, path in numbered if latest is None or step <= latest])
    for checkpoint in reversed(found):
        why = fault(checkpoint)
        if why is None:
            return checkpoint, damaged
        damaged.append(f"{checkpoint.name} is damaged ({why})")
    if damaged:
        raise UserError(
            f"run_dir={run_dir} has no whole checkpoint ({'; '.join(damaged)}): "
            "restore one, or move the folder checkpoints away to begin again"
        )
    return None, []


def fault(checkpoint: Path) -> str | None:
    """Why this is not a checkpoint as it was written, or None. Collective: each rank reads its share of the files."""
    why = None
    try:
        run = read_run(checkpoint)
        if run.get("weights", True):
            read_metadata(checkpoint / "state")
        entries = manifest.read(checkpoint)
        why = manifest.damage(checkpoint, dict(dist.mine(list(entries.items())).values()))
    except FileNotFoundError:  # a checkpoint from before there were manifests is taken as it is
        why = f"{manifest.NAME} is missing" if run.get("format", 1) >= FORMAT else None
    except (ValueError, OSError) as error:
        why = str(error) if isinstance(error, ValueError) else files.reason(error)
    return next((w for w in dist.gather({dist.rank(): why}).values() if w is not None), None)


def read_run(checkpoint: Path) -> dict[str, Any]:
    """What `run.json` holds. Raises ValueError if that is not what a run writes."""
    try:
        run = json.loads((checkpoint / "state" / "run.json").read_bytes())
        whole = type(run["step"]) is int and isinstance(run["evaluations"], dict) and "algorithm" in run
        whole = whole and type(run["interactions"]) is int
    except FileNotFoundError:
        raise ValueError("state/run.json is missing") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError("state/run.json is not readable")
    return run


def restore(checkpoint: Path, learner: Learner) -> dict[str, Any]:
    """Load student, optimizer and teacher in place; returns what `run.json` holds. Collective."""
    state = _state(learner)
    try:
        run = read_run(checkpoint)
        dcp.load(state, storage_reader=ShardReader(checkpoint / "state"), planner=ShardPlanner())
    except (Exception, dcp.api.CheckpointException) as error:
        causes = [cause for cause, _ in getattr(error, "failures", {}).values()]
        reason = files.reason(causes[0] if causes else error)
        raise UserError(
            f"{checkpoint} cannot be resumed with this configuration ({reason}): use another run_dir"
        ) from None
    set_optimizer_state_dict(learner.policy, learner.optimizer, state["optimizer"])
    return run


def _state(learner: Learner) -> dict[str, Any]:
    """What changes: shards of the weights themselves, to be loaded in place, and the optimizer's, to be set."""
    state: dict[str, Any] = {"optimizer": get_optimizer_state_dict(learner.policy, learner.optimizer)}
    reshard(learner.policy)
    state["student"] = _detached(weights(learner.policy, "student"))
    if learner.teacher is not None and learner.teacher.kept:
        reshard(learner.teacher.policy)
        state["teacher"] = _detached(learner.teacher.weights())
    return state


def _detached(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in named.items()}


def write_model(folder: Path, weights: dict[str, Tensor], lm: Any, chat: Chat) -> None:
    """A folder that transformers and vLLM load, with the names of published models: experts one by one, not fused."""
    folder.mkdir()
    dtype = next(iter(weights.values())).dtype
    published = revert_weight_conversion(lm, weights)
    save_file({name: w.contiguous() for name, w in published.items()}, folder / "model.safetensors", {"format": "pt"})
    write_description(folder, lm, chat, dtype)


def write_description(folder: Path, lm: Any, chat: Chat, dtype: torch.dtype) -> None:
    """All of a model's folder but the weights, which are saved as `dtype`.

    Configurations are written as they were read: their own `save_pretrained` refuses what their readers take.
    """
    settings = copy.deepcopy(lm.config)
    settings.dtype, settings.architectures = dtype, [type(lm).__name__]
    settings.to_json_file(folder / "config.json")
    lm.generation_config.to_json_file(folder / "generation_config.json")
    chat.tokenizer.save_pretrained(folder)
