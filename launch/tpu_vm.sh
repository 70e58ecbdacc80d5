#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice, from your own machine:
#
#   launch/tpu_vm.sh NAME ZONE FOLDER COMMAND ...
#   launch/tpu_vm.sh slice us-west4-a vfe \
#     python3 -m vfe.main --config=configs/lvmae_128.py --workdir=/shared/runs/lvmae
#
# FOLDER is where this project is installed from on every host, below the home folder. JAX asks the
# metadata server for the other hosts. The same command again goes on after a slice was pre-empted.
set -euo pipefail

if [ $# -lt 4 ]; then
  echo "usage: $0 NAME ZONE FOLDER COMMAND ..." >&2
  exit 2
fi
name=$1 zone=$2 folder=$3
shift 3

command="cd $(printf %q "$folder") && VFE_CLUSTER=gcetpu PYTHONUNBUFFERED=1 exec"
command+=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
