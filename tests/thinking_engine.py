"""What vLLM writes for a model whose template opens its thinking, and whose answers have a schema.

    python thinking_engine.py FOLDER [GUIDANCE]

Prints a JSON list of texts, with the tags that a tokenizer may hide. GUIDANCE replaces what the chat says.
"""

import json
import sys
from typing import Any

from resd import dist
from resd.engine.vllm import VllmEngine
from resd.model.chat import Chat
from resd.settings import ModelSettings, VllmSettings
from resd.types import Request

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"lesson": {"type": "string", "maxLength": 12}},
    "required": ["lesson"],
    "additionalProperties": False,
}
TOKENS, REQUESTS = 240, 12


def main() -> None:
    folder, *wanted = sys.argv[1:]
    settings = VllmSettings(
        name="vllm", pipelined=True, dtype="float32", max_batch=8, tensor_parallel=1, gpu_memory=0.4, kv_cache_gb=1,
        enforce_eager=True,
    )  # fmt: skip
    chat = Chat(
        ModelSettings(
            path=folder, prompts="full", output_format="json", enable_thinking=True, attention="sdpa", max_prompt=100
        )
    )
    dist.start("cpu")
    guidance: Any = wanted[0] if wanted else chat.guidance
    engine = VllmEngine(
        folder, settings, eos_ids=chat.eos_ids, max_length=TOKENS + 100, device="cpu", guidance=guidance
    )
    prompt = chat.ids([{"role": "user", "content": "go"}])
    requests = [Request(prompt, TOKENS, seed=seed, schema=SCHEMA) for seed in range(REQUESTS)]
    done = dict(engine.generate(requests))
    texts = [chat.tokenizer.decode(done[i].ids) for i in range(REQUESTS)]
    closings = [done[i].ids.index(end) if (end := chat.controls.get("</think>")) in done[i].ids else -1 for i in done]
    print("\n" + json.dumps({"texts": texts, "closings": closings, "guidance": guidance}))
    engine.close()


main()
