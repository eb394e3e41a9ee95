"""What starts runs on clusters, as far as one machine can tell: syntax, names that must agree, and torchruns of two
nodes that meet here as they would there."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from test_train import SMALL, environment, metrics, of_kind

from resd import __version__
from resd.config import CONF

ROOT = Path(__file__).parent.parent
SLURM = ROOT / "scripts" / "slurm.sh"
BIN = Path(sys.executable).parent
TRAIN = [*SMALL, "steps=1", "evaluation.before=false"]


def manifest() -> dict[str, dict[str, Any]]:
    return {part["kind"]: part for part in yaml.safe_load_all((ROOT / "scripts" / "kubernetes.yaml").read_text())}


def pod() -> dict[str, Any]:
    return manifest()["Job"]["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return only


def variables() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"] if "value" in entry}


def test_the_pods_find_each_other() -> None:
    parts = manifest()
    job, service = parts["Job"], parts["Service"]
    assert job["apiVersion"] == "batch/v1"
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(variables()["PET_NNODES"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod()["subdomain"] == service["metadata"]["name"]
    assert variables()["PET_MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    rank = next(entry for entry in container()["env"] if entry["name"] == "PET_NODE_RANK")
    assert "job-completion-index" in rank["valueFrom"]["fieldRef"]["fieldPath"]


def test_the_pods_have_what_they_need() -> None:
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == int(variables()["PET_NPROC_PER_NODE"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert mounts.keys() == volumes.keys()
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert claim == manifest()["PersistentVolumeClaim"]["metadata"]["name"]
    run_dir = next(argument for argument in container()["args"] if argument.startswith("run_dir="))
    assert run_dir.removeprefix("run_dir=").startswith(mounts["runs"])  # outlives the pods, and all of them see it
    assert variables()["HF_HOME"].startswith(mounts["runs"])
    assert pod()["securityContext"]["runAsNonRoot"]
    assert str(pod()["securityContext"]["runAsUser"]) in (ROOT / "Dockerfile").read_text()
    assert pod()["restartPolicy"] == "OnFailure"
    assert container()["image"] == f"resd:{__version__}"


def test_command_lines_of_the_manifests_compose() -> None:
    comment = next(line for line in SLURM.read_text().splitlines() if "sbatch" in line)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in (container()["args"], comment.split("slurm.sh ")[1].split()):
            assert compose("config", overrides).hardware.device == "cuda"


def test_the_slurm_script_is_clean_bash() -> None:
    assert os.access(SLURM, os.X_OK)
    subprocess.run(["bash", "-n", SLURM], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SLURM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_slurm_script_trains_on_two_nodes(tiny_model: Path, tmp_path: Path) -> None:
    """Slurm's two commands are played by stand-ins that take this machine for both nodes; the rest is real."""
    write(tmp_path / "bin" / "scontrol", 'test "$*" = "show hostnames two-nodes" && printf "localhost\\nlocalhost\\n"')
    write(tmp_path / "bin" / "srun", 'test "$1" = --kill-on-bad-exit=1 && shift && "$@" & shift; "$@" && wait $!')
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "two-nodes"}
    path = {"PATH": f"{tmp_path / 'bin'}:{BIN}:{os.environ['PATH']}"}
    run_dir = tmp_path / "run"
    finish([SLURM, *TRAIN, f"model.path={tiny_model}", f"run_dir={run_dir}"], slurm | path)
    assert [row["step"] for row in of_kind(metrics(run_dir), "train")] == [1]


def write(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def finish(command: Sequence[str | Path], extra: dict[str, str]) -> None:
    done = subprocess.run(
        command, env={**environment(), **extra}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 process(es)" in done.stdout


@pytest.mark.slow
def test_the_variables_of_the_manifest_make_one_world(tiny_model: Path, tmp_path: Path) -> None:
    """The entry point of the image, twice, with the manifest's variables; only address and process count are ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port), "PET_NPROC_PER_NODE": "1"}
    command = [BIN / "torchrun", "-m", "resd.train", *TRAIN, f"model.path={tiny_model}", f"run_dir={tmp_path}"]
    second = subprocess.Popen(
        command,
        env={**environment(), **variables(), **ours, "PET_NODE_RANK": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    finish(command, {**variables(), **ours, "PET_NODE_RANK": "0"})
    assert second.wait(timeout=600) == 0
    assert [row["step"] for row in of_kind(metrics(tmp_path), "train")] == [1]
