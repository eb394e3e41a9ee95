"""Train a model from its own failures.

    torchrun -m resd.train task=manufactoria                      # one process on a laptop CPU
    torchrun --nproc-per-node 8 -m resd.train model=… hardware=…   # a GPU node, same code
    python -m resd.train --multirun algorithm.objective.divergence=reverse_kl,jsd

What can be wrong with the command line, the data or the folders is said in one sentence before a model is read.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from resd import config as configuration
from resd.config import Config
from resd.types import UserError


@hydra.main(config_path=str(configuration.CONF), config_name="config", version_base="1.3")
def main(composed: DictConfig) -> None:
    guarded(lambda: train(configuration.validate(composed)))


def guarded(work: Callable[[], Any]) -> None:
    """Run `work`; a UserError becomes one line on standard error (rank 0) and exit status 2, Ctrl-C status 130."""
    try:
        work()
    except KeyboardInterrupt:
        if configuration.rank() == 0:
            print("\nstopped; the same command with this run_dir=… continues at the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        if configuration.rank() == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def train(config: Config) -> Path:
    """Run or continue a training run; returns its directory."""
    import envs
    from resd.stream import Stream

    task = envs.load(config.task.name, **config.task.options)
    problems, test = task.problems("train"), task.problems("test")
    stream = Stream(
        problems,
        config.batch_size,
        config.inner_updates,
        epochs=config.epochs,
        shuffle=config.shuffle,
        seed=config.seed,
    )
    steps = config.steps or len(stream)
    if steps > len(stream):
        raise UserError(
            f"steps={steps} exceeds the stream of {len(stream)} updates: lower steps, or raise epochs or inner_updates"
        )
    writable(Path(config.run_dir))
    from resd import dist  # torch and transformers, hence not before the checks above
    from resd.session import Session

    with dist.joined(config.hardware.device) as mesh, Session(config, task, mesh) as session:
        session.fit(stream, steps, test)
        return session.run_dir


def writable(run_dir: Path) -> None:
    """Make the directory, or say why it cannot be."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / f".probe_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"run_dir={run_dir} cannot be written ({error.strerror}): choose another run_dir") from None


if __name__ == "__main__":
    if not any(
        flag in sys.argv for flag in ("--multirun", "-m", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i")
    ):
        guarded(lambda: configuration.preflight([a for a in sys.argv[1:] if not a.startswith("-")], "config"))
    main()
