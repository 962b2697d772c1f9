#!/usr/bin/env bash
# Figures of a GPU in at most eight minutes: bash scripts/gpu_check.sh OUT [options of scripts/gpu_check.py]
#
# For a machine with torch and transformers that reaches no package index: WHEELS names a folder of wheels brought along
# (diffusers, hydra-core, omegaconf, antlr4-python3-runtime, open_clip_torch, ftfy and what else is missing there), fetched with
#   pip wheel --no-deps -w WHEELS diffusers hydra-core omegaconf antlr4-python3-runtime open_clip_torch ftfy
# Without WHEELS the machine's packages are taken as they are.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?"usage: bash scripts/gpu_check.sh OUT [options]"}
shift
python=${PYTHON:-python3}
mkdir -p "$out"
if [ -n "${WHEELS:-}" ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    timeout 90 "$python" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" --target "$packages" "$WHEELS"/*.whl
    export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
cd "$here"
# Each stage has a limit of its own; this one is for the script itself.
timeout --signal=INT --kill-after=5 "${LIMIT:-480}" "$python" scripts/gpu_check.py "$out" "$@"
