#!/bin/sh
# Start or go on with the pretraining in the background; the arguments are those of pretrain.py.
# Without the two allocator settings glibc gives every activation back to the kernel: 25 % slower.
cd "$(dirname "$0")" || exit 1
cache=../../.cache/pretrain_demo_model
mkdir -p "$cache"
export OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=2147483648 MALLOC_TRIM_THRESHOLD_=8589934592
setsid nohup nice -n 10 "${PYTHON:-../../.venv/bin/python}" pretrain.py "$@" \
    >>"$cache/pretrain.log" 2>&1 </dev/null &
echo "$!" >"$cache/pid"
