"""Model folders as people have them: each works as Hugging Face computes it, or is one sentence before any work."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import close, folder, generated, make, theirs
from test_learner import HARDWARE
from test_shard import settings
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, AutoTokenizer

from resd.model.build import build_student
from resd.model.chat import Chat
from resd.model.load import check_context, read_config
from resd.model.shard import full_tensors
from resd.settings import ModelSettings
from resd.storage.checkpoint import write_model
from resd.types import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3547816\n"


def start(model: ModelSettings, mesh: DeviceMesh) -> tuple[Chat, Any]:
    """What a run makes of a folder before its first token, in its order."""
    check_context(model, 16)
    read_config(model)
    chat = Chat(model)
    student = build_student(model, HARDWARE, mesh)
    chat.fit(len(student.output_embedding))
    return chat, student


def complaint(path: Path, mesh: DeviceMesh, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        start(settings(path).model_copy(update=changes), mesh)
    says = str(caught.value)
    assert says.startswith(f"model.path={path} ") or says.startswith(f"model.path={path}:") or f"{path} " in says
    assert "\n" not in says
    assert len(says) < 600
    return says


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edited(file: str, **values: Any) -> Callable[[Path], None]:
    return lambda path: edit(path / file, **values)


def wrote(file: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: (path / file).write_bytes(data) and None


def weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        held = load_file(path / "model.safetensors")
        change(held)
        save_file(held, path / "model.safetensors", {"format": "pt"})

    return work


def wrapped(prefix: str) -> Callable[[Path], None]:
    return weights(lambda w: [w.update({prefix + name: w.pop(name)}) for name in [*w]])


def only(name: str) -> Callable[[Path], None]:
    """The weights under a name of another program."""
    return lambda path: (path / "model.safetensors").rename(path / name) and None


def cut(file: str, size: int) -> Callable[[Path], None]:
    return lambda path: wrote(file, (path / file).read_bytes()[:size])(path)


def sharded(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        (path / "model.safetensors").unlink()
        tiny.model().save_pretrained(path, max_shard_size="30KB")
        change(path)

    return work


def pickled(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
        change(path)

    return work


def second_shard(path: Path) -> Path:
    return sorted(path.glob("model-00002*"))[0]


def both(*changes: Callable[[Path], Any]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        for change in changes:
            change(path)

    return work


def gone(file: str) -> Callable[[Path], None]:
    return lambda path: (path / file).unlink()


NORM, DOWN = "model.layers.1.input_layernorm.weight", "model.layers.1.mlp.down_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
LFS = r"has only the Git LFS pointer of {}: run `git lfs pull` there"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "LFS weights": (wrote("model.safetensors", POINTER), LFS.format("model.safetensors")),
    "LFS shard": (
        sharded(lambda p: second_shard(p).write_text(POINTER)),
        LFS.format(r"model-00002-of-0000\d.safetensors"),
    ),
    "LFS pickle": (pickled(wrote("pytorch_model.bin", POINTER)), LFS.format("pytorch_model.bin")),
    "LFS index": (
        sharded(wrote("model.safetensors.index.json", POINTER)),
        "Git LFS pointer of model.safetensors.index",
    ),
    "LFS tokenizer": (wrote("tokenizer.json", POINTER), LFS.format("tokenizer.json")),
    "LFS config": (wrote("config.json", POINTER), LFS.format("config.json")),
    "LFS template": (wrote("chat_template.jinja", POINTER), LFS.format("chat_template.jinja")),
    "half a file": (cut("model.safetensors", 40_000), r"model.safetensors that has 40000 bytes where its header"),
    "half a header": (cut("model.safetensors", 100), r"is cut off or no safetensors file \(100 bytes\): copy or down"),
    "three bytes": (cut("model.safetensors", 3), r"is cut off or no safetensors file \(3 bytes\)"),
    "an empty file": (cut("model.safetensors", 0), r"is cut off or no safetensors file \(0 bytes\)"),
    "half a shard": (
        sharded(lambda p: second_shard(p).write_bytes(second_shard(p).read_bytes()[:-4])),
        r"has a model-00002-of-0000\d.safetensors that has \d+ bytes where its header describes \d+: copy or download",
    ),
    "half a pickle": (pickled(cut("pytorch_model.bin", 5_000)), r"has a pytorch_model.bin that is cut off"),
    "a page of HTML": (
        wrote("model.safetensors", "<!doctype html>" * 99),
        "model.safetensors that is .*safetensors file",
    ),
    "a longer file": (
        lambda p: wrote("model.safetensors", (p / "model.safetensors").read_bytes() + b"0000")(p),
        r"has \d+ bytes where its header describes \d+",
    ),
    "half a tokenizer": (cut("tokenizer.json", 500), "cannot be read"),
    "half a config": (cut("config.json", 50), "cannot be read"),
    "an empty config": (wrote("config.json", "{}"), "model_type=None in config.json"),
    "no weights": (gone("model.safetensors"), r"has no weights \(model.safetensors\): give the folder that has them"),
    "no config": (gone("config.json"), "is not a model folder: it has no config.json"),
    "a GGUF file": (only("model-q4.gguf"), r"has no weights .*, only model-q4.gguf, which this trainer does not read"),
    "a GGUF folder": (both(only("m.gguf"), gone("config.json")), r"no config.json \(but m.gguf, which this trainer"),
    "consolidated": (only("consolidated.safetensors"), "only consolidated.safetensors, which this trainer does not"),
    "consolidated shards": (only("consolidated.00.pth"), "only consolidated.00.pth, which this trainer does not read"),
    "TensorFlow": (only("tf_model.h5"), "only tf_model.h5, which this trainer does not read"),
    "an adapter": (wrote("adapter_config.json", "{}"), r"is an adapter, not a model: merge it into its base"),
    "a missing shard": (
        sharded(lambda p: second_shard(p).unlink()),
        r"lacks model-00002-of-0000\d.safetensors, 1 of the \d files that model.safetensors.index.json names",
    ),
    "an index of nothing": (
        sharded(wrote("model.safetensors.index.json", "{}")),
        "has no weight_map in model.safetens",
    ),
    "half an index": (sharded(cut("model.safetensors.index.json", 90)), "has no weight_map in model.safetensors.index"),
    "a missing tensor": (weights(lambda w: w.pop(DOWN)), rf"has no weights for {DOWN}: "),
    "no embedding": (weights(lambda w: w.pop(EMBEDDING)), "has no weights for "),
    "more layers": (
        edited("config.json", num_hidden_layers=4, layer_types=["full_attention"] * 4),
        r"has no weights for model.layers.2.input_layernorm.weight and 21 more",
    ),
    "fewer layers": (
        edited("config.json", num_hidden_layers=1, layer_types=["full_attention"]),
        r"has weights that its config.json does not describe: model.layers.1.\S+ and 10 more: correct the sizes",
    ),
    "a foreign tensor": (
        weights(lambda w: w.update({"value_head.weight": torch.zeros(3)})),
        "weights that its config.json does not describe: value_head.weight",
    ),
    "a wrapper": (wrapped("module."), r"wrapper .* module.model.embed_\S+ and 23 more: save .* \(model._orig_mod or"),
    "two wrappers": (
        wrapped("_orig_mod.module."),
        r"wrapper around .*: _orig_mod.module.model.embed_tokens",
    ),
    "another width": (
        edited("config.json", intermediate_size=72),
        r"weights of another shape for model.layers.0.mlp.down_proj.weight \(\[32, 64\], not \[32, 72\]\) and 5 more",
    ),
    "another vocabulary": (
        edited("config.json", vocab_size=300),
        rf"weights of another shape for {EMBEDDING} \(\[260, 32\], not \[300, 32\]\)",
    ),
    "NaN": (weights(lambda w: w[NORM].fill_(float("nan"))), rf"no numbers \(NaN or infinity\) in {NORM}: give"),
    "one infinity": (
        weights(lambda w: w[DOWN].view(-1)[7].fill_(float("inf"))),
        rf"\(NaN or infinity\) in {DOWN}: give",
    ),
    "untied without a head": (
        edited("config.json", tie_word_embeddings=False),
        "has no weights for lm_head.weight: correct tie_word_embeddings",
    ),
    "tied with a head of its own": (
        weights(lambda w: w.update({"lm_head.weight": torch.ones_like(w[EMBEDDING])})),
        "lm_head.weight.*correct tie_word_embeddings|tie_word_embeddings.*lm_head.weight",
    ),
    "quantised": (edited("config.json", quantization_config={"quant_method": "gptq"}), r"is quantised \(gptq\), and"),
    "quantised otherwise": (edited("config.json", compression_config={"format": "x"}), "is quantised"),
    "remote code": (
        edited("config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling.Mine"}),
        r"brings code of its own \(auto_map, trust_remote_code\), which is not run here",
    ),
    "an unknown family": (
        edited("config.json", model_type="qwen99"),
        "has model_type=qwen99 in config.json, which tran",
    ),
    "an encoder": (edited("config.json", model_type="bert", architectures=["BertForMaskedLM"]), "is BertForMaskedLM"),
    "encoder and decoder": (
        edited("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True),
        "is T5ForConditionalGeneration, an encoder and a decoder: choose a causal language model",
    ),
    "a classifier": (edited("config.json", architectures=["Qwen3ForSequenceClassification"]), "names Qwen3ForCausalLM"),
    "pictures too": (
        edited("config.json", model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"]),
        "Qwen2_5_VLForConditionalGeneration, which also reads other things than text",
    ),
    "no template": (gone("chat_template.jinja"), "has no chat template: add chat_template.jinja to the folder"),
    "an unknown rope": (
        edited("config.json", rope_scaling={"rope_type": "spiral"}, rope_parameters={"rope_type": "spiral"}),
        "spiral|cannot be read",
    ),
    "no end of turn": (
        both(
            edited("tokenizer_config.json", eos_token=None),
            edited("generation_config.json", eos_token_id=None),
        ),
        "names no end-of-turn token: set eos_token_id in generation_config.json",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    kind: str, mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(tiny_model, tmp_path / "model")
    change, message = REFUSED[kind]
    change(path)
    capfd.readouterr()
    says = complaint(path, mesh)
    assert re.search(message, says), says
    shown = capfd.readouterr()
    assert "MISSING" not in shown.out + shown.err  # no tables of transformers


def half(path: Path) -> None:
    lm = tiny.model().to(torch.float16)
    lm.save_pretrained(path)
    edit(path / "config.json", dtype="float16", torch_dtype="float16")


def template_elsewhere(path: Path) -> None:
    template = path / "chat_template.jinja"
    edit(path / "tokenizer_config.json", chat_template=template.read_text())
    template.unlink()


def padded_vocabulary(path: Path) -> None:
    lm = tiny.model()
    lm.resize_token_embeddings(320, mean_resizing=False)
    tiny.widen(lm)
    lm.save_pretrained(path)


def crowded(path: Path) -> None:
    """As checkouts of the hub and trainers leave it."""
    for name in ("README.md", "training_args.bin", "model-q4.gguf", "consolidated.safetensors", ".gitattributes"):
        (path / name).write_text(POINTER if name == "consolidated.safetensors" else "x")
    (path / "original").mkdir()
    (path / "original/params.json").write_text(POINTER)


SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.5}
WORKS: dict[str, Callable[[Path], Any]] = {
    "as saved": lambda path: None,
    "half precision": half,
    "shards": sharded(lambda path: None),
    "a pickle": pickled(lambda path: None),
    "template in the tokenizer's file": template_elsewhere,
    "more rows than tokens": padded_vocabulary,
    "no pad token": edited("tokenizer_config.json", pad_token=None),
    "several ends": edited("generation_config.json", eos_token_id=[0, 2]),
    "sampling of its own": edited("generation_config.json", **SAMPLING),
    "unsaveable sampling": edited("generation_config.json", do_sample=False, temperature=0.6, top_p=0.5),
    "outputs as a tuple": edited("config.json", return_dict=False, output_hidden_states=True, use_cache=False),
    "no generation file": gone("generation_config.json"),
    "many files": crowded,
    "read only": lambda path: [file.chmod(0o444) for file in path.iterdir()] and path.chmod(0o555),
}


@pytest.mark.parametrize("kind", WORKS)
def test_a_folder_that_is_a_little_odd_trains_as_hugging_face_computes_it(
    kind: str, mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    """Student, engine and what is written are those of the file; ends and sampling of a turn are kept as they were."""
    path = shutil.copytree(tiny_model, tmp_path / "model")
    WORKS[kind](path)
    chat, _ = start(settings(path), mesh)
    assert chat.eos_ids == ([0, 2] if kind == "several ends" else [2])
    assert chat.pad_id == (2 if kind == "no pad token" else 0)
    learner = make(settings(path), mesh)
    assert {p.dtype for p in learner.policy.parameters()} == {torch.float32}
    samples = generated(settings(path), learner)
    exact = theirs(path, samples)
    assert close(learner.logprobs(samples), exact, 1e-4)
    assert close([sample.sampled_logprobs for sample in samples], exact, 1e-4)  # whatever sampling the folder likes
    assert isinstance(chat.decode([*range(250, 320)]), str)

    assert learner.update(samples, 1)["skipped_steps"] == 0
    saved = tmp_path / "saved"
    write_model(saved, dict(full_tensors(learner.policy)), learner.policy.lm, chat)
    written, read = (json.loads((folder / "config.json").read_text()) for folder in (saved, path))
    assert written["dtype"] == "float32"
    assert written["vocab_size"] == read["vocab_size"]
    assert close(learner.logprobs(samples), theirs(saved, samples), 1e-4)
    if (path / "generation_config.json").exists():
        before, after = (json.loads((folder / "generation_config.json").read_text()) for folder in (path, saved))
        assert {name: after.get(name) for name in before if name != "transformers_version"} == {
            name: value for name, value in before.items() if name != "transformers_version"
        }
    prompt = [{"role": "user", "content": "a"}]
    assert AutoTokenizer.from_pretrained(saved).apply_chat_template(prompt, tokenize=False) == (
        AutoTokenizer.from_pretrained(path).apply_chat_template(prompt, tokenize=False)
    )
    assert Chat(settings(saved)).eos_ids == chat.eos_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_says_its_precision(
    dtype: torch.dtype, mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    chat, student = start(settings(tiny_model), mesh)
    cast = {name: weight.to(dtype) for name, weight in full_tensors(student)}
    write_model(tmp_path / "saved", cast, student.lm, chat)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype="auto").dtype == dtype
    assert start(settings(tmp_path / "saved"), mesh)[1].output_embedding.dtype == torch.float32


ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "longrope": {
        "factor": 2.0, "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_positions_are_hugging_faces(kind: str, mesh: DeviceMesh, tmp_path: Path) -> None:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **ROPES[kind]}
    model = folder(tmp_path / "model", "llama", rope_parameters=rope)
    learner = make(model, mesh)
    samples = generated(model, learner)
    exact = theirs(model.path, samples)
    assert close(learner.logprobs(samples), exact, 1e-4)
    assert close([sample.sampled_logprobs for sample in samples], exact, 1e-4)
    plain = folder(tmp_path / "plain", "llama")
    assert kind == "dynamic" or not close(theirs(plain.path, samples), exact, 1e-4)  # it is not left out


DROPOUTS = {
    "llama": {"attention_dropout": 0.5},
    "mistral": {"attention_dropout": 0.5, "sliding_window": 4},
    "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
}


@pytest.mark.parametrize("family", DROPOUTS)
@pytest.mark.parametrize("recomputed", [False, True])
def test_dropout_is_off(family: str, recomputed: bool, mesh: DeviceMesh, tmp_path: Path) -> None:
    losses = []
    for changes in (DROPOUTS[family], {name: 0.0 for name in DROPOUTS[family] if "drop" in name}):
        model = folder(tmp_path / str(len(losses)), family, **changes)
        learner = make(model, mesh, activation_checkpointing=recomputed)
        samples = generated(model, learner)
        losses.append([learner.update(samples, step)["loss"] for step in (1, 2)])
    assert losses[0] == losses[1]


def capped(attention: float | None, final: float | None) -> dict[str, Any]:
    return {"head_dim": 8, "attn_logit_softcapping": attention, "final_logit_softcapping": final}


FEATURES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "capped logits": (
        "gemma2",
        capped(None, 30.0),
        "sdpa",
        r"final_logit_softcapping=30.0 is not supported by the fus",
    ),
    "capped logits, eager": ("gemma2", capped(50.0, 30.0), "eager", "final_logit_softcapping=30.0 is not supported"),
    "capped attention": (
        "gemma2",
        capped(50.0, None),
        "sdpa",
        "attn_logit_softcapping=50.0 is ignored by model.attention=sdpa: write model.attention=eager",
    ),
    "a bias of the head": ("phi", {}, "sdpa", "output head of PhiForCausalLM has a bias"),
    "no attention of that kind": ("bloom", {}, "sdpa", "has no model.attention=sdpa in transformers: write model.att"),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_what_the_trainer_cannot_compute_is_named(kind: str, mesh: DeviceMesh, tmp_path: Path) -> None:
    family, changes, attention, message = FEATURES[kind]
    path = Path(folder(tmp_path / "model", family, **changes).path)
    assert re.search(message, complaint(path, mesh, attention=attention))


def test_positions_that_depend_on_the_longest_text_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, **ROPES["longrope"]}
    model = folder(tmp_path / "model", "llama", rope_parameters=rope)
    check_context(model, 64)
    with pytest.raises(
        UserError, match=r"rope_type=longrope, which .* longer than 64 tokens, and .* may have 65: lower"
    ):
        check_context(model, 65)
