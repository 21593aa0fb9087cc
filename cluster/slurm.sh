#!/usr/bin/env bash
# Corgi on Slurm, from a clone on a folder that every node shares:  sbatch cluster/slurm.sh RECIPE root=/shared/runs
#
# Yours to change: the number of nodes, what each has, and the time. The environment is .venv of the clone (`make
# install`), or what is active when you call sbatch. Every node takes part in the work, the first one too. After the time is up,
# submit the same line again: finished work is skipped, unfinished work resumes.
#SBATCH --job-name=corgi
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi

# The token is made once by `ray get-auth-token --generate`; the home folder is shared, or copy ~/.ray/auth_token to each node.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=1800
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST") # no `| head`: a closed pipe would end the script
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs of one user never share a port
export RAY_ADDRESS=${nodes[0]}:$port

# Starts Ray on each node, runs the command on the first, and stops Ray; --exclusive keeps that from other jobs. What a
# training did since its last checkpoint is repeated when the time was up.
srun --kill-on-bad-exit=1 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_ON_NODE" -- python pipelines/full.py "$@"
