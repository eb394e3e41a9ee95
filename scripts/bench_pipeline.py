"""What reflection adds to a step when responses have a long tail: SDPO, RESD, and RESD pipelined, in one run.

    python scripts/bench_pipeline.py [--step-ms MS] [--json] [engine=vllm …]

Whole updates of the trainer on one device: rollout, verification, reflection, curation, distillation, sync. Lengths are
drawn from a log-normal distribution, the same for all three, by ending each response after as many tokens; the model
never ends one itself. The ratio to SDPO is the median over repetitions of ratios within one repetition.

On a CPU every further row and every prompt costs time of its own, so there is little to hide. With `--step-ms` the
built-in engine sleeps until a decoding step has taken so long: a model of an accelerator, whose steps read the same
weights for one row as for many.
"""

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from rich.progress import track
from torch import Tensor

from resd import dist, envs
from resd.config import CONF, validate
from resd.engine.base import More
from resd.engine.fused import FusedDecoder
from resd.observe.stream import Stream
from resd.session import Session
from resd.types import Completion, Request

METHODS = {
    "sdpo": ["algorithm=sdpo", "engine.pipelined=false"],
    "resd": ["algorithm=resd", "engine.pipelined=false"],
    "resd_pipelined": ["algorithm=resd", "engine.pipelined=true"],
}


class LongTail:
    """An engine whose rollouts have drawn lengths; other requests are as long as `written` says."""

    def __init__(self, engine: Any, options: argparse.Namespace) -> None:
        self.engine, self.options = engine, options
        self.replica, self.replicas, self.sync, self.sleep = (
            engine.replica, engine.replicas, engine.sync, engine.sleep,
        )  # fmt: skip
        engine.eos_ids = type(engine.eos_ids)()

    def generate(self, requests: Sequence[Request], more: More | None = None) -> Iterator[tuple[int, Completion]]:
        def cut(requests: Sequence[Request]) -> list[Request]:
            return [replace(request, max_tokens=self.length(request)) for request in requests]

        return self.engine.generate(cut(requests), None if more is None else lambda idle: cut(more(idle)))

    def length(self, request: Request) -> int:
        if request.max_tokens == self.options.written:  # a reflection, a tag or a curation
            return request.max_tokens
        drawn = random.Random(request.seed).lognormvariate(math.log(self.options.median), self.options.sigma)
        return max(1, min(request.max_tokens, round(drawn)))


def at_least(seconds: float) -> None:
    """No decoding step of the built-in engine takes less."""
    whole = FusedDecoder.step

    def step(self: FusedDecoder, ids_B: Tensor) -> Tensor:
        end = time.perf_counter() + seconds
        logits_B_V = whole(self, ids_B)
        time.sleep(max(0.0, end - time.perf_counter()))
        return logits_B_V

    FusedDecoder.step = step  # type: ignore[method-assign]


def session(method: str, folder: Path, options: argparse.Namespace, mesh: Any) -> Session:
    overrides = [*METHODS[method], f"run_dir={folder / method}", f"batch_size={options.batch}", "inner_updates=1"]
    overrides += [f"rollout.max_response={options.longest}", f"engine.max_batch={options.batch}", "optimizer.lr=0"]
    overrides += [f"algorithm.writing.max_response={options.written}"] if method != "sdpo" else []
    overrides += ["progress=off", *options.overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = validate(compose("config", overrides))
    (folder / method).mkdir()
    task = envs.load(settings.task.name, **settings.task.options)
    stream = Stream(task.problems("train"), options.batch, 1, epochs=1 + options.repeats, seed=0)
    made = Session(settings, task, mesh, stream, [])
    made.run.speech.engine = LongTail(made.run.speech.engine, options)  # type: ignore[assignment]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=32, help="problems an update")
    parser.add_argument("--median", type=float, default=60, help="median length of a response, in tokens")
    parser.add_argument("--sigma", type=float, default=1.0, help="standard deviation of its logarithm")
    parser.add_argument("--longest", type=int, default=640)
    parser.add_argument("--written", type=int, default=24, help="length of reflections, tags and curations")
    parser.add_argument("--step-ms", type=float, default=0.0, help="what a decoding step takes at least")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    parser.add_argument("overrides", nargs="*", help="settings of the runs, such as engine=vllm")
    options = parser.parse_args()
    at_least(options.step_ms / 1000)

    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    phases: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as folder, dist.joined("cpu") as mesh:
        sessions = {method: session(method, Path(folder), options, mesh) for method in METHODS}
        for repeat in track(range(options.repeats + 1), description="updates"):
            for method, made in sessions.items():
                made.journal.step = repeat + 1
                start = time.perf_counter()
                made.algorithm.update(made.stream.batch(repeat + 1))
                taken, parts = time.perf_counter() - start, made.clock.read()
                if repeat:  # the first warms up
                    seconds[method].append(taken)
                    phases[method].append(parts)
        for made in sessions.values():
            made.run.speech.verifier.close()
    result: dict[str, Any] = {f"{method}_s": round(statistics.median(found), 3) for method, found in seconds.items()}
    for method in ("resd", "resd_pipelined"):
        ratios = [ours / base for ours, base in zip(seconds[method], seconds["sdpo"], strict=True)]
        result[f"{method}_over_sdpo"] = round(statistics.median(ratios), 3)
    for name, value in result.items():
        print(f"{name:24} {value}")
    middle = {
        method: {name: statistics.median(each.get(name, 0.0) for each in found) for name in found[-1]}
        for method, found in phases.items()
    }
    for method, parts in middle.items():
        shown = (f"{name.removeprefix('time/')} {value:.2f}" for name, value in parts.items() if value > 0.005)
        print(method.ljust(15), *shown)
    if options.json:
        print(json.dumps(result | {"seconds": seconds, "phases": middle}))


if __name__ == "__main__":
    main()
