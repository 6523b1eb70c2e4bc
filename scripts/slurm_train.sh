#!/usr/bin/env bash
# Pre-trains on a Slurm cluster, one process a GPU; sbatch's own options come first:
#
#   sbatch --nodes 4 scripts/slurm_train.sh --config configs/dist-yt-web-pt-vit-h-14.json --set trainer.engine=fsdp
#
# Five minutes before its time is up, or when it is pre-empted, the run saves, and the job queues itself again
# and goes on from there.
#
# From the environment, all optional:
#   MASTER_PORT  port on the first node (default: one made from the job's number)
#   PYTHON       interpreter            (default: an active virtual environment's, else .venv's)
#SBATCH --job-name=tvtsv2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

# Slurm runs a copy of this file; the repository is where sbatch was called, or a parent of that.
root=${SLURM_SUBMIT_DIR:-$(pwd)}
while [ ! -f "$root/train.py" ] && [ "$root" != / ]; do root=$(dirname "$root"); done
if [ ! -f "$root/train.py" ]; then
    echo "error: no train.py in ${SLURM_SUBMIT_DIR:-$(pwd)} or above: call sbatch from the repository" >&2
    exit 2
fi
cd "$root"
if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
    echo "error: this is not a Slurm job: submit it with sbatch scripts/slurm_train.sh (--help says how)" >&2
    exit 2
fi
if [ -z "${PYTHON:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then PYTHON=python; else PYTHON=$root/.venv/bin/python; fi
fi
export PYTHON

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 12000))} # Linux gives 32768 and above to others
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of each process; its loaders are processes of their own

# Without torchrun in between, each process gets Slurm's signals itself and has as long as it needs to save.
status=0
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it over by itself since Slurm 22.05
srun --wait=60 --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec "$PYTHON" train.py --resume auto "$@"' train "$@" || status=$?

if [ "$status" -eq 3 ]; then # told to stop, and saved
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
