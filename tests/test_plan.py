"""The estimate of memory against published sizes and real tensors, and the sentences it ends in."""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from test_learner import make, samples
from test_train import environment, metrics
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from resd.config import CONF, Config, validate
from resd.engine.fused import FusedDecoder
from resd.engine.transformers import TransformersEngine
from resd.model.shard import local_tensors
from resd.plan import GB, Room, Shape, check, estimate, longest_prompt, main_memory
from resd.plan import __main__ as script
from resd.types import UserError

ROOT = Path(__file__).parent.parent

SMALL = {"vocab_size": 128, "num_attention_heads": 4, "tie_word_embeddings": True}


def config(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", list(overrides)))


def shape(model: Any) -> Shape:
    found = Shape.of(model.config.to_dict())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B-Thinking-2507", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", 30_532_122_624),
    ],
)
def test_published_models_have_their_published_sizes(path: str, parameters: int) -> None:
    assert script.shape_of(path).parameters == parameters


@pytest.mark.parametrize(
    "settings",
    [
        Qwen3Config(
            **SMALL, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_key_value_heads=2, head_dim=8
        ),
        Qwen2Config(**SMALL, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_key_value_heads=2),
        LlamaConfig(
            **SMALL | {"tie_word_embeddings": False},
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_key_value_heads=4,
        ),
        Qwen3MoeConfig(
            **SMALL,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_key_value_heads=2,
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
        ),
    ],
    ids=lambda settings: settings.model_type,
)
def test_every_family_is_counted_to_the_last_parameter(settings: Any) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    assert shape(model).parameters == sum(p.numel() for p in model.parameters())


def test_other_models_are_left_alone() -> None:
    assert Shape.of({"model_type": "mamba", "hidden_size": 8}) is None


def moe(**changes: int) -> Any:
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 6}
    more = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, "intermediate_size": 96}
    return AutoModelForCausalLM.from_config(Qwen3MoeConfig(**SMALL, **{**sizes, **more, **changes}))


def dense(**changes: int) -> Any:
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 16}
    return AutoModelForCausalLM.from_config(Qwen3Config(**SMALL, **{**sizes, "intermediate_size": 96, **changes}))


