#!/usr/bin/env bash
# Makes .venv from the lock of this workspace. Needs Python >= 3.11 with venv, and pip; gets uv itself.
#
# With an NVIDIA GPU this is plain `uv sync`. Without one, torch is installed by pip first, because pip
# also looks at local wheel folders (PIP_FIND_LINKS) and so finds a CPU build where one is offered: 3 GB
# less to download and half the import time. Everything else comes from the same lock either way.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: $("$python" --version) is too old; ft needs Python 3.11 to 3.13 (set PYTHON=python3.12)" >&2
  exit 1
}

stamp=.venv/.ft-setup
inputs=$(cat pyproject.toml packages/*/pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$inputs" ] && [ -x .venv/bin/python ]; then
  exit 0
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet "uv>=0.9,<0.14"
export UV_PYTHON="$PWD/.venv/bin/python"
uv=.venv/bin/uv

"$uv" lock --quiet
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
  "$uv" sync --quiet --locked --group demo --inexact
else
  torch=$("$uv" export --quiet --locked --no-hashes --no-header --no-annotate --only-emit-package torch 2>/dev/null |
    sed -n 's/^torch==\([0-9.]*\).*/\1/p' | head -n 1)
  [ -n "$torch" ] || torch=$(grep -A1 '^name = "torch"$' uv.lock | sed -n 's/^version = "\(.*\)"/\1/p' | tail -n 1)
  .venv/bin/python -m pip install --quiet "torch==$torch"
  "$uv" export --quiet --locked --no-emit-workspace --group demo --prune torch --prune torchvision --no-hashes \
    -o .venv/requirements.txt
  "$uv" pip install --quiet --no-deps -r .venv/requirements.txt
  # torchvision's wheels are for a torch with CUDA: beside a CPU build it breaks transformers wherever it is found, so
  # it lies apart, for the tests of videos.
  "$uv" export --quiet --locked --no-hashes --no-header --no-annotate --only-emit-package torchvision \
    -o .venv/torchvision.txt >/dev/null
  "$uv" pip install --quiet --no-deps --target .venv/torchvision -r .venv/torchvision.txt
  # shellcheck disable=SC2046  # one word per package is what is wanted
  "$uv" pip install --quiet --no-deps $(for d in packages/*/; do printf -- '-e ./%s ' "$d"; done)
fi
echo "$inputs" > "$stamp"
.venv/bin/python -c 'import torch; print(f"setup: Python, torch {torch.__version__} and nine ft packages are in .venv")'
