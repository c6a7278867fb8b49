#!/usr/bin/env bash
# Everything that only a GPU can show about the training engine, in one call of less than nine minutes.
#
#   bash benchmarks/speed/gpu.sh [FOLDER] [PATN_CHECKOUT]      FOLDER: default results/speed
#
# Is it right (the tests marked `cuda`), how fast is a step (beside PATN's own), how long is the paper's training, and what does
# another precision change? Each piece writes a JSON file (numbers, hardware, versions, revision, arguments) and a text file into
# FOLDER as soon as it has them. A piece that fails is named at the end, and the others run. A piece whose JSON file is there is not
# run again, so that a call that was broken off goes on.
#
# It needs torch, torchvision, numpy, OpenCV, pandas, PyYAML, tqdm and pytest, a C++ compiler and Triton for what is compiled, and
# no network. PIECES="NAME ..." runs those alone. BUDGET=480 shortens the paper's training so that all ends in that many seconds.
# POTGAN_REVISION names the revision where there is no git. DEVICE=cpu runs the same pieces in small on a CPU, to see that they work.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${1:-$root/results/speed}
patn=${2:-}
device=${DEVICE:-cuda}
limit=${LIMIT:-420}
python=${PYTHON:-python3}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
if [ -n "$patn" ]; then
    patn=$(cd "$patn" && pwd) || { echo "error: there is no checkout of PATN at $2" >&2; exit 2; }
fi
pieces="right precision step-batch32 step-batch128 step-256x256 paper-training waiting"
for name in ${PIECES:-}; do
    [[ " $pieces " == *" $name "* ]] || { echo "error: PIECES names $name; there are $pieces" >&2; exit 2; }
done
cd "$root" || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" OPENCV_FOR_THREADS_NUM=1 PYTHONUNBUFFERED=1
export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-4}
failed=""

wanted() { # NAME: is this piece to be run?
    [ -z "${PIECES:-}" ] || [[ " $PIECES " == *" $1 "* ]] || return 1
    [ -s "$folder/$1.json" ] || return 0
    # The device stands on the line "device": of the arguments.
    if grep -q "\"device\": \"$device\"" "$folder/$1.json"; then
        echo "== $1: done already"
    else
        echo "== $1: $folder/$1.json is of another device than $device; move it away to run this piece" >&2
        failed="$failed $1"
    fi
    return 1
}

piece() { # NAME COMMAND...: --json is added
    local name=$1 code start=$SECONDS
    shift
    wanted "$name" || return 0
    echo "== $name, from second $SECONDS: $*"
    # Its numbers count only when it has ended well: until then they have another name.
    timeout --foreground "$limit" "$@" --json "$folder/$name.json.unfinished" 2>"$folder/$name.log" | tee "$folder/$name.txt"
    code=${PIPESTATUS[0]}
    if [ "$code" -eq 0 ]; then
        mv "$folder/$name.json.unfinished" "$folder/$name.json"
        echo "== $name: $((SECONDS - start)) s"
    else
        echo "== $name: ended with code $code (124: after $limit s); the end of $folder/$name.log:" >&2
        tail -n 5 "$folder/$name.log" >&2
    fi
}

speed="$python benchmarks/speed"
here=(--device "$device")
precisions="fp32 tf32 bf16" batch32=32 batch128=128 large=256x256 width=64 compile=always
rounds=5 small=() tiny=()
if [ "$device" != cuda ]; then # the same in small
    precisions="fp32 bf16" batch32=2 batch128=4 large=48x48 width=4 compile=never
    rounds=2 small=(--size 32x32 --turn 0.05)
    tiny=(--width 4 --images 1600 --iterations 60 --batch 4)
fi
patn_argument=()
[ -z "$patn" ] || patn_argument=(--patn "$patn")
ways="compiled"
[ "$device" = cuda ] || ways="eager"

declare -A pids=()
beside() { # NAME COMMAND...: how long it takes is not asked, so it runs while the steps compile
    wanted "$1" || return 0
    piece "$@" &
    pids[$1]=$!
}
beside right $speed/right.py "${here[@]}" ${RIGHT:+--keyword "$RIGHT"}
beside precision nice -n 5 $python benchmarks/speed/precision_trainings.py "${here[@]}"

# All steps compile at the same time, each into a folder of its own, which fills sixteen processors for two minutes. Then a
# file tells each that it may go on, so that nothing else runs while it is timed.
export POTGAN_COMPILED="$folder/compiled"
holds=$folder/holds
rm -rf "$holds" && mkdir -p "$holds"
step() { # NAME ARGUMENT...
    local name=$1
    shift
    wanted "$name" || { touch "$holds/$name.ready"; return; }
    piece "$name" $speed/step.py "${here[@]}" "${small[@]}" --width $width --only sides --without-plain --rounds "${ROUNDS:-$rounds}" \
        --limit "${COMPILING_SECONDS:-240}" --hold "$holds/$name.go" "$@" &
    pids[$name]=$!
}
go() { # NAME: let it time, and wait for it
    [ -n "${pids[$1]:-}" ] || return
    touch "$holds/$1.go"
    wait "${pids[$1]}"
}
sides=(--ways eager) larger=(--ways eager)
if [ "$device" = cuda ]; then
    sides=(--sides "fp32 compiled" "tf32 compiled" bf16 "bf16 recorded" "bf16 compiled")
    [ -z "$patn" ] || sides+=(patn "patn tf32")
    larger=(--ways compiled --forced-layout
        --sides "fp32 compiled" "tf32 compiled" "bf16 compiled" "bf16 compiled, layout as it comes")
fi
profiled=(--kernels "bf16 compiled" --null "bf16 compiled")
step step-batch32 "${patn_argument[@]}" --batch $batch32 --precisions $precisions "${sides[@]}" "${profiled[@]}"
step step-batch128 --batch $batch128 --precisions $precisions "${larger[@]}" "${profiled[@]}"
step step-256x256 --batch 8 --size $large --ways $ways --precisions bf16

for name in "${!pids[@]}"; do
    # Nobody times anything before everything is compiled.
    while [ ! -e "$holds/$name.ready" ] && kill -0 "${pids[$name]}" 2>/dev/null; do
        sleep 0.2
    done
done
echo "== compiled, until second $SECONDS"
go step-batch32
go step-batch128
go step-256x256

# The paper's training runs for what is left of BUDGET seconds
seconds=${TRAINING_SECONDS:-150}
[ -z "${BUDGET:-}" ] || seconds=$((BUDGET - SECONDS - 10 < seconds ? BUDGET - SECONDS - 10 : seconds))
TORCHINDUCTOR_CACHE_DIR="$POTGAN_COMPILED/bf16-128x64-32" piece paper-training $speed/paper_training.py "${here[@]}" "${tiny[@]}" \
    --precision bf16 --seconds "$seconds" --out "$folder/paper-training"
TORCHINDUCTOR_CACHE_DIR="$POTGAN_COMPILED/bf16-128x64-32" piece waiting $speed/training.py "${here[@]}" --width $width \
    --precision bf16 --compile $compile --batch $batch32 --parts loader --threads 4

for name in ${PIECES:-$pieces}; do
    [ -s "$folder/$name.json" ] || failed="$failed $name"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
