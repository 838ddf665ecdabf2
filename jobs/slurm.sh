#!/usr/bin/env bash
# Trains under Slurm until the job file's iterations are done, over as many time limits as that takes:
#   sbatch jobs/slurm.sh jobs/JOB.toml [options of train]          (from the top of this tree, set up before with: bash jobs/setup.sh)
# The tree is on a file system that all nodes share. Two minutes before the limit Slurm sends USR1; the ranks then write a checkpoint and
# leave, and the job is put back into the queue. mpirun, not srun: Open MPI's wheel knows Slurm's allocation, but srun would start
# single ranks that know nothing of each other.
#SBATCH --job-name=mpi-ftp
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
cd "${SLURM_SUBMIT_DIR:?this script is for sbatch; without Slurm: bash jobs/cluster.sh}"
. jobs/setup.sh
[ $# -ge 1 ] && [ -r "$1" ] || refuse "expected a job file: sbatch jobs/slurm.sh JOB.toml [options of train]"
job="$1" run="runs/$(basename "$1" .toml)"
shift
run="$(run_folder "$run" "$@")"

"$MPIRUN" "$TREE/.venv/bin/python" -m mpi_ftp train "$job" --run "$run" --resume "$@" &
training=$!
trap 'kill -USR1 "$training"' USR1
rc=0
wait "$training" || rc=$?
while [ "$rc" -gt 128 ] && kill -0 "$training" 2>/dev/null; do      # the signal ended `wait`, not the training
    rc=0
    wait "$training" || rc=$?
done

if [ "$rc" = 0 ] && [ -e "$run/finished" ]; then
    echo "finished: $run"
elif [ "$rc" = 0 ] && [ -e "$run/checkpoint.h5" ]; then
    echo "cut at the time limit; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
else
    echo "failed with exit code $rc, see $run/log.txt" >&2
    exit "$((rc > 0 ? rc : 1))"
fi
