import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.distributed.device_mesh import DeviceMesh

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
# What a script starts in the background ignores Ctrl-C, and so would all that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples at every run, so that a failure is a change; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


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


@pytest.fixture(scope="session")
def finished(mesh: DeviceMesh, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three updates, each with a checkpoint. To be copied, not changed."""
    from test_checkpoint import go

    made = tmp_path_factory.mktemp("finished") / "run"
    go(tiny_model, made, "steps=3")
    return made


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))
