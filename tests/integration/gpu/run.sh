#!/bin/sh
# For anyone with an NVIDIA GPU and its driver, as root, from anywhere:
#
#     sudo sh tests/integration/gpu/run.sh            # minutes; downloads torch (about 3 GB) unless MLBOX_TORCH=0
#
# Installs what the tests need into .venv (as tests/run.sh does) and proves on this host what cannot be proved without a GPU:
# a kernel computes in a container and its time is that of the bare host (at most 1.01 of it), torch sees exactly one GPU,
# the node of a second GPU is denied, and the driver's tools work in images that have nothing of NVIDIA's.
# Each test says what it measured; what this host lacks (a second GPU, MIG) is skipped with the reason.
set -eu
cd "$(dirname "$0")/../../.."
exec sh tests/run.sh -m gpu tests/integration/gpu -rA -s "$@"
