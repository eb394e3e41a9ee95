"""Every value that a preset sets, for every task and algorithm, against one table of what the sources say.

`paper` is Appendix G of arXiv 2605.12741 with sections 4.1 and 4.7; `official` the run scripts released with it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from resd.config import CONF, validate

# lr; updates between evaluations and between checkpoints; tokens of a rollout's prompt, of a response, of prompts of
# other roles; divergence; ratio_max; teacher and its rate; success weighting; entries of the playbook, how it is made
# concise, whether it is trimmed after curation; feedback, prompt and reward of the task
TABLE = """
paper    manufactoria       resd 1e-6 4 4  4096 20480 49152 reverse_kl 5    ema    1e-4 no  200 prioritized no  full full sparse
paper    manufactoria       sdpo 1e-6 4 4  4096 20480 49152 reverse_kl 5    ema    1e-4 no  -   -           -   full full sparse
paper    manufactoria       grpo 1e-6 4 4  4096 20480 49152 -          -    -      -    -   -   -           -   full full sparse
paper    bouncingsim        resd 1e-6 4 4  4096 25600 58368 jsd        none ema    1e-4 yes 120 staleness   no  full full sparse
paper    bouncingsim        sdpo 1e-6 4 4  4096 25600 58368 jsd        none ema    1e-4 no  -   -           -   full full sparse
paper    bouncingsim        grpo 1e-6 4 4  4096 25600 58368 -          -    -      -    -   -   -           -   full full sparse
paper    bouncingsim_medium resd 1e-6 4 4  4096 25600 58368 reverse_kl none ema    1e-2 no  150 prioritized no  full full sparse
paper    bouncingsim_medium sdpo 1e-6 4 4  4096 25600 58368 reverse_kl none ema    1e-2 no  -   -           -   full full sparse
paper    bouncingsim_medium grpo 1e-6 4 4  4096 25600 58368 -          -    -      -    -   -   -           -   full full sparse
paper    finer              resd 1e-6 4 4 49152 20480 49152 jsd        none ema    1e-4 yes 120 staleness   no  gold full sparse
paper    finer              sdpo 1e-6 4 4 49152 20480 49152 jsd        none ema    1e-4 no  -   -           -   gold full sparse
paper    finer              grpo 1e-6 4 4 49152 20480 49152 -          -    -      -    -   -   -           -   gold full sparse
official manufactoria       resd 1e-6 4 4  4096 20480 49152 reverse_kl none frozen 1e-4 yes 200 staleness   yes official full sparse
official manufactoria       sdpo 1e-6 4 4  4096 20480 49152 reverse_kl none frozen 1e-4 no  -   -           -   official full sparse
official manufactoria       grpo 1e-6 4 4  4096 20480 49152 -          -    -      -    -   -   -           -   official full sparse
official bouncingsim        resd 1e-6 4 4  4096 25600 58368 jsd        none frozen 1e-4 yes 120 staleness   yes official full sparse
official bouncingsim        sdpo 1e-6 4 4  4096 25600 58368 jsd        none frozen 1e-4 no  -   -           -   official full sparse
official bouncingsim        grpo 1e-6 4 4  4096 25600 58368 -          -    -      -    -   -   -           -   official full sparse
official bouncingsim_medium resd 1e-6 4 4  4096 25600 58368 reverse_kl none frozen 1e-2 no  150 prioritized yes official full sparse
official bouncingsim_medium sdpo 1e-6 4 4  4096 25600 58368 reverse_kl none frozen 1e-2 no  -   -           -   official full sparse
official bouncingsim_medium grpo 1e-6 8 4  4096 25600 58368 -          -    -      -    -   -   -           -   official full sparse
official finer              resd 1e-5 8 8 49152 20480 49152 jsd        none frozen 1e-4 yes 120 staleness   yes gold official dense
official finer              sdpo 1e-5 8 8 49152 20480 49152 jsd        none frozen 1e-4 no  -   -           -   gold official dense
official finer              grpo 1e-6 8 8 49152 20480 49152 -          -    -      -    -   -   -           -   gold official dense
"""  # noqa: E501
COLUMNS = (
    *("optimizer.lr", "evaluation.every", "checkpoints.every"),
    *("rollout.max_prompt", "rollout.max_response", "model.max_prompt"),
    *("algorithm.objective.divergence", "algorithm.objective.ratio_max"),
    *("algorithm.teacher.kind", "algorithm.teacher.rate", "algorithm.success_weighting.enabled"),
    *("algorithm.playbook.max_entries", "algorithm.playbook.concise", "algorithm.playbook.trim_after_curation"),
    *("task.options.feedback", "task.options.prompt", "task.options.reward"),
)
EVERYWHERE = {
    **{"batch_size": 32, "inner_updates": 4, "epochs": 1, "shuffle": False},
    **{"rollout.temperature": 1.0, "rollout.top_p": 0.95},
    **{"loss.importance_cap": 2.0, "loss.reduction": "sequence_mean"},
    **{"optimizer.betas": [0.9, 0.999], "optimizer.weight_decay": 0.01, "optimizer.warmup": 10},
    **{"optimizer.grad_clip": 1.0, "optimizer.mini_batches": 1},
    **{"evaluation.before": True, "evaluation.samples": 4, "evaluation.temperature": 0.6, "evaluation.top_p": 0.95},
    **{"evaluation.limit": None},
}
DISTILLED = {  # RESD and SDPO, and what derives from them
    **{"algorithm.group": 1, "algorithm.objective.alpha": 0.5, "algorithm.objective.top_k": 100},
    **{"algorithm.objective.select": "student", "algorithm.objective.support": "tail"},
    **{
        "algorithm.objective.ratio_min": 0.2,
        "algorithm.success_weighting.a": 1.0,
        "algorithm.success_weighting.b": 1.0,
    },
    **{f"algorithm.teacher_prompt.{part}": True for part in ("feedback", "solution")},
    "algorithm.teacher_prompt.feedback_with_solution": False,
}
REFLECTED = {f"algorithm.teacher_prompt.{part}": True for part in ("playbook", "previous_trial", "reflection")}
OF_ALGORITHM = {
    "resd": DISTILLED
    | REFLECTED
    | {"algorithm.distil_self_success": True, "algorithm.tag_successes": True, "algorithm.playbook.frequency": 4}
    | {"algorithm.writing.temperature": 1.0, "algorithm.writing.top_p": 0.95},
    "sdpo": DISTILLED | dict.fromkeys(REFLECTED, False) | {"algorithm.distil_self_success": False},
    "grpo": {"algorithm.group": 8, "algorithm.normalise_std": True, "algorithm.policy_gradient.clip_low": 0.2}
    | {"algorithm.policy_gradient.clip_high": 0.28, "algorithm.policy_gradient.dual_clip": 3.0},
}
WORDS = {"none": None, "yes": True, "no": False}
ROWS = {tuple(line.split()[:3]): line.split()[3:] for line in TABLE.strip().splitlines()}
FIXED = 'algorithm.entries=["a rule"]'


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


@cache
def load(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return flat(validate(compose("config", [*overrides, "run_dir=x"])).model_dump(mode="json"))


def chosen(preset: str, task: str, algorithm: str, *more: str) -> dict[str, Any]:
    return load("model=qwen3_4b_thinking", f"preset={preset}", f"task={task}", f"algorithm={algorithm}", *more)


def expected(preset: str, task: str, algorithm: str) -> dict[str, Any]:
    values = zip(COLUMNS, ROWS[preset, task, algorithm], strict=True)
    own = {key: WORDS[word] if word in WORDS else value_of(word) for key, word in values if word != "-"}
    return EVERYWHERE | OF_ALGORITHM[algorithm] | own


def value_of(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


@pytest.mark.parametrize(("preset", "task", "algorithm"), ROWS)
def test_every_value(preset: str, task: str, algorithm: str) -> None:
    found, right = chosen(preset, task, algorithm), expected(preset, task, algorithm)
    assert {key: found.get(key, "missing") for key in right} == right
    table = CONF / "preset/table" / f"{preset}_{task}_{algorithm}.yaml"
    for file in (CONF / "preset" / f"{preset}.yaml", table):
        assert flat(values_of(file)).keys() <= right.keys()  # a value that is added needs a place in the table


def values_of(file: Path) -> dict[str, Any]:
    return {key: value for key, value in yaml.safe_load(file.read_text()).items() if key != "defaults"}


def test_every_table_is_tried() -> None:
    tables = {path.stem for path in (CONF / "preset/table").iterdir()}
    assert tables == {"_".join(row) for row in ROWS} | {"paper_ifeval_resd", "official_ifeval_resd"}


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_ifeval(preset: str) -> None:
    found = chosen(preset, "ifeval", "resd")
    own = {"rollout.max_prompt": 4096, "rollout.max_response": 16384, "evaluation.limit": 100, "evaluation.every": 4}
    right = EVERYWHERE | OF_ALGORITHM["resd"] | own | {"optimizer.lr": 1e-6}
    assert {key: found[key] for key in right} == right


@pytest.mark.parametrize("preset", ["default", "paper", "official"])
@pytest.mark.parametrize("task", ["manufactoria", "bouncingsim", "bouncingsim_medium", "finer"])
def test_a_control_differs_in_one_thing(preset: str, task: str) -> None:
    for base, control, difference in (
        ("resd", "resd_swapped", {"algorithm.name": "resd_swapped"}),
        (
            "resd",
            "resd_verbatim",
            {"algorithm.name": "resd_verbatim", "algorithm.teacher_prompt.reflection": False},
        ),
        ("resd", "resd_fixed", {"algorithm.name": "resd_fixed", "algorithm.entries": ["a rule"]}),
        ("sdpo", "sdpo_ss", {"algorithm.distil_self_success": True}),
    ):
        more = [FIXED] if control == "resd_fixed" else []
        assert chosen(preset, task, control, *more) == chosen(preset, task, base) | difference


def test_tuned_rates() -> None:
    rates = dict.fromkeys(("resd", "resd_swapped", "resd_fixed", "resd_verbatim"), 3e-4)
    rates |= {"sdpo": 1e-3, "sdpo_ss": 1e-3, "grpo": 1e-3}
    for algorithm, rate in rates.items():
        found = load(f"algorithm={algorithm}", *([FIXED] if algorithm == "resd_fixed" else []))
        assert found["optimizer.lr"] == rate
        assert found.get("algorithm.teacher.rate", 0.05) == 0.05


@pytest.mark.parametrize("preset", ["default", "paper", "official"])
@pytest.mark.parametrize(("task", "algorithm"), [("manufactoria", "resd"), ("finer", "sdpo_ss")])
def test_an_adapter_keeps_its_rate(preset: str, task: str, algorithm: str) -> None:
    words = ["model=qwen3_4b_lora", f"preset={preset}", f"task={task}", f"algorithm={algorithm}"]
    assert load(*words)["optimizer.lr"] == 1e-5


def test_a_rate_of_ones_own_is_kept() -> None:
    assert load("model=qwen3_4b_lora", "preset=official", "optimizer.lr=1e-3")["optimizer.lr"] == 1e-3
