#!/bin/sh
# Trains every stage of the demo: sh scripts/train_demo.sh DATA [CHECKPOINTS] [RUNS]
# Each stage goes on where it was stopped, and one whose checkpoint is there is not trained again.
set -eu
cd "$(dirname "$0")/.."
data=${1:?"usage: sh scripts/train_demo.sh DATA [CHECKPOINTS] [RUNS]"}
checkpoints=${2:-checkpoints/mine}
runs=${3:-runs/demo}

# XLA takes one large buffer for each step. By default glibc gives it back to the system afterwards,
# to be mapped anew at the next; half of the time was the system's. Keep it, in huge pages if any.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000
export MALLOC_TOP_PAD_=268435456 GLIBC_TUNABLES=glibc.malloc.hugetlb=1

train() {
    stage=$1
    place=$2
    run=$3
    shift 3
    if [ -f "$checkpoints/$place/training.json" ]; then
        echo "$checkpoints/$place is there: not trained again"
        return
    fi
    .venv/bin/python -m training "$stage" --preset demo --data "$data" \
        --checkpoints "$checkpoints" --out "$runs/$run" "$@"
}

make setup
train text_encoder text_encoder text
train tokenizer tokenizer/low low --resolution low
# Two stages of one thread each get more done on two cores than one stage of two threads.
train base base base >"$runs/base.log" 2>&1 &
base=$!
trap 'kill "$base" 2>/dev/null || true' EXIT
train tokenizer tokenizer/high high --resolution high --initialize-from "$checkpoints/tokenizer/low"
train superres superres superres
wait "$base"
