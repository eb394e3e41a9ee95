"""scripts/fetch_model.py: folders and GGUF files become folders that can be trained; everything else is a sentence."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from scripted import model_settings
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from resd.model.chat import Chat
from resd.model.load import load_model
from resd.types import UserError

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import fetch_model
from fetch_model import fetch

NAMES = {  # of Hugging Face and of GGUF
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def qwen() -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
    )
    lm = Qwen2ForCausalLM(config).eval()
    tiny.widen(lm)
    return lm


def write_gguf(lm: Any, path: Path) -> None:
    """The model and its byte tokenizer as llama.cpp would write them, weights in eight bits."""
    gguf = pytest.importorskip("gguf")
    writer, config = gguf.GGUFWriter(path, "qwen2"), lm.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    words = tiny.tokenizer()
    tokens = [*words.convert_ids_to_tokens(range(len(words))), "he"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 3 else 1 for i in range(len(tokens))])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(tiny.TEMPLATE)
    for name, weight in lm.state_dict().items():
        if name == "lm_head.weight":
            continue
        values, kind = weight.numpy(), None
        if weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            values = gguf.quants.quantize(values, kind)
        writer.add_tensor(gguf_name(name), values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def test_a_gguf_file_becomes_a_folder_that_can_be_trained(tmp_path: Path) -> None:
    lm = qwen()
    write_gguf(lm, tmp_path / "tiny-q8_0.gguf")
    out = tmp_path / "made/model"
    assert "0.0 M parameters" in fetch(str(tmp_path / "tiny-q8_0.gguf"), out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["model"]
    settings = model_settings(str(out))
    read, chat = load_model(settings), Chat(settings)
    assert chat.eos_ids == [2]
    assert getattr(read.config, "quantization_config", None) is None
    assert read.config.tie_word_embeddings
    ids = torch.tensor([chat.ids([{"role": "user", "content": "hello"}])])
    assert chat.tokenizer.decode(ids[0]) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, lm(ids).logits, atol=0.2, rtol=0.05)
    assert "there already" in fetch("anything", out)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_computes_what_was_read(tmp_path: Path, tied: bool) -> None:
    lm = tiny.model(tied=tied)
    lm.config.quantization_config = {"quant_method": "gguf"}
    fetch_model._save(lm, tiny.tokenizer(), tmp_path / "out")
    read = load_model(model_settings(str(tmp_path / "out")))
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, lm(ids).logits)
    assert read.config.tie_word_embeddings == tied
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tiny.TEMPLATE


def test_a_folder_is_copied_and_checked(tiny_model: Path, tmp_path: Path) -> None:
    assert "parameters" in fetch(str(tiny_model), tmp_path / "copy")
    assert load_model(model_settings(str(tmp_path / "copy"))).num_parameters() == tiny.model().num_parameters()


def test_what_cannot_be_a_model_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\0\0")
    damaged = tiny.save(tmp_path / "damaged")
    with (damaged / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    before = sorted(tmp_path.iterdir())
    for source, says in {
        "empty": "no config.json",
        "damaged": "download it again",
        "missing.gguf": "not there",
        "cut.gguf": "cut.gguf cannot be read" if importlib.util.find_spec("gguf") else "needs the package gguf",
    }.items():
        with pytest.raises(UserError, match=says):
            fetch(str(tmp_path / source), tmp_path / "out")
    with pytest.raises(UserError, match="cannot be read"):
        fetch("nobody/no-such-model", tmp_path / "out")
    with pytest.raises(UserError, match="exists and is no whole model folder"):
        fetch(str(tiny_model), damaged)
    assert sorted(tmp_path.iterdir()) == before
