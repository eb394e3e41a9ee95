"""Trains as torchrun with N processes does, run after run, but imports torch only once and then forks.

    python world.py N key=value … [-- key=value …]

Weights are the first process's to read: in the others an attempt is an error.
"""

import os
import socket
import sys
from itertools import groupby


def main() -> int:
    size = int(sys.argv[1])
    runs = [list(group) for split, group in groupby(sys.argv[2:], lambda word: word == "--") if not split]
    # here, because the verifier's processes read this file again, and need none of it
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    import resd.model.build as build
    import resd.session
    import resd.train  # noqa: F401

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    children = []
    for rank in range(size):
        if child := os.fork():
            children.append(child)
        else:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if rank:
                del build.load_model
            train(runs)
            sys.stdout.flush()
            os._exit(0)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children)


def train(runs: list[list[str]]) -> None:
    from hydra import compose, initialize_config_dir

    from resd import dist
    from resd.config import CONF, validate
    from resd.train import guarded
    from resd.train import train as once

    def work() -> None:
        with dist.joined("cpu"), initialize_config_dir(str(CONF), version_base="1.3"):
            for arguments in runs:
                once(validate(compose("config", arguments)))

    guarded(work)


if __name__ == "__main__":
    sys.exit(main())
