#!/usr/bin/env bash
# Makes an environment for each peer that benchmarks/peers.py races with: ms-swift and LLaMA-Factory, from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
place=${1:-$HOME/.cache/ft/peers}
uv=$PWD/.venv/bin/uv
torch=$(.venv/bin/python -c 'import torch; print(torch.__version__.partition("+")[0])')
mkdir -p "$place"
place=$(cd "$place" && pwd)

peer() { # name, folder of wheels to look at first, packages
  local python=$place/$1/bin/python
  [ ! -f "$place/$1/ready" ] || return 0
  "$uv" venv --quiet --allow-existing --python .venv/bin/python "$place/$1"
  # The same torch for all, so that only the trainers differ. Elsewhere, since uv obeys the versions of this workspace.
  (cd "$place" && "$uv" pip install --quiet ${2:+--find-links "$2"} --python "$python" "torch==$torch" "${@:3}")
  touch "$place/$1/ready"
}

peer swift "${PIP_FIND_LINKS:-}" ms-swift
# It imports torchaudio, whose builds on PyPI only load beside torch's own builds there.
peer factory "" llamafactory
echo "peers: ms-swift and LLaMA-Factory are in $place"
