"""Train a model from its own failures.

    python -m resd.train task=manufactoria                        # one process on a laptop CPU
    torchrun --nproc-per-node 8 -m resd.train model=… hardware=…   # a GPU node, same code
    python -m resd.train --multirun hydra/launcher=torchrun algorithm.objective.divergence=reverse_kl,jsd

What can be wrong with the command line, the data or the folders is said in one sentence before a model is read.
`resd.train(…)`, a call of this module, is `resd.api.train`.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resd import again, commandline, files
from resd import config as configuration
from resd.config import Config
from resd.folder import made_for, take_back
from resd.process import die_with_parent
from resd.settings import TaskSettings, VerifySettings, VllmSettings
from resd.task import Sequential, Split, Task, problems_of
from resd.types import Problem, UserError

if TYPE_CHECKING:
    from resd.api import Result


@hydra.main(config_path=str(configuration.CONF), config_name="config", version_base="1.3")
def main(composed: DictConfig) -> None:
    guarded(lambda: train(configuration.validate(_alone_in_its_directory(composed))))


def begin() -> None:
    """Do what the arguments of this process ask. Raises UserError."""
    job = commandline.job("config")
    if job is None:
        main()
    else:
        train(configuration.validate(job.composed))


_DIRECTORIES: set[str] = set()  # of the jobs that a sweep ran in this process


def _alone_in_its_directory(composed: DictConfig) -> DictConfig:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_dir = os.path.realpath(composed.run_dir)
        if run_dir in _DIRECTORIES:
            raise UserError(
                f"run_dir={composed.run_dir} is that of an earlier job of this sweep: write hydra/launcher=torchrun, "
                "and leave run_dir out"
            )
        _DIRECTORIES.add(run_dir)
    return composed


def guarded(work: Callable[[], Any]) -> None:
    """Run `work`; a UserError becomes one line on standard error (rank 0) and exit status 2, Ctrl-C status 130.

    When another process of the run has died, this one ends too: the launcher tells it to, or a collective fails.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        work()
    except KeyboardInterrupt:
        _say(f"\nstopped; {again.advice()}")
        sys.exit(130)
    except UserError as error:
        _say(f"error: {error}")
        _tell_launcher(str(error))
        sys.exit(2)
    except Exception as error:
        if not any(sign in str(error) for sign in ("Connection closed by peer", "Connection reset by peer", "NCCL")):
            raise
        _say(_lost(), ranks=2)
        os._exit(1)  # leaving in order would wait for the process that is gone


def _lost() -> str:
    return (
        "error: this process was told to stop, or another one of this run has died (the launcher says which, and of "
        f"what); {again.advice()}"
    )


def _tell_launcher(sentence: str) -> None:
    """torchrun's own report of a failed process, its last lines, then holds the sentence too."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and configuration.rank() == 0:
        told = {"message": sentence, "extraInfo": {"py_callstack": sentence, "timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": told}))


def _stop(number: int, frame: Any) -> None:
    take_back()
    _say(_lost(), ranks=2)
    os._exit(128 + number)


def _say(text: str, ranks: int = 1) -> None:
    if configuration.rank() < ranks:  # the second one speaks for a first one that is gone
        print(text, file=sys.stderr, flush=True)


def train(config: Config, own: Task | None = None) -> Path:
    """Run or continue a training run, on the task `own` if there is one; returns its directory."""
    from resd.observe.blocks import Blocks
    from resd.observe.stream import Stream

    check_world(config)
    check_rollouts(config)
    if config.resume != "never" and files.numbered(Path(config.run_dir) / "checkpoints"):
        configuration.check_same_run(Path(config.run_dir), config)
    task, problems, test = load_task(config.task, "train", "test", own=own)
    config.algorithm.check_task(task)
    told = config.algorithm.check(problems)
    forgetting = config.forgetting
    second, exam = load_task(forgetting.task, "test") if forgetting.every else (None, [])
    order = config.model_dump(include={"batch_size", "inner_updates", "epochs", "shuffle", "seed"})
    blocks = task.training_blocks if isinstance(task, Sequential) else None
    stream = Blocks(problems, blocks, **order) if blocks else Stream(problems, **order)
    steps = stream.updates(config.steps)
    notes = [told, stream.told, configuration.laboratory(config)]
    with made_for(Path(config.run_dir)):
        check_judge(task, [*problems, *test], config.verify)
        if second is not None:
            check_judge(second, exam, config.verify)
        if configuration.rank() == 0:
            print(*(f"{note}\n" for note in notes if note), sep="", end="")
        from resd import dist  # torch and transformers, hence not before the checks above
        from resd.measure.forgetting import Forgetting
        from resd.session import Session

        measured = Forgetting(second, exam, forgetting, config.evaluation, config.verify) if second else None
        with (
            dist.joined(config.hardware.device, config.hardware.threads) as mesh,
            Session(config, task, mesh, stream, test, measured) as session,
        ):
            session.fit(steps)
            dist.barrier()  # the first one has written all of it
            return session.run_dir


def check_world(config: Config) -> None:
    """Raises UserError if torchrun started a number of processes that the engine cannot use."""
    if isinstance(config.engine, VllmSettings):
        config.engine.replicas(int(os.environ.get("WORLD_SIZE", "1")))


def check_rollouts(config: Config) -> None:
    """Raises UserError if the engine cannot say how likely its rollouts were. Evaluations have none."""
    rollout = config.rollout
    if isinstance(config.engine, VllmSettings) and rollout.temperature != 1 and rollout.top_p != 1:
        raise UserError(
            "engine=vllm reports log-probabilities before top-p at temperature 1 alone: "
            "write rollout.top_p=1.0 or rollout.temperature=1.0"
        )


def load_task(settings: TaskSettings, *splits: Split, own: Task | None = None) -> tuple[Any, ...]:
    """The task and its problems of each split."""
    from resd import envs

    task = envs.load(settings.name, **settings.options) if own is None else own
    return task, *(problems_of(task, split) for split in splits)


def check_judge(task: Task, problems: Sequence[Problem], verify: VerifySettings) -> None:
    """Raises UserError unless the task's judge tells known-good from known-bad answers, in a worker as in the run."""
    from resd.verify import examine

    told = examine(task, problems, verify.timeout)
    if told and configuration.rank() == 0:
        print(told)


class Program(ModuleType):
    """A module that can be called, since every import of it binds the name of the function to it."""

    def __call__(self, task: Task | str | None = None, **overrides: Any) -> "Result":
        """See `resd.api.train`."""
        from resd import api

        return api.train(task, **overrides)


sys.modules[__name__].__class__ = Program

if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank is of no use without its torchrun, and in the way of the next
        die_with_parent(signal.SIGKILL)
    sys.path.append(str(Path(__file__).parent / "sweep"))  # where Hydra finds the torchrun launcher
    guarded(begin)