def kept(model: Any, tokens: int) -> int:
    """Bytes that the layers of a model keep of a forward pass, weights aside; the last norm's are taken out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(input_ids=torch.arange(tokens)[None], use_cache=False)
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [dense, moe])
@pytest.mark.parametrize(
    "changes",
    [{}, {"hidden_size": 96}, {"head_dim": 32}, {"num_key_value_heads": 4}],
    ids=lambda c: "-".join(c) or "base",
)
def test_activations_are_those_that_autograd_keeps(build: Any, dtype: torch.dtype, changes: dict[str, int]) -> None:
    tokens = 64
    one, two = (build(**changes, num_hidden_layers=n).to(dtype) for n in (1, 2))
    layer = kept(two, tokens) - kept(one, tokens)
    assert layer / tokens == pytest.approx(shape(one).saved(dtype.itemsize), rel=0.01)


def test_checkpointing_keeps_the_input_of_each_layer() -> None:
    tokens = 64
    one, two = (dense(num_hidden_layers=n).train() for n in (1, 2))
    for model in (one, two):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert kept(two, tokens) - kept(one, tokens) == tokens * 48 * 4


def test_states_are_those_of_a_real_learner(mesh: DeviceMesh) -> None:
    learner = make(mesh)
    grown: list[int] = []
    step = learner.optimizer.step
    learner.optimizer.step = lambda: (grown.append(_bytes(p.grad for p in parameters())), step())  # type: ignore

    def parameters() -> list[Any]:
        return list(learner.policy.parameters())

    learner.update(samples(), 1)
    learning = estimate(shape(tiny.model()), config("model=nano"), 1, 0).phases["learning"]
    assert learning["parameters"] == _bytes(parameters())
    assert learning["gradients"] == grown[0]
    assert learner.teacher is not None
    assert learning["teacher"] == _bytes(local_tensors(learner.teacher.policy.parameters()))
    moments = [t for state in learner.optimizer.state.values() for name, t in state.items() if name != "step"]
    assert learning["optimizer"] == _bytes(moments)


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def test_states_are_shared_by_the_processes() -> None:
    size, settings = shape(tiny.model()), config("model=nano")
    one, four = (estimate(size, settings, ranks, 0).phases["learning"] for ranks in (1, 4))
    for part in ("parameters", "gradients", "optimizer", "teacher"):
        assert four[part] * 4 == one[part]
    live = estimate(size, config("model=nano", "algorithm.teacher.kind=live"), 1, 0).phases["learning"]
    assert "teacher" not in live
    assert live["head"] < one["head"]


def test_the_engine_is_one_whole_model_and_its_cache() -> None:
    model = tiny.model()
    settings = config("engine.max_batch=3", "rollout.max_prompt=20", "rollout.max_response=44", "model.max_prompt=20")
    engine = TransformersEngine(model, eos_ids=[1], max_batch=3, max_length=64)
    generating = estimate(shape(model), settings, 1, 0).phases["generating"]
    assert generating["engine"] == _bytes(engine.model.parameters())
    assert engine.fused is not None
    decoder = FusedDecoder(engine.fused, 3)
    decoder.prefill([[5] * 20] * 3)
    for _ in range(44):
        decoder.step(torch.tensor([5, 5, 5]))
    assert generating["cache"] == _bytes(decoder.cache)


def test_a_run_takes_what_was_foreseen(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "resd.train", "task=manufactoria", "model=nano", "steps=1", f"run_dir={tmp_path}"]
    short = [
        "evaluation.before=false",
        "evaluation.limit=1",
        "evaluation.samples=1",
        "hardware.micro_batch_tokens=8192",
    ]
    done = subprocess.run(
        [*command, *short], env=environment(), capture_output=True, text=True, timeout=900, check=True
    )
    nano = Shape.of(json.loads((ROOT / "resd/model/nano/config.json").read_text()))
    assert nano is not None
    guess = estimate(nano, config(*short), 1, 0)
    assert done.stdout.startswith(f"memory of a process while learning: up to {guess.peak / GB:.1f} GB")
    took = metrics(tmp_path)[0]["perf/peak_memory_gb"] * GB
    assert 0.6 * guess.least < took < 1.2 * guess.peak


def sentence(model: str, *overrides: str, ranks: int = 8, memory: int = 139, host: int = 2000) -> str:
    settings = script.load([f"model={model}", *overrides])
    room = Room(memory * GB, memory * GB, host * GB, min(ranks, 8))
    return check(script.shape_of(settings.model.path), settings, ranks, room)


VLLM = ["hardware=h200x8", "engine=vllm", "engine.tensor_parallel=4"]


@pytest.mark.parametrize("model", ["qwen3_4b_thinking", "qwen3_30b_a3b"])
def test_the_presets_for_eight_h200_fit(model: str) -> None:
    assert "more than" not in sentence(model, *VLLM)


@pytest.mark.parametrize(("model", "memory"), [("qwen3_0_6b", 24), ("qwen3_1_7b", 80)])
def test_the_presets_for_one_gpu_fit(model: str, memory: int) -> None:
    assert "more than" not in sentence(model, "hardware=gpu1", "engine=vllm", ranks=1, memory=memory, host=64)


@pytest.mark.parametrize(
    ("model", "machine", "extra", "says"),
    [
        ("qwen3_30b_a3b", {"memory": 79}, "", "take more processes"),
        ("qwen3_30b_a3b", {"host": 500}, "", "fewer processes on each machine"),
        ("qwen3_30b_a3b", {}, "engine.gpu_memory=0.1 engine.tensor_parallel=1", "raise engine.gpu_memory"),
        ("qwen3_4b_thinking", {"memory": 24}, "engine.gpu_memory=0.9", "lower engine.gpu_memory"),
        ("qwen3_4b_thinking", {"memory": 60}, "hardware.activation_checkpointing=false", "checkpointing=true"),
        ("qwen3_0_6b", {"ranks": 1, "memory": 24}, "hardware.head_chunk=99999", "hardware.head_chunk"),
    ],
    ids=["parameters", "host", "share", "engine", "activations", "head"],
)
def test_what_cannot_fit_is_one_sentence_with_a_remedy(
    model: str, machine: dict[str, int], extra: str, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        sentence(model, *VLLM, *extra.split(), **machine)
    assert "\n" not in str(caught.value)


H200 = Room(139 * GB, 139 * GB, 2000 * GB, 8)
LONG = ["rollout.max_response=20480", "model.max_prompt=70000"]


def test_prompts_of_70_000_tokens_fit_eight_h200() -> None:
    """Where the student's activations are checkpointed: the teacher's forward pass keeps nothing."""
    assert "up to" in sentence("qwen3_4b_thinking", *VLLM, *LONG)
    with pytest.raises(UserError, match="activation_checkpointing=true"):
        sentence("qwen3_4b_thinking", *VLLM, *LONG, "hardware.activation_checkpointing=false")


def test_a_prompt_beyond_the_machine_is_refused_with_what_fits() -> None:
    settings = script.load(["model=qwen3_4b_thinking", *VLLM])
    size = script.shape_of(settings.model.path)
    longest = longest_prompt(size, settings, 8, H200)
    assert longest > 70_000
    assert longest_prompt(size, settings, 8, Room(70 * GB, 70 * GB, 2000 * GB, 8)) < longest
    assert "memory of a process" in sentence("qwen3_4b_thinking", *VLLM, f"model.max_prompt={longest}")
    with pytest.raises(UserError, match=f"max_prompt={longest + 1} is more .* at most {longest}, or lower "):
        sentence("qwen3_4b_thinking", *VLLM, f"model.max_prompt={longest + 1}")


def test_a_prompt_beyond_vllms_share_asks_for_more_of_it() -> None:
    with pytest.raises(UserError, match=r"max_prompt=\d+ is more .* or raise engine\.gpu_memory"):
        sentence("qwen3_4b_thinking", *VLLM, "engine.gpu_memory=0.1", "model.max_prompt=400000")


def parts(*overrides: str, ranks: int = 8) -> dict[str, int]:
    """Of a 4 B model in gigabytes, while it learns."""
    settings = script.load(["model=qwen3_4b_thinking", *VLLM, *overrides])
    return estimate(script.shape_of(settings.model.path), settings, ranks, 139 * GB).phases["learning"]


def test_groups_of_processes_share_a_whole_model() -> None:
    all_of_them, by_eight = parts(ranks=16), parts("hardware.shard_processes=8", ranks=16)
    for part in ("parameters", "teacher", "optimizer", "gradients"):
        assert by_eight[part] == parts(ranks=8)[part]
        assert by_eight[part] == pytest.approx(2 * all_of_them[part], abs=2)


def test_what_is_offloaded_is_in_main_memory() -> None:
    near = parts()
    assert near.keys() - parts("hardware.offload=teacher").keys() == {"teacher"}
    assert near.keys() - parts("hardware.offload=all").keys() == {"parameters", "teacher", "optimizer"}
    assert parts("hardware.offload=all")["gradients"] == 0
    size = script.shape_of("Qwen/Qwen3-4B-Thinking-2507")
    hosts = []
    for offload in ("null", "teacher", "all"):
        settings = script.load(["model=qwen3_4b_thinking", *VLLM, f"hardware.offload={offload}"])
        hosts.append(estimate(size, settings, 8, 139 * GB).host)
    shard = 4 * size.parameters // 8
    assert [other - hosts[0][1] for _, other in hosts] == pytest.approx([0, shard, 5 * shard], abs=8)
    assert "teacher" in parts("hardware.offload=all", "hardware.device=cpu", "hardware.dtype=float32")


def test_an_adapter_needs_no_second_copy(mesh: DeviceMesh, tiny_model: Path) -> None:
    """Compared with a real learner whose adapters are on all modules, and some."""
    from test_lora import EVERYWHERE
    from test_lora import make as make_adapted

    for targets in (EVERYWHERE, ["k_proj", "down_proj"]):
        learner = make_adapted(tiny_model, mesh, to=targets)
        learner.update(samples(), 1)
        lora = f"model.lora={{rank: 3, alpha: 6, targets: [{','.join(targets)}]}}"
        learning = estimate(shape(tiny.model()), config("model=nano", lora), 1, 0).phases["learning"]
        assert "teacher" not in learning
        assert learning["parameters"] == _bytes(learner.policy.parameters())
        moments = [t for state in learner.optimizer.state.values() for name, t in state.items() if name != "step"]
        assert learning["optimizer"] == 2 * learning["gradients"] == _bytes(moments)


def test_only_the_first_process_reads_a_whole_model() -> None:
    settings = script.load(["model=qwen3_30b_a3b", *VLLM])
    size = script.shape_of(settings.model.path)
    guess = estimate(size, settings, 8, 139 * GB)
    assert guess.phases["loading"]["parameters"] == 4 * size.parameters // 8
    assert guess.phases["loading"]["a tensor as it is given out"] == 4 * 128 * 2 * 768 * 2048 * 9 // 8
    first, other = guess.host
    assert first - other <= 4 * size.parameters < first


def test_long_texts_that_might_not_fit_are_a_warning() -> None:
    says = sentence("qwen3_4b_thinking", "hardware=h200x8")
    assert "if all texts get long" in says
    assert "engine.max_batch" in says


def test_a_model_beyond_the_machine_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A configuration of 400 B parameters without weights: trying to read them would be another error."""
    tiny.save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 65536, "intermediate_size": 10**6}))
    save_file({}, tmp_path / "model" / "model.safetensors")
    command = [sys.executable, "-m", "resd.train", f"model.path={tmp_path / 'model'}", f"run_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a process needs ")
    assert len(done.stderr.splitlines()) == 1


