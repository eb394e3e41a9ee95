#!/usr/bin/env bash
# One run on several nodes: sbatch --nodes 2 scripts/slurm.sh task=manufactoria model=qwen3_4b_thinking hardware=h200x8 preset=paper
# A requeued job (or the same command with this run_dir=…) continues at the last checkpoint. See docs/cluster.md.
#SBATCH --job-name=resd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 20000))

# One torchrun a node; they meet at the first. An error on one node ends them all.
exec srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:$port" \
    -m resd.train run_dir="runs/slurm_$SLURM_JOB_ID" "$@"
