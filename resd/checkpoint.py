"""Checkpoints: what can be loaded (`model/`, a Hugging Face folder) and what can be continued (`state/`).

A checkpoint is written beside the training loop into a hidden folder and renamed when it is whole, so that a kill at
any moment leaves only whole ones. `state/` has student, optimizer and teacher shards (torch DCP, float32) and
`run.json`: playbook, solutions, counters. Random state and the stream's cursor are functions of the update's number.
"""

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from transformers.core_model_loading import revert_weight_conversion

from resd import dist
from resd.learner import Learner
from resd.model.chat import Chat
from resd.model.lora import weights
from resd.model.shard import full_tensors, reshard
from resd.ranking import best_step
from resd.types import UserError


class Checkpoints:
    """The folder `checkpoints/` of a run and the link `best`."""

    def __init__(self, run_dir: Path, *, keep: int, dtype: torch.dtype) -> None:
        self.root = run_dir / "checkpoints"
        self.best = run_dir / "best"
        self.keep = keep
        self.dtype = dtype
        self.group = torch_dist.new_group(backend="gloo")  # its own, since saving overlaps with training
        self.thread = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None

    def save(self, step: int, learner: Learner, chat: Chat, run: Mapping[str, Any]) -> None:
        """Start saving; returns once nothing that training changes is needed any more. Collective."""
        self.wait()
        part = self.root / f".step_{step:06d}"
        if dist.first():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        dist.barrier()
        weights = {name: w.to("cpu", self.dtype, copy=True) for name, w in full_tensors(learner.policy) if dist.first()}
        sharded = dcp.async_save(_state(learner), checkpoint_id=part / "state", process_group=self.group)
        self.pending = self.thread.submit(self._finish, step, part, sharded, weights, learner, chat, dict(run))

    def _finish(
        self,
        step: int,
        part: Path,
        sharded: Any,
        weights: dict[str, Tensor],
        learner: Learner,
        chat: Chat,
        run: dict[str, Any],
    ) -> None:
        sharded.result()  # on rank 0 this means that all ranks have written
        if not dist.first():
            return
        write_model(part / "model", weights, learner.policy.lm, chat)
        (part / "state" / "run.json").write_text(json.dumps({"step": step, **run}))
        final = self.root / f"step_{step:06d}"
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        self._prune(run)

    def _prune(self, run: Mapping[str, Any]) -> None:
        """Keep the latest ones and the best of those that exist by the rank-sum rule."""
        steps = complete(self.root)
        evaluations = {int(s): values for s, values in run["evaluations"].items() if int(s) in steps}
        best = best_step(evaluations, run["samples"]) if evaluations else steps[-1]
        link = self.best.with_name(".best")
        link.unlink(missing_ok=True)
        link.symlink_to(Path("checkpoints") / f"step_{best:06d}", target_is_directory=True)
        link.replace(self.best)
        for step in steps[: -self.keep]:
            if step != best:
                shutil.rmtree(self.root / f"step_{step:06d}")

    def wait(self) -> None:
        """Block until the last save is whole; raises what went wrong in it."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def close(self) -> None:
        self.wait()
        self.thread.shutdown()


def complete(root: Path) -> list[int]:
    """Steps of whole checkpoints under `root`, ascending."""
    return sorted(int(folder.name.removeprefix("step_")) for folder in root.glob("step_*"))


def find(run_dir: Path, resume: str) -> Path | None:
    """The checkpoint to continue from: `auto` the latest of this run, `never` none, else a path."""
    if resume == "never":
        return None
    if resume != "auto":
        return Path(resume)
    steps = complete(run_dir / "checkpoints")
    return run_dir / "checkpoints" / f"step_{steps[-1]:06d}" if steps else None


def restore(checkpoint: Path, learner: Learner) -> dict[str, Any]:
    """Load student, optimizer and teacher in place; returns what `run.json` holds. Collective."""
    state = _state(learner)
    try:
        run = json.loads((checkpoint / "state" / "run.json").read_text())
        dcp.load(state, checkpoint_id=checkpoint / "state")
    except (OSError, json.JSONDecodeError, dcp.api.CheckpointException) as error:
        reason = str(error).splitlines()[0]
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
    if learner.teacher is not None and learner.teacher.kind != "live":
        reshard(learner.teacher.policy)
        state["teacher"] = _detached(learner.teacher.weights())
    return state


def _detached(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in named.items()}


def write_model(folder: Path, weights: dict[str, Tensor], lm: Any, chat: Chat) -> None:
    """A folder that transformers and vLLM load, with the names of published models: experts one by one, not fused."""
    folder.mkdir(parents=True)
    published = revert_weight_conversion(lm, weights)
    save_file({name: w.contiguous() for name, w in published.items()}, folder / "model.safetensors", {"format": "pt"})
    lm.config.save_pretrained(folder)
    lm.generation_config.save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)


def step_of(checkpoint: Path) -> int:
    """The update after which a checkpoint was written."""
    try:
        return int(json.loads((checkpoint / "state" / "run.json").read_text())["step"])
    except (OSError, json.JSONDecodeError, KeyError):
        raise UserError(f"{checkpoint} is not a whole checkpoint: give another, or resume=auto") from None
