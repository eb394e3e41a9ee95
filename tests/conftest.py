import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mesh() -> Iterator[DeviceMesh]:
    """A world of one process."""
    from resd import dist

    yield dist.start("cpu")
    dist.stop()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of 20 k parameters and a byte tokenizer."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("tiny"))
