"""Reads the tensor shards of `state/` (torch DCP) without running anything that is written there.

DCP describes its files in a pickle, `.metadata`, and keeps single numbers in pickles too; its own reader executes both.
Here the first may name DCP's classes of metadata and nothing else, and the others are loaded as torch loads weights.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_METADATA, f"{kind}StorageMetadata") for kind in ("Tensor", "Bytes", "Chunk")),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    *((module, f"{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "PurePosix")),
    *(("torch", str(value).removeprefix("torch.")) for value in vars(torch).values() if isinstance(value, torch.dtype)),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a checkpoint")
        return super().find_class(module, name)


def read_metadata(state: Path) -> Metadata:
    """What `.metadata` says. Raises ValueError with what is wrong: foreign contents, files missing or too short."""
    try:
        found = _Unpickler(io.BytesIO((state / ".metadata").read_bytes())).load()
        places = list(found.storage_data.values())
        ends = {info.relative_path: 0 for info in places}
        for info in places:
            ends[info.relative_path] = max(ends[info.relative_path], info.offset + info.length)
    except FileNotFoundError:
        raise ValueError("state/.metadata is missing") from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(f"state/.metadata is not a checkpoint's ({str(error) or type(error).__name__})") from None
    for name, end in ends.items():
        if Path(name).name != name:
            raise ValueError(f"state/.metadata names a file elsewhere ({name})")
        if not (state / name).is_file():
            raise ValueError(f"state/{name} is missing")
        if (state / name).stat().st_size < end:
            raise ValueError(f"state/{name} has {(state / name).stat().st_size} bytes instead of {end}")
    return found


class ShardReader(FileSystemReader):
    """DCP's reader with the metadata of `read_metadata`."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = read_metadata(Path(self.path))
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class ShardPlanner(DefaultLoadPlanner):
    """DCP's planner with single values loaded as weights are."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        name, loaded = read_item.dest_index.fqn, torch.load(value, weights_only=True)
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], loaded)
        else:
            self.state_dict[name] = loaded
