"""How long an update takes and what a process holds in memory, for models, machines and lengths at will.

    python -m resd.plan --model qwen3_4b_thinking --processes 8,16 --response 8000,16000 hardware=h200x8 engine=vllm
    python -m resd.plan --check runs/RUN            # what it would have said about a run, beside what was measured

Memory is `resd.plan`, whose sizes are tested against real ones. Time is arithmetic over a handful of rates (MACHINES):
a decode step reads the weights once and computes a token of every row, everything else is matrix products. Where a rate
was measured the table says so; the others are published peaks times an assumed efficiency. Rollouts last as long as
their longest response. What an update asks beside rollouts is the algorithm's to say (`asks`, `trains`); where updates
are not alike, as when pairs are mined first and then learned, all of it counts. Not covered: verification, evaluation,
pipelined reflection, authors, offloading, and slow networks between nodes.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from resd import algorithms, files
from resd import config as configuration
from resd.arguments import Parser, several
from resd.commandline import composed
from resd.config import Config
from resd.plan import GB, SIZE, Room, Shape, check, estimate, longest_prompt
from resd.report.read import RunRecord, read_run
from resd.settings import Asked, VllmSettings
from resd.types import UserError

QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128}
# What the config.json of these models says, so that planning needs no network.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B": QWEN3
    | {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
    | {"intermediate_size": 3072, "tie_word_embeddings": True},
    "Qwen/Qwen3-1.7B": QWEN3
    | {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
    | {"intermediate_size": 6144, "tie_word_embeddings": True},
    "Qwen/Qwen3-4B-Thinking-2507": QWEN3
    | {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"intermediate_size": 9728, "tie_word_embeddings": True},
    "Qwen/Qwen3-8B": QWEN3
    | {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"intermediate_size": 12288, "tie_word_embeddings": False},
    "Qwen/Qwen3-30B-A3B-Thinking-2507": QWEN3
    | {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4}
    | {"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    | {"tie_word_embeddings": False},
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of one process: FLOP/s reached in training and prefill, and while decoding; bytes/s; seconds a step."""

    memory_gb: float
    flops: float
    decode_flops: float
    bandwidth: float
    decode_step: float
    sync: float
    source: str


