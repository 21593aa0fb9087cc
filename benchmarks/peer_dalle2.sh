#!/usr/bin/env bash
# Make benchmarks/.peers/dalle2: DALLE2-pytorch in an environment of its own that borrows torch from the one that runs this.
set -eu -o pipefail
home="$(cd "$(dirname "$0")" && pwd)/.peers/dalle2"
test -f "$home/ready" && exit 0
python -m venv "$home"
python -c 'import site; print(site.getsitepackages()[0])' > "$("$home/bin/python" -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
"$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
  dalle2-pytorch==1.15.6 accelerate clip-anytorch coca-pytorch einx ema-pytorch embedding-reader kornia kornia-rs \
  pytorch-warmup resize-right rotary-embedding-torch vector-quantize-pytorch x-clip ftfy frozendict loguru torch-einops-utils
"$home/bin/python" -c "from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork"
touch "$home/ready"
