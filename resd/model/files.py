"""The files of a model folder: whether they are there and whole, told without reading a weight.

Covers what downloads and copies do to a folder, and folders that hold something else than a model. What the files say
is for `load` and `family` to judge. Ids of the hub are not looked at.
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

LFS = b"version https://git-lfs"
ZIP = b"PK\x03\x04"
FOREIGN = ("*.gguf", "consolidated*.pth", "consolidated*.safetensors", "tf_model.h5", "*.msgpack", "*.onnx", "*.npz")
SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
INSIDE = ("best/model", "model", "checkpoints/*/model", "snapshots/*")  # of a run, a checkpoint, a hub's cache
# in the order in which transformers looks for them
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def problem(folder: Path) -> str | None:
    """What is wrong with a model's folder but for its weights, as the rest of a sentence that begins with its name."""
    if (folder / "adapter_config.json").exists():
        return "is an adapter, not a model: merge it into its base (peft: merge_and_unload) and give that folder"
    if not (folder / "config.json").is_file():
        if models := [file.parent for inside in INSIDE for file in sorted(folder.glob(f"{inside}/config.json"))[-1:]]:
            return f"is not a model folder, {models[0]} is: write that"
        foreign = _foreign(folder)
        has = f" (but {foreign}, which this trainer does not read)" if foreign else ""
        return f"is not a model folder: it has no config.json{has}"
    read = [file for file in sorted(folder.glob("*")) if file.suffix in (".json", ".jinja", ".model", ".txt")]
    return _pointer(read)


def alike(one: Path, other: Path) -> bool:
    """Whether two folders hold models of one kind and size."""
    kinds = []
    for folder in (one, other):
        try:
            described = json.loads((folder / "config.json").read_text("utf-8"))
            kinds.append([described[key] for key in SIZES])
        except (OSError, ValueError, LookupError, TypeError):
            return False
    return kinds[0] == kinds[1]


def problem_of_weights(folder: Path) -> str | None:
    """What is wrong with the files of the weights, as `problem`."""
    found = next((name for name in WEIGHTS if (folder / name).exists()), None)
    if found is None:
        foreign = _foreign(folder)
        has = f", only {foreign}, which this trainer does not read" if foreign else ""
        return f"has no weights (model.safetensors){has}: give the folder that has them"
    if not found.endswith(".index.json"):
        return _broken([folder / found])
    try:
        names = sorted(set(json.loads((folder / found).read_text())["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"has no weight_map in {found}: download that file again"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return (
            f"lacks {missing[0]}, {len(missing)} of the {len(names)} files that {found} names: download what is missing"
        )
    return _broken(folder / name for name in names)


def _broken(files: Iterable[Path]) -> str | None:
    for file in files:
        if pointer := _pointer([file]):
            return pointer
        if file.suffix == ".safetensors":
            reason = _safetensors(file)
        else:  # a zip's directory comes last; older files are plain pickles, of which nothing can be told
            reason = "is cut off" if _begins(file, ZIP) and not zipfile.is_zipfile(file) else None
        if reason:
            return f"has a {file.name} that {reason}: copy or download it again"
    return None


def _pointer(files: Iterable[Path]) -> str | None:
    for file in files:
        if file.is_file() and _begins(file, LFS):
            return f"has only the Git LFS pointer of {file.name}: run `git lfs pull` there, or download the file"
    return None


def _safetensors(file: Path) -> str | None:
    """Eight bytes give the length of a JSON header, which gives the place of each tensor behind it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or not 0 < length <= size - 8:
            return f"is cut off or no safetensors file ({size} bytes)"
        try:
            header = json.loads(opened.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return "is no safetensors file"
    whole = 8 + length + max(ends, default=0)
    return None if size == whole else f"has {size} bytes where its header describes {whole}"


def _begins(file: Path, mark: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(mark)) == mark


def _foreign(folder: Path) -> str | None:
    return next((file.name for pattern in FOREIGN for file in sorted(folder.glob(pattern))), None)