MACHINES = {
    "h200": Machine(139, 0.4 * 989e12, 0.4 * 989e12, 0.6 * 4.8e12, 5e-3, 50e9, "published peaks, assumed efficiency"),
    "h100": Machine(79, 0.4 * 989e12, 0.4 * 989e12, 0.6 * 3.35e12, 5e-3, 50e9, "published peaks, assumed efficiency"),
    "cpu": Machine(16, 36e9, 16e9, 20e9, 2e-3, 1e9, "CPU seconds of one core, nano with the built-in engine"),
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens: of a problem's prompt, a response on average and at most, a teacher's prompt, and what writers write."""

    prompt: float
    response: float
    longest: float
    teacher_prompt: float
    written: float
    failed: float = 0.8  # share of attempts that fail

    @property
    def shares(self) -> dict[str, float]:
        """Of attempts, by what came of them."""
        return {"all": 1.0, "failed": self.failed, "passed": 1 - self.failed}


def seconds(shape: Shape, config: Config, ranks: int, lengths: Lengths, machine: Machine) -> dict[str, float]:
    """Seconds of each phase of an update."""
    algorithm, batch, of = config.algorithm, config.batch_size, lengths.shares
    tensor_parallel = config.engine.tensor_parallel if isinstance(config.engine, VllmSettings) else 1
    size = SIZE[config.engine.dtype]
    engines = config.engine.replicas(ranks) if isinstance(config.engine, VllmSettings) else ranks

    def decode(requests: float, prompt: float, mean: float, longest: float) -> float:
        if not requests:
            return 0.0
        rows = requests / engines
        rounds = max(1.0, rows / config.engine.max_batch)
        read = size * min(shape.parameters, shape.computed * max(1.0, rows / rounds))  # many rows use all experts
        step = machine.decode_step + read / machine.bandwidth / tensor_parallel
        reads = shape.cache(size) * (prompt + mean / 2) / machine.bandwidth
        token = (2 * shape.computed / machine.decode_flops + reads) / tensor_parallel
        prefill = forward(prompt, 1) / machine.flops / tensor_parallel
        return rounds * longest * step + rows * (mean * token + prefill)

    def forward(tokens: float, times: float) -> float:
        """FLOP of `times` forward passes over a text of so many tokens, causal attention included."""
        return times * tokens * (2 * shape.computed + 2 * shape.layers * shape.queries * tokens)

    def texts(asked: Asked) -> tuple[float, float, float]:
        """Tokens of a prompt, of what is said to it, and of the longest that is."""
        limits = asked.sampling or config.rollout
        prompt = {
            "problem": lengths.prompt,
            "attempt": lengths.teacher_prompt,
            "batch": lengths.prompt + of["failed"] * batch * lengths.written,
        }[asked.reads]
        said = {"answer": (lengths.response, lengths.longest), "text": (lengths.written, 2 * lengths.written)}
        mean, longest = (min(each, limits.max_response) for each in said[asked.says])
        return min(prompt, limits.max_prompt), mean, longest

    found: dict[str, float] = {}
    for asked in algorithm.asks(batch):
        taken = decode(of[asked.of] * asked.count, *texts(asked))
        found[asked.phase] = max(taken, found.get(asked.phase, 0.0))  # of two algorithms, either
    if not algorithms.learns(algorithm):
        return found
    # forward, as much for gradients of activations and of weights, which an adapter's base has not, and forward again
    passes = 3 - (config.model.lora is not None) + config.hardware.activation_checkpointing
    updates: dict[str, tuple[float, float]] = {}
    for asked in algorithm.trains(batch):
        prompt, said, _ = texts(asked)
        share = of[asked.of] * asked.count / ranks / machine.flops
        both = share * forward(lengths.teacher_prompt + said, 1), share * forward(prompt + said, passes)
        updates[asked.phase] = max(both, updates.get(asked.phase, both))
    if algorithm.teacher is not None:
        found["teacher"] = sum(teacher for teacher, _ in updates.values())
    found["update"] = sum(own for _, own in updates.values())
    found["sync"] = size * shape.parameters / machine.sync
    return found


def load(overrides: Sequence[str]) -> Config:
    """The settings; this machine need not have what a run of them wants. Raises UserError."""
    return configuration.validate(composed(overrides, "config"), here=False)


def teacher_of(config: Config) -> Shape | None:
    """The teacher, if it is another model."""
    teacher = config.algorithm.teacher
    return shape_of(teacher.path) if teacher and teacher.path else None


def shape_of(path: str) -> Shape:
    file = Path(path).expanduser() / "config.json"
    shape = Shape.of(json.loads(file.read_text()) if file.is_file() else PUBLISHED.get(path, {}))
    if shape is None:
        raise UserError(f"model.path={path} is not known here: give a folder, or one of {', '.join(PUBLISHED)}")
    return shape


def plan(config: Config, ranks: int, lengths: Lengths, machine: Machine, host_gb: float) -> dict[str, Any]:
    """One line of the table."""
    shape, memory = shape_of(config.model.path), int(machine.memory_gb * GB)
    room, external = Room(memory, memory, int(host_gb * GB), min(ranks, 8)), teacher_of(config)
    phases = seconds(shape, config, ranks, lengths, machine)
    try:
        says, fits = check(shape, config, ranks, room, external), True
    except UserError as error:
        says, fits = str(error), False
    return {
        "model": config.model.path,
        "parameters": shape.parameters,
        "processes": ranks,
        "response": lengths.response,
        "memory_gb": {
            name: sum(parts.values()) / GB
            for name, parts in estimate(shape, config, ranks, memory, external).phases.items()
        },
        "fits": fits,
        "says": says,
        "longest_prompt": longest_prompt(shape, config, ranks, room, external),
        "step_s": sum(phases.values()),
        "seconds": phases,
        "rates": machine.source,
    }


def measured(run: RunRecord, config: Config) -> Iterator[Lengths]:
    """The lengths of an update's texts, of each whose attempts are there."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path={config.model.path} has no tokenizer here ({files.reason(error)}): give the run a copy of it"
        ) from None

    def mean(texts: Sequence[str]) -> float:
        return statistics.fmean(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts or [""])

    for attempts in map(run.attempts, run.attempt_steps):
        first = [a for a in attempts if not a.get("parent")]
        if not first:
            continue
        later = [a["teacher_prompt"] or a["prompt"] for a in attempts if a["teacher_prompt"] or a.get("parent")]
        yield Lengths(
            prompt=mean([a["prompt"] for a in first]),
            response=statistics.fmean(a["tokens"] for a in first),
            longest=max(a["tokens"] for a in attempts),
            teacher_prompt=mean(later),
            written=mean([a["reflection"]["text"] for a in attempts if a["reflection"]]),
            failed=sum(not (a["verdict"] and a["verdict"]["passed"]) for a in first) / len(first),
        )


