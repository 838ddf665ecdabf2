#!/usr/bin/env bash
# Trains a small YOLOv2-style detector of blood cells on 4 local ranks, each owning a tile of every picture, measures it on pictures it
# has not seen and draws what it finds. Two to three minutes on 2 cores the first time; then it only measures and draws.
#   bash jobs/quickstart.sh            go on where the last time ended
#   bash jobs/quickstart.sh --fresh    train again from the beginning
#   RANKS=6 bash jobs/quickstart.sh    another number of ranks; MPI=mpich or MPI=system: another MPI, see jobs/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$TREE"
RANKS="${RANKS:-4}" RUN=runs/bccd-quick DATA=runs/bccd.h5
if [ -t 1 ]; then
    export MPI_FTP_TERMINAL=1 COLUMNS="$(tput cols 2>/dev/null || echo 100)"
fi

case "${1:-}" in
    "") ;;
    --fresh) rm -rf "$RUN" ;;
    *) refuse "unknown option $1: expected --fresh or nothing" ;;
esac

echo "== data: 364 pictures of blood cells (jobs/bccd/README.md) -> $DATA"
mkdir -p runs
[ -s "$DATA" ] && [ "$DATA" -nt jobs/bccd/bccd.tar.gz ] ||
    mpi-ftp convert voc jobs/bccd/bccd.tar.gz "$DATA" --size 416x312 --names jobs/bccd/bccd.names

echo "== training on $RANKS ranks: jobs/bccd-quick.toml -> $RUN"
if [ -e "$RUN/finished" ]; then
    echo "already trained; --fresh trains again"
else
    grid=()
    [ "$RANKS" = 4 ] || grid=(--grid auto)              # the job's 2x2 is for 4 ranks
    "$MPIRUN" -n "$RANKS" python -m mpi_ftp train jobs/bccd-quick.toml --run "$RUN" --resume "${grid[@]}"
    [ -e "$RUN/finished" ] || refuse "the training did not come to its end, see $RUN/log.txt"
fi

echo "== average precision on the test split -> $RUN/test.json"
"$MPIRUN" -n "$RANKS" python -m mpi_ftp val --cfg jobs/bccd-quick.cfg --weights "$RUN/last.weights" --data "$DATA" --split test --json "$RUN/test.json"

echo "== boxes on a test picture -> $RUN/detections"
picture="$(tar -xzOf jobs/bccd/bccd.tar.gz BCCD/ImageSets/Main/test.txt | head -1 | tr -d '[:space:]').webp"
mkdir -p "$RUN/detections"
tar -xzOf jobs/bccd/bccd.tar.gz "BCCD/JPEGImages/$picture" >"$RUN/detections/$picture"
mpi-ftp detect --cfg jobs/bccd-quick.cfg --weights "$RUN/last.weights" --names jobs/bccd/bccd.names "$RUN/detections/$picture" --thresh 0.3 --out "$RUN/detections"
echo "== done: look at $RUN/detections, $RUN/metrics.csv and $RUN/plan.json"