def test_a_prompt_beyond_the_machine_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    file = tiny.save(tmp_path / "model") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 10**12}))
    save_file({}, tmp_path / "model" / "model.safetensors")
    arguments = [f"model.path={tmp_path / 'model'}", f"run_dir={tmp_path / 'run'}", f"model.max_prompt={10**10}"]
    command = [sys.executable, "-m", "resd.train", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: model.max_prompt={10**10} is more than fits, even one prompt")
    assert len(done.stderr.splitlines()) == 1


def test_main_memory_is_what_the_system_says() -> None:
    assert GB / 4 < main_memory() < 2**50


def test_time_is_linear_where_it_must_be() -> None:
    settings, machine = script.load(["model=qwen3_4b_thinking", *VLLM]), script.MACHINES["h200"]
    lengths = script.Lengths(600, 8000, 20480, 16000, 3000)
    size = script.shape_of(settings.model.path)
    eight, sixteen = (script.seconds(size, settings, ranks, lengths, machine) for ranks in (8, 16))
    assert sixteen["update"] == pytest.approx(eight["update"] / 2)
    assert sixteen["sync"] == eight["sync"]
    assert eight["rollout"] / 2 < sixteen["rollout"] < eight["rollout"]  # the longest response does not get shorter
    no_tail = script.replace(lengths, longest=8000)
    assert script.seconds(size, settings, 8, no_tail, machine)["rollout"] < eight["rollout"]
    adapted = script.load(["model=qwen3_4b_lora", *VLLM])  # four passes, of which one is for gradients of weights
    assert script.seconds(size, adapted, 8, lengths, machine)["update"] == pytest.approx(0.75 * eight["update"])
    plain = script.load(["model=qwen3_4b_thinking", "algorithm=grpo", "hardware=h200x8"])
    assert script.seconds(size, plain, 8, lengths, machine).keys() == {"rollout", "update", "sync"}


def test_the_program_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--model", "qwen3_4b_thinking,qwen3_30b_a3b", "--processes", "8,16", "--json", *VLLM])
    lines = capsys.readouterr().out.splitlines()
    plans = json.loads(lines[-1])["plans"]
    assert [(p["model"].split("/")[1][:10], p["processes"]) for p in plans] == [
        *[("Qwen3-4B-T", 8), ("Qwen3-4B-T", 16), ("Qwen3-30B-", 8), ("Qwen3-30B-", 16)]
    ]
    assert all(p["fits"] and p["step_s"] > 0 for p in plans)
    assert script.main(["--model", "qwen3_4b_thinking", "--check", "nowhere"]) == 2
    assert "not a run directory" in capsys.readouterr().err


def told(run_dir: Path, *words: str) -> None:
    """The run was told so, on a machine that has more than this one."""
    file = run_dir / "config.yaml"
    other = script.load(words).model_dump(mode="json")
    changes = {key: other[key] for key in ("engine", "algorithm")}
    changes |= {"trackers": ["wandb", "mlflow"], "resume": "/gone/checkpoints/step_000001"}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


@pytest.mark.parametrize("words", [[], ["engine=vllm"], ["algorithm=reflect_retry_reward"]], ids="".join)
def test_a_run_is_compared_with_what_was_foreseen(
    run_dir: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    told(run_dir, *words)
    for file in (run_dir / "attempts").iterdir():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        retries = [line | {"id": f"{line['id']}/retry", "parent": line["id"], "reflection": None} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *retries]))
    command = ["--check", str(run_dir), "--processes", "1", "--machine", "cpu", "--json"]
    assert script.main(command) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [row for row in metrics(run_dir) if row["kind"] == "train"]
    assert found["measured_s"]["rollout"] == statistics.median(row["time/rollout"] for row in rows)
    assert min(found["foreseen_s"][phase] for phase in ("rollout", "reflect", "update")) > 0
    assert ("retry" in found["foreseen_s"]) == ("algorithm=reflect_retry_reward" in words)


def test_what_a_run_does_not_tell_is_not_compared(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{key: value for key, value in row.items() if "memory" not in key} for row in metrics(run_dir)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert script.main(["--check", str(run_dir)]) == 0
    assert "GB foreseen, not measured" in capsys.readouterr().out
    shutil.rmtree(run_dir / "attempts")
    assert script.main(["--check", str(run_dir)]) == 2
    assert capsys.readouterr().err == (
        f"error: {run_dir} has no attempts/, which say how long its texts were: restore the folder\n"
    )


def test_processes_that_the_engine_cannot_share_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--processes", "2", *VLLM]) == 2
    assert "engine.tensor_parallel=4 does not divide the 2 processes" in capsys.readouterr().err
