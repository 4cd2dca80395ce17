#!/usr/bin/env bash
# What every node runs, once. The launcher says where it is: NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and
# NPROC_PER_NODE (one process for each GPU). Further flags may follow.
set -euo pipefail

: "${MODEL:?set MODEL to a model directory or hub id that every node can read}"
: "${DATASET:?set DATASET to a file or hub id that every node can read}"
: "${OUTPUT:?set OUTPUT to a directory that all nodes share}"

# A job that was stopped and starts again goes on with its last checkpoint.
resume=()
if compgen -G "$OUTPUT/*/v*/checkpoint-*" > /dev/null; then
  resume=(--resume_from_checkpoint latest)
fi

exec ft sft \
  --model_id_or_path "$MODEL" \
  --dataset "$DATASET" \
  --output_dir "$OUTPUT" \
  --sft_type lora \
  --deepspeed default-zero2 \
  --save_steps 50 \
  "${resume[@]}" \
  "$@"
