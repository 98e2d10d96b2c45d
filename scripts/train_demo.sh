#!/bin/sh
# Trains every stage of a demo preset, or goes on where it was stopped:
#   sh scripts/train_demo.sh [--accelerator] [--preset NAME] [--perceptual FILE] [--quick] \
#       DATA [CHECKPOINTS] [RUNS]
# A stage whose checkpoint is there is not trained again. The order is that of dependence; on two
# cores base and superres run beside each other at the end.
#
# --accelerator  trains the transformers in batches that fill a GPU or TPU, base first, each from
#                RUNS/STAGE/unfinished if a run on a CPU has left one there. All scenes are composed
#                by every core before the first step, so that the device never waits for them.
# --perceptual   LPIPS file for the high-resolution tokenizer; docs/training.md says how to make
#                one.
# --quick        takes 20 steps of each stage: a trial of the whole way.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
preset=demo256 accelerator= quick= perceptual=
while :; do
    case "${1:-}" in
    --accelerator) accelerator=yes ;;
    --preset) preset=$2 && shift ;;
    --perceptual) perceptual=$2 && shift ;;
    --quick) quick="--steps 20" ;;
    *) break ;;
    esac
    shift
done
data=${1:?"expected a folder of data; the head of this script has its usage"}
checkpoints=${2:-checkpoints/mine}
runs=${3:-runs/$preset}
mkdir -p "$runs"

if [ -z "$accelerator" ]; then
    # XLA takes one large buffer for each step. glibc gives it back to the system afterwards, to be
    # mapped anew at the next, page by page. jemalloc (Debian: libjemalloc2) keeps it.
    jemalloc=$(/sbin/ldconfig -p 2>/dev/null | sed -n 's/.*libjemalloc.so.2.* => //p' | head -n 1)
    if [ -n "$jemalloc" ]; then
        export LD_PRELOAD="$jemalloc"
        export MALLOC_CONF=dirty_decay_ms:60000,thp:always,oversize_threshold:0
    else
        echo "libjemalloc.so.2 is not installed: a step of superres takes twice as long"
    fi
fi

train() { # STAGE PLACE-OF-CHECKPOINT NAME-OF-RUN FLAGS...
    stage=$1 place=$2 run=$3
    shift 3
    if [ -f "$checkpoints/$place/training.json" ]; then
        echo "$checkpoints/$place is there: not trained again"
        return
    fi
    # shellcheck disable=SC2086 # $quick is empty or two words
    "$python" -m training "$stage" --preset "$preset" --data "$data" \
        --checkpoints "$checkpoints" --out "$runs/$run" $quick "$@"
}

on_accelerator() { # STAGE STEPS BATCH-SIZE
    stage=$1 steps=$2 batch=$3
    set -- --batch-size "$batch" --workers "$(nproc)"
    [ -n "$quick" ] || set -- "$@" --steps "$steps"
    if [ -f "$runs/$stage/unfinished/config.json" ]; then
        set -- "$@" --from "$runs/$stage/unfinished"
    fi
    train "$stage" "$stage" "$stage-accelerator" "$@"
}

high_tokenizer() {
    [ -z "$perceptual" ] || set -- --perceptual "$perceptual"
    train tokenizer tokenizer/high high --resolution high "$@"
}

command -v "$python" >/dev/null || make setup
train text_encoder text_encoder text
train tokenizer tokenizer/low low --resolution low
if [ -n "$accelerator" ]; then
    on_accelerator base 8000 256
    high_tokenizer
    on_accelerator superres 3000 128
    exit
fi
# Two stages of one thread each get more done on two cores than one stage of two threads.
train base base base >"$runs/base.log" 2>&1 &
base=$!
trap 'kill "$base" 2>/dev/null || true' EXIT
high_tokenizer
train superres superres superres
wait "$base"
