#!/usr/bin/env bash
# Sets up the project and runs all tests, those under MPI on 1, 2, 3, 4 and 6 local ranks. Arguments go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$TREE"
exec python -m pytest "$@"
