#!/usr/bin/env bash
# Runs a verb of mpi-ftp on N emulated hosts of this machine, one rank on each, with shaped links and a limited share of the processor:
#   bash jobs/emulate.sh HOSTS RATE CPU[,CPU…] VERB [options of the verb]
#   bash jobs/emulate.sh 6 2400mbit 33 scaling --cfg jobs/reference.cfg --batches 4 --plans samples,tail,'spatial 0/4/8'
#   bash jobs/emulate.sh 2 700mbit 66,33 train jobs/reference.toml --run runs/uneven
# RATE is each host's link (700mbit, 1gbit); CPU the per cent of one core that a host gets, one figure for all or one for each (the last goes on).
# Host i stays on core i modulo cores: a board's core does not wander; jobs/metronome.py has its share looked at every half millisecond.
# `scaling` is limited from its line "kernels are loaded" on
# (LIMIT_AT="plans are made": it measures and plans with whole cores); other verbs are limited from their start.
# Needs root, Linux with cgroup v1 and the tool `lab` (LAB=…, default ../shared/lab/lab beside this tree); one emulation at a time on a machine.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
refuse() {
    echo "emulate: $*" >&2
    exit 1
}

LAB="${LAB:-$TREE/../shared/lab/lab}"
[ $# -ge 4 ] || refuse "expected hosts, rate, CPU and a verb: bash jobs/emulate.sh 6 2400mbit 33 scaling --cfg jobs/reference.cfg"
hosts="$1" rate="$2" cpu="$3" verb="$4"
shift 4
[[ $hosts =~ ^[1-9][0-9]*$ ]] || refuse "$hosts: expected a number of hosts"
[[ $rate =~ ^[1-9][0-9]*(k|m|g)bit$ ]] || refuse "$rate: expected a rate such as 700mbit or 1gbit"
[[ $cpu =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || refuse "$cpu: expected per cent of a core, such as 33 or 100,50"
[ -x "$LAB" ] || refuse "there is no tool $LAB, which makes the hosts; name it with LAB=/path/of/lab"
[ "$(id -u)" = 0 ] || refuse "making network namespaces and limits of the processor takes root"
version="$("$MPIRUN" --version 2>&1 || true)"
grep -qi 'open mpi' <<<"$version" || refuse "$MPIRUN is not Open MPI's, which starts ranks on emulated hosts; set the tree up with MPI=openmpi"
export LAB_DIR="${LAB_DIR:-/tmp/mpi-lab}" PATH="$(dirname "$MPIRUN"):$PATH"
export PYTHONSAFEPATH=1 NUMBA_NUM_THREADS="${NUMBA_NUM_THREADS:-1}"

IFS=, read -ra shares <<<"$cpu"
limit() {       # in parts of 5 ms
    for i in $(seq "$hosts"); do
        echo $((${shares[i - 1]:-${shares[-1]}} * 50)) >"$LAB_DIR/cg/cpu/lab_pi$i/cpu.cfs_quota_us"
    done
}

cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)        # nproc would tell the number of threads of OpenMP
metronomes=()
trap 'kill "${metronomes[@]}" || true; "$LAB" down' EXIT
trap 'exit 130' INT TERM
for core in $(seq 0 $((cores - 1))); do
    "$TREE/.venv/bin/python" "$TREE/jobs/metronome.py" "$core" &
    metronomes+=($!)
done
"$LAB" up "$hosts" --rate "$rate" --cpu 100
for i in $(seq "$hosts"); do        # as boards pace messages; this machine may do it otherwise: with bbr whole samples took 17 % longer at 100 Mbit/s
    ip -n "pi$i" route replace 10.77.0.0/24 dev eth0 src "10.77.0.$i" congctl cubic
done
if ip netns exec pisw test -e /proc/sys/net/bridge/bridge-nf-call-iptables; then
    ip netns exec pisw sysctl -qw net.bridge.bridge-nf-call-iptables=0      # a switch is no firewall
fi
kill -0 "${metronomes[@]}" || refuse "a core cannot be interrupted, see above; hosts would keep to their shares only from tick to tick"
case $rate in *kbit) kbit=${rate%kbit} ;; *mbit) kbit=${rate%mbit}000 ;; *gbit) kbit=${rate%gbit}000000 ;; esac
# on fast links every 16 KiB would cost a pass through the emulated switch; slow ones cut what is more than they let through at once to 1,500 bytes
if [ "$kbit" -ge 600000 ]; then
    for i in $(seq "$hosts"); do
        ip -n "pi$i" link set eth0 gso_max_size 65536 gso_max_segs 64
        ip -n pisw link set "p$i" gso_max_size 65536 gso_max_segs 64
    done
fi
when=
if [ "$verb" = scaling ]; then
    when="${LIMIT_AT:-kernels are loaded}"
else
    limit
fi
forward=()
for name in PATH PYTHONSAFEPATH PYTHONPATH NUMBA_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS; do
    [ -z "${!name+set}" ] || forward+=(-x "$name")
done
"$LAB" mpirun "${forward[@]}" -n "$hosts" sh -c 'exec taskset -c $((OMPI_COMM_WORLD_RANK % '"$cores"')) "$0" -u -m mpi_ftp "$@"' \
    "$TREE/.venv/bin/python" "$verb" "$@" 2>&1 | while IFS= read -r line; do
    [ -z "$when" ] || case $line in *"$when"*) limit ;; esac
    echo "$line"
done
