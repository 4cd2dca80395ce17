#!/usr/bin/env bash
# Starts a run on some hosts by plain ssh. They share this directory, its environment and OUTPUT.
#   MODEL=... DATASET=... OUTPUT=... bash examples/cluster/ssh.sh host-a host-b
# Ctrl-C here saves a checkpoint there, since each host's terminal ends with this one.
set -euo pipefail

[ "$#" -ge 1 ] || {
  echo "usage: MODEL=... DATASET=... OUTPUT=... $0 HOST [HOST...]" >&2
  exit 2
}
hosts=("$@")
here=$PWD
port=${MASTER_PORT:-29500}
gpus=${NPROC_PER_NODE:-8}

pids=()
trap 'kill "${pids[@]}" 2> /dev/null || true' INT TERM
for rank in "${!hosts[@]}"; do
  printf -v words '%q ' \
    NNODES="${#hosts[@]}" NODE_RANK="$rank" MASTER_ADDR="${hosts[0]}" MASTER_PORT="$port" NPROC_PER_NODE="$gpus" \
    MODEL="$MODEL" DATASET="$DATASET" OUTPUT="$OUTPUT" PATH="$PATH"
  printf -v directory '%q' "$here"
  ssh -tt "${hosts[$rank]}" "cd $directory && env ${words}bash examples/cluster/train.sh" &
  pids+=("$!")
done

code=0
for pid in "${pids[@]}"; do
  wait "$pid" || code=$?
done
exit "$code"
