"""The mixed batch of `test_mixed` on N processes, which this one forks: `python mixed_ranks.py N FILE`.

The first one writes the loss, the gradients, and which samples each process computed.
"""

import os
import socket
import sys


def main(size: int, file: str) -> int:
    import torch
    from test_learner import gradients
    from test_mixed import batch, double

    from resd import dist

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    children = []
    for rank in range(size):
        if child := os.fork():
            children.append(child)
            continue
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        torch.set_num_threads(1)
        with dist.joined("cpu") as mesh:
            learner, samples = double(mesh), batch()
            parts = learner.batcher.batches(samples, learner.objective.loss.reduction)
            mine = sorted(i for part in parts for i in part.indices)
            loss, found = gradients(learner, samples)
            shares = dist.gather({rank: mine})
            if rank == 0:
                torch.save({"loss": loss, "gradients": found, "shares": shares}, file)
        os._exit(0)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
