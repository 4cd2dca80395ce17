#!/usr/bin/env bash
# Makes the environments that exports are quantized in and loaded by, beside ft's own: "gptqmodel" has GPTQModel and
# optimum (`--quant_python`, FT_QUANT_PYTHON), "v4" has transformers 4 (FT_V4_PYTHON).
set -euo pipefail
cd "$(dirname "$0")/.."
place=${1:-$HOME/.cache/ft/quant}
uv=$PWD/.venv/bin/uv
torch=$(.venv/bin/python -c 'import torch; print(torch.__version__.partition("+")[0])')
transformers=$(.venv/bin/python -c 'import transformers; print(transformers.__version__)')
mkdir -p "$place"

environment() { # name, packages
  local home=$place/$1
  shift
  [ ! -f "$home/ready" ] || return 0
  "$uv" venv --quiet --allow-existing --python .venv/bin/python "$home"
  # The same torch, so that only the loader differs.
  "$uv" pip install --quiet ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --python "$home/bin/python" \
    "torch==$torch" "$@"
  touch "$home/ready"
}

environment gptqmodel "transformers==$transformers" "gptqmodel>=7.6" "optimum>=2.0"
environment v4 "transformers>=4.57,<5" "bitsandbytes>=0.48" "compressed-tensors>=0.16" "gguf>=0.17" accelerate
echo "FT_QUANT_PYTHON=$place/gptqmodel/bin/python"
echo "FT_V4_PYTHON=$place/v4/bin/python"
