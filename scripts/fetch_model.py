"""A model folder that `model.path` can name, from a hub name, a folder, or a GGUF file.

    python scripts/fetch_model.py Qwen/Qwen2.5-0.5B-Instruct models/qwen
    python scripts/fetch_model.py some/folder models/qwen
    python scripts/fetch_model.py model-q4_k_m.gguf models/qwen       # pip install -e ".[gguf]"

The folder has a causal language model in float32 without a trace of quantisation, its tokenizer and its chat template,
and is read once by the trainer's own rules before it takes its place. One that is there already is left alone if it can
be trained. Not covered: GGUF files in several parts (join them first), adapters, code that comes with a model.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resd.model import files
from resd.settings import ModelSettings
from resd.types import UserError

END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
)  # which chats end with, whatever a text ends with


def fetch(source: str, out: Path) -> str:
    """Make the folder `out`; a sentence about it. Raises UserError for what cannot become one."""
    if out.exists():
        if not out.is_dir() or files.problem(out) or files.problem_of_weights(out):
            raise UserError(f"{out} exists and is no whole model folder: remove it, or choose another")
        return f"{out} is there already: {_check(out)}"
    path = Path(source).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as unfinished:
        folder = Path(unfinished, "model")
        if path.suffix == ".gguf":
            _from_gguf(path, folder)
        elif path.is_dir():
            if problem := files.problem(path) or files.problem_of_weights(path):
                raise UserError(f"{source} {problem}")
            shutil.copytree(path, folder)
        else:
            _save(*_read(source), folder)
        said = _check(folder)
        folder.rename(out)
    return f"{out}: {said}"


def _from_gguf(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not there: give the path of a GGUF file")
    if importlib.util.find_spec("gguf") is None:
        raise UserError("a GGUF file needs the package gguf: run pip install gguf")
    _save(*_read(str(path.parent), gguf_file=path.name), folder)


def _read(source: str, **options: Any) -> tuple[Any, Any]:
    """The model in float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        lm = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False, dtype=torch.float32, **options)
    except Exception as error:  # transformers has one for every kind of file
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{options.get('gguf_file', source)} cannot be read ({reason}): give a reachable hub name, a model folder, "
            "or a GGUF file of a model that transformers knows"
        ) from None
    return lm, tokenizer


def _save(lm: Any, tokenizer: Any, folder: Path) -> None:
    """Write what was read as if it had never been quantised; a head that equals the embedding is tied to it."""
    import torch

    values = {k: v for k, v in lm.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    weights = lm.state_dict()
    embedding, head = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    values["tie_word_embeddings"] = head.shape == embedding.shape and bool(torch.equal(head, embedding))
    with torch.device("meta"):
        plain = type(lm)(type(lm.config)(**values))
    plain.load_state_dict(weights, assign=True, strict=False)
    plain.tie_weights()
    for name, buffer in lm.named_buffers():  # what no state holds, such as rope frequencies
        owner, _, key = name.rpartition(".")
        plain.get_submodule(owner)._buffers[key] = buffer
    ends = [tokenizer.convert_tokens_to_ids(mark) for mark in END_OF_TURN if mark in tokenizer.get_vocab()]
    end = ends[0] if ends else tokenizer.eos_token_id
    plain.generation_config.eos_token_id = end
    plain.generation_config.pad_token_id = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    plain.generation_config.do_sample = False
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_settings(folder: str) -> ModelSettings:
    """Those with which a folder is read outside of a run."""
    return ModelSettings(
        path=folder,
        prompts="small",
        output_format="lines",
        enable_thinking=False,
        attention="sdpa",
        max_prompt=512,
    )


def _check(folder: Path) -> str:
    """What the trainer makes of a folder. Raises UserError, as it would."""
    from resd.model.chat import Chat
    from resd.model.load import load_model

    settings = model_settings(str(folder))
    Chat(settings)
    return f"{sum(p.numel() for p in load_model(settings).parameters()) / 1e6:.1f} M parameters"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a hub name, a model folder, or a GGUF file")
    parser.add_argument("out", type=Path, help="the folder to make")
    options = parser.parse_args()
    try:
        print(fetch(options.source, options.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
