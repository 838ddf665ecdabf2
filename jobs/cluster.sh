#!/usr/bin/env bash
# Trains on the machines of a host file, one rank for each of its slots:
#   bash jobs/cluster.sh hostfiles/pi-cluster.openmpi jobs/JOB.toml [options of train]
# Every machine holds this tree at the same path, set up with `bash jobs/setup.sh`, and lets you in by ssh without a password.
# Called again after a failure, a cut or a lost machine (comment it out in the host file), it goes on from the last checkpoint.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# -ge 2 ] && [ -r "$1" ] && [ -r "$2" ] || refuse "expected a host file and a job file: bash jobs/cluster.sh HOSTFILE JOB.toml [options of train]"
hostfile="$(realpath "$1")" job="$(realpath "$2")" run="$TREE/runs/$(basename "$2" .toml)"
shift 2
run="$(run_folder "$run" "$@")"

# one line a machine: "name slots=N" (Open MPI) or "name:N" (MPICH)
hosts="$(grep -Ecv '^[[:space:]]*(#|$)' "$hostfile" || true)"
ranks="$(awk '!/^[[:space:]]*(#|$)/ { n = 1; sub(/max[-_]slots=[0-9]+/, ""); if (match($0, /(slots=|:)[0-9]+/)) { n = substr($0, RSTART, RLENGTH); gsub(/[^0-9]/, "", n) } total += n } END { print total + 0 }' "$hostfile")"
[ "$ranks" -gt 0 ] || refuse "$hostfile names no machine"
version="$("$MPIRUN" --version 2>&1 || true)"         # read whole: grep -q would break its pipe
if grep -qi 'open mpi\|openrte\|prrte' <<<"$version"; then
    where=(--hostfile "$hostfile" -x OMP_NUM_THREADS -x OPENBLAS_NUM_THREADS)
else
    where=(-f "$hostfile")
fi

echo "== $ranks ranks on $hosts machines: $job -> $run"
rc=0
"$MPIRUN" "${where[@]}" -n "$ranks" "$TREE/.venv/bin/python" -m mpi_ftp train "$job" --run "$run" --resume --ranks "$ranks" "$@" || rc=$?
# mpirun's exit code is 0 even after a machine was lost; the marker is written last
[ "$rc" = 0 ] && [ -e "$run/finished" ] && exit 0
[ "$rc" != 0 ] || rc=1
echo "the run did not come to its end; the same command goes on from its last checkpoint" >&2
exit "$rc"