def compare(folder: Path, ranks: int, machine: Machine) -> dict[str, Any]:
    """Seconds an update and peak memory of a run, foreseen and measured; None for memory that was not."""
    run, config = read_run(folder), configuration.read(folder / "config.yaml")
    shape = shape_of(config.model.path)
    updates = [row for row in run.rows if row["kind"] == "train"]
    if not updates:
        raise UserError(f"{folder} holds no update yet: give a run that has made some")
    rows = [seconds(shape, config, ranks, lengths, machine) for lengths in measured(run, config)]
    if not rows:
        raise UserError(f"{folder} has no attempts/, which say how long its texts were: restore the folder")
    peaks = [peak for row in updates if (peak := row.get("perf/peak_memory_gb")) is not None]
    guess = estimate(shape, config, ranks, int(machine.memory_gb * GB), teacher_of(config))
    return {
        "foreseen_s": {name: statistics.median(foreseen[name] for foreseen in rows) for name in rows[0]},
        "measured_s": {name: statistics.median(row.get(f"time/{name}", 0.0) for row in updates) for name in rows[0]},
        "foreseen_gb": [guess.least / GB, guess.peak / GB],
        "measured_gb": max(peaks, default=None),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 after one sentence on standard error."""
    try:
        _print_plans(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print_plans(arguments: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m resd.plan",
        description="Time and memory of an update.",
        epilog="KEY=VALUE as for resd.train, whose --help lists them",
    )
    parser.add_argument("--model", default="qwen3_4b_thinking", help="of conf/model, several with commas")
    parser.add_argument(
        "--processes", type=several(int), default=[8], help="one a GPU, several numbers with commas (default: 8)"
    )
    parser.add_argument(
        "--response",
        type=several(float),
        default=[8000.0],
        help="average tokens of a response, several with commas (default: 8000)",
    )
    parser.add_argument("--prompt", type=float, default=600, help="tokens of a problem's prompt (default: %(default)s)")
    parser.add_argument(
        "--teacher-prompt", type=float, default=16000, help="tokens of a teacher's prompt (default: %(default)s)"
    )
    parser.add_argument("--written", type=float, default=3000, help="tokens of a reflection, thinking included")
    parser.add_argument("--machine", choices=MACHINES, default="h200", help="whose rates (default: %(default)s)")
    parser.add_argument("--memory-gb", type=float, help="of one device; default: the machine's")
    parser.add_argument("--host-gb", type=float, default=2000, help="main memory of one machine of up to 8 processes")
    parser.add_argument("--check", type=Path, metavar="RUN", help="compare with the run in this folder")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    chosen, overrides = parser.parse(arguments)
    machine = MACHINES[chosen.machine]
    machine = replace(machine, memory_gb=chosen.memory_gb or machine.memory_gb)
    if chosen.check:
        found = compare(chosen.check, chosen.processes[0], machine)
        for name in found["foreseen_s"]:
            print(f"{name:>10}: {found['foreseen_s'][name]:8.2f} s foreseen, {found['measured_s'][name]:.2f} measured")
        least, most = found["foreseen_gb"]
        peak = "not" if found["measured_gb"] is None else f"{found['measured_gb']:.2f}"
        print(f"    memory: {least:.2f} to {most:.2f} GB foreseen, {peak} measured")
    else:
        found = {"machine": asdict(machine), "plans": []}
        for model, ranks, response in product(chosen.model.split(","), chosen.processes, chosen.response):
            config = load([f"model={model}", *overrides])
            lengths = Lengths(
                chosen.prompt, response, config.rollout.max_response, chosen.teacher_prompt, chosen.written
            )
            line = plan(config, ranks, lengths, machine, chosen.host_gb)
            found["plans"].append(line)
            times = "  ".join(f"{name} {value:.1f}" for name, value in line["seconds"].items())
            print(f"{line['model']} on {ranks}, responses of {response:g}: {line['step_s']:.0f} s an update ({times})")
            print(f"    {line['says']}")
            if line["longest_prompt"]:
                print(f"    a row fits with a prompt (model.max_prompt) of up to {line['longest_prompt']:,} tokens")
        print(f"rates of {chosen.machine}: {machine.source}")
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
