#!/usr/bin/env bash
# Runs one of the repository's Python files, on every GPU of this machine:   bash scripts/launch.sh FILE.py [arguments]
#   bash scripts/launch.sh train.py --config configs/dist-yt-web-pt-vit-b-16.json
#   GPUS=2 bash scripts/launch.sh test.py --all --arch TVTSv2_B_16
#
# From the environment, all optional:
#   GPUS         processes on this machine     (default: the GPUs that PyTorch sees; 1 where it sees none)
#   NNODES       machines, or from:to          (default: 1; 2:4 trains on two, and on more while there are more)
#   NODE_RANK    number of this machine from 0 (default: 0; needed when NNODES > 1, but not for from:to, nor with
#                MAX_RESTARTS)
#   MASTER_ADDR  name of machine 0             (default: 127.0.0.1; needed when NNODES > 1)
#   MASTER_PORT  port on machine 0             (default: a free one; 29500 when there are several machines)
#   MAX_RESTARTS how often torchrun starts all anew after a process has failed (default: 0); a training goes on
#                from its newest checkpoint (docs/long-runs.md)
#   RUN_ID       of from:to or MAX_RESTARTS, the run's name, the same on all machines (default: tvtsv2)
#   RDZV_CONF    likewise, torchrun's --rdzv-conf, such as last_call_timeout=60
#   PYTHON       interpreter                   (default: an active virtual environment's, else .venv's, else python3)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1-} in
    '' | -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit $(($# == 0 ? 2 : 0))
        ;;
esac
script=$root/$1
shift

if [ -z "${PYTHON:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && command -v python >/dev/null; then
        PYTHON=python
    elif [ -x "$root/.venv/bin/python" ]; then
        PYTHON=$root/.venv/bin/python
    else
        PYTHON=python3
    fi
fi
if ! seen=$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))' 2>/dev/null); then
    echo "error: $PYTHON has no PyTorch. Set the environment up with: bash $root/scripts/demo.sh" \
        "(or activate one that has requirement.txt installed, or name it in PYTHON)" >&2
    exit 1
fi

for argument in "$@"; do
    case $argument in -h | --help) exec "$PYTHON" "$script" --help ;; esac
done

nodes=${NNODES:-1}
processes=${GPUS:-$seen}
restarts=${MAX_RESTARTS:-0}
if [ "$nodes" = 1 ] && [ "$processes" -le 1 ] && [ "$restarts" -eq 0 ]; then
    exec "$PYTHON" "$script" "$@"
fi

# torchrun would give each process a single thread; share the cores out instead.
threads=$(($(nproc) / processes))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}

# Told to stop, a run saves first, which may take longer than the half minute that torchrun would give it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

if [ "$restarts" -gt 0 ] || [[ $nodes = *:* ]]; then
    # Each start needs a store of its own: in that of the last one, processes find where those listened who are gone.
    # torchrun makes one for machines without fixed numbers alone, and as of PyTorch 2.14 only when told so.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    numbered=false
else
    numbered=true
fi

if [ "$nodes" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    rendezvous=(--standalone)
elif ! $numbered; then
    if [ "$nodes" != 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
        echo "error: NNODES=$nodes needs MASTER_ADDR (a machine that is there all the time, the same on all)" >&2
        exit 2
    fi
    rendezvous=(--rdzv_backend c10d --rdzv_endpoint "${MASTER_ADDR:-127.0.0.1}:${MASTER_PORT:-29500}"
        --rdzv_id "${RUN_ID:-tvtsv2}" ${RDZV_CONF:+--rdzv_conf "$RDZV_CONF"})
elif [ "$nodes" -gt 1 ] && { [ -z "${NODE_RANK:-}" ] || [ -z "${MASTER_ADDR:-}" ]; }; then
    echo "error: NNODES=$nodes needs NODE_RANK (0 to $((nodes - 1)), another on each machine) and MASTER_ADDR" \
        "(machine 0, the same on all)" >&2
    exit 2
else
    rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}"
        --master_port "${MASTER_PORT:-29500}")
fi
if [ "$restarts" -gt 0 ]; then rendezvous+=(--max_restarts "$restarts"); fi
exec "$PYTHON" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$processes" "${rendezvous[@]}" \
    "$script" "$@"
