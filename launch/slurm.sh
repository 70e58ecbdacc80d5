#!/usr/bin/env bash
# One run on several SLURM nodes, a process for each GPU:
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     python -m vfe.main --config=configs/lvmae_128.py --workdir=/shared/runs/lvmae
#
# JAX finds the processes by SLURM's own variables. Two minutes before its time is up a job gets
# SIGTERM: it saves, ends with 75, and is put back in the queue.
#SBATCH --job-name=vfe
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -uo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch --nodes=N --gpus-per-node=G --ntasks-per-node=G $0 COMMAND ..." >&2
  exit 2
fi

# The signal goes to the tasks, not to this script. When one task has ended the others have a minute:
# told to stop, all end with 75; after a failure those that are left are killed.
export PYTHONUNBUFFERED=1
srun --label --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=60 "$@"
code=$?
echo "launch: the run ended with exit code $code"
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
