"""`python -m resd.evaluate`: judge a checkpoint by itself, as training would."""

import json
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from resd import commandline
from resd import config as configuration
from resd.config import Config
from resd.train import guarded, load_task, writable
from resd.types import UserError


@hydra.main(config_path=str(configuration.CONF), config_name="evaluate", version_base="1.3")
def _main(composed: DictConfig) -> None:
    guarded(lambda: _evaluate(composed))


def evaluate_main() -> None:
    """The command line; see `resd.evaluate`."""
    guarded(lambda: commandline.prepare("evaluate"))
    _main()


def _evaluate(composed: DictConfig) -> None:
    own: dict[str, Any] = {}
    OmegaConf.set_struct(composed, False)
    for key in ("checkpoint", "samples", "out"):
        if OmegaConf.is_missing(composed, key):
            raise UserError(f"{key} has no value: write {key}=RUN/checkpoints/step_N")
        own[key] = composed.pop(key)
    checkpoint = Path(own["checkpoint"]).expanduser()
    folder = checkpoint / "model" if (checkpoint / "model").is_dir() else checkpoint
    composed.model.path = str(folder)
    composed.evaluation.samples = own["samples"]
    settings = configuration.validate(composed)
    run_config = checkpoint.parent.parent / "config.yaml"
    if run_config.is_file():  # what the run told its model is what it must be told now
        trained = configuration.read(run_config)
        model = trained.model.model_copy(update={"path": str(folder)})
        settings = settings.model_copy(update={"model": model, "rollout": trained.rollout})
    metrics = judge(settings, Path(own["out"]) if own["out"] else None)
    if configuration.rank() == 0:
        print(json.dumps(metrics))


def judge(settings: Config, out: Path | None) -> dict[str, float]:
    """Metrics of `settings.model` on the test split; attempts and metrics are written under `out`."""
    task, problems = load_task(settings.task, settings.verify, "test")
    if out is not None:
        writable(out)
    from resd import dist
    from resd.evaluate import evaluate
    from resd.session import evaluation_session

    with dist.joined(settings.hardware.device), evaluation_session(settings, task, out) as run:
        metrics, attempts = evaluate(run.speech, problems, settings.evaluation, run.sampling, task.prompt)
        run.finish(attempts, {})
        run.speech.log.metrics(0, "eval", metrics)
        return metrics
