import subprocess
import sys

from resd.seeds import derive


def test_depends_on_every_part_and_nothing_else() -> None:
    seeds = {derive(0, step, phase, i) for step in range(10) for phase in ("rollout", "reflect") for i in range(10)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "\ud83d") != derive(0, "\ud83e")  # halves of characters, as an id of a problem may end


def test_same_in_every_process() -> None:
    code = "from resd.seeds import derive; print(derive(3, 'rollout', 'a/b'))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert found == {f"{derive(3, 'rollout', 'a/b')}\n"}
