#!/usr/bin/env bash
# All timings of the training engine on a machine with a GPU; each writes a JSON file and a text file into a folder.
#
#   bash benchmarks/speed/gpu.sh [FOLDER] [PATN_CHECKOUT]      FOLDER: default results/speed
#
# Needs torch, torchvision, numpy, opencv, pandas, pyyaml and tqdm, a C++ compiler and Triton for the compiled variants, and
# no network. Every piece takes less than ten minutes and is skipped where its JSON file is there already, so that a call
# that was broken off goes on. PIECES="NAME ..." runs those alone; DEVICE=cpu LIMIT=... try it without a GPU.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${1:-$root/results/speed}
patn=${2:-}
device=${DEVICE:-cuda}
limit=${LIMIT:-590}
python=${PYTHON:-python3}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
[ -z "$patn" ] || patn=$(cd "$patn" && pwd)
cd "$root" || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" OPENCV_FOR_THREADS_NUM=1
failed=0

piece() { # NAME COMMAND...: --json is added
    local name=$1 code
    shift
    if [ -n "${PIECES:-}" ] && [[ " $PIECES " != *" $name "* ]]; then return; fi
    if [ -s "$folder/$name.json" ]; then
        echo "== $name: done already"
        return
    fi
    echo "== $name: $*"
    # Its numbers count only when it has ended well: until then they have another name.
    timeout "$limit" "$@" --json "$folder/$name.json.unfinished" 2>"$folder/$name.log" | tee "$folder/$name.txt"
    code=${PIPESTATUS[0]}
    if [ "$code" -eq 0 ]; then
        mv "$folder/$name.json.unfinished" "$folder/$name.json"
    else
        echo "== $name: ended with code $code (124: after $limit s); see $folder/$name.log" >&2
        failed=1
    fi
}

speed="$python benchmarks/speed"
here=(--device "$device")
patn_argument=()
[ -z "$patn" ] || patn_argument=(--patn "$patn")
# Compiling takes a minute or two: no piece compiles more than one or two variants.
precisions="fp32 tf32 bf16"
[ "$device" = cuda ] || precisions="fp32 bf16"
for batch in 8 32; do
    for precision in $precisions; do
        piece "step-batch$batch-$precision" $speed/step.py "${here[@]}" "${patn_argument[@]}" --batch $batch --only sides \
            --precisions $precision
    done
done
for precision in $precisions; do
    for compile in never always; do
        how=$([ $compile = never ] && echo eager || echo compiled)
        choice=("${here[@]}" --precision $precision --compile $compile --threads 4)
        for part in flops loader wall; do
            piece "$part-$precision-$how" $speed/training.py "${choice[@]}" --batch 32 --parts $part
        done
    done
    piece "profile-$precision" $speed/training.py "${here[@]}" --precision $precision --batch 32 --parts profile
    for size in 128x64 256x256; do
        piece "scaling-$size-$precision-eager" $speed/training.py "${here[@]}" --precision $precision --sizes $size \
            --parts scaling --limit 80
    done
    piece "improvements-$precision" $speed/step.py "${here[@]}" --batch 32 --only improvements --improvements-of $precision
done
for size in 128x64 256x256; do
    for batch in 8 32 128 512; do
        piece "scaling-$size-bf16-compiled-$batch" $speed/training.py "${here[@]}" --precision bf16 --compile always \
            --sizes $size --batches $batch --parts scaling --limit 280
    done
done
piece "inference" $speed/training.py "${here[@]}" --parts inference
for dataset in market1501 deepfashion; do # dukemtmc's images are of market1501's size
    for model in potgan no-pose-transform no-recon no-guided-filter; do
        piece "estimate-$dataset-$model" $python -m potgan estimate --config config/paper.yaml --dataset $dataset \
            --model $model
    done
done
exit $failed
