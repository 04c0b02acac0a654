#!/bin/sh
# Installs what mlbox needs, then builds the scikit-learn example and trains with it. Safe to run again.
. "$(dirname "$0")/setup.sh"

debian runc tini python3-venv git ca-certificates
environment -e "$top"

cd "$top/examples/sklearn-train"
say "mlbox build -t mlbox/sklearn-train"
$sudo "$bin/mlbox" build -t mlbox/sklearn-train
say "mlbox train"
$sudo "$bin/mlbox" train
say "outputs/metrics.json"
cat outputs/metrics.json
printf '\nmlbox is %s\n' "$bin/mlbox"
