#!/usr/bin/env bash
# Tests and measures the CUDA backend on this machine's GPU: tests/gpu/run.sh [BUILD]
#
# BUILD: a folder with weft_gpu_test and weft_gpu_bench, which may have been built elsewhere; the default is this
# checkout's build/release/tests/gpu, which is built if it isn't there. Libraries in BUILD/lib are taken before the
# system's. Writes tests/gpu/results/DEVICE-DATE.json, or to $RESULTS where that is set.
set -euo pipefail

root=$(dirname "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")")
cd "$root"
build=${1:-build/release/tests/gpu}
results=${RESULTS:-tests/gpu/results}

if [[ ! -x $build/weft_gpu_test ]]; then
  command -v nvcc >/dev/null || { echo "run.sh: no $build/weft_gpu_test, and no nvcc to build it with" >&2; exit 1; }
  cmake --preset release -DWEFT_CUDA=ON
  cmake --build build/release --target weft_gpu_test weft_gpu_bench
fi
export LD_LIBRARY_PATH="$build/lib:${LD_LIBRARY_PATH:-}"

if ! name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1) || [[ -z $name ]]; then
  echo "run.sh: no GPU here: nvidia-smi finds none" >&2
  exit 1
fi
echo "== $name: conformance"
"$build/weft_gpu_test" --gtest_brief=1

mkdir -p "$results"
file=$results/$(tr -cs '[:alnum:]\n' - <<<"$name" | tr '[:upper:]' '[:lower:]')-$(date +%F).json
echo "== $name: measured against roofs, into $file"
"$build/weft_gpu_bench" --json "$file"

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    echo "== compute-sanitizer $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/weft_gpu_test" --gtest_brief=1 \
      --gtest_filter='*OpsTest*BF16Forward*'
  done
else
  echo "== compute-sanitizer isn't here: memcheck and racecheck are left out"
fi
