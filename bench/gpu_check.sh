#!/usr/bin/env bash
# Everything that only a GPU can show, within 9 minutes: build (or load), instructions, entry points,
# tests/python on CUDA, compute-sanitizer, then benchmarks; the most important parts first.
#
#     bench/gpu_check.sh                    all parts
#     bench/gpu_check.sh build attention    these parts; see PARTS
#     bench/gpu_check.sh build pack         on any machine: build, and pack a tree for PREBUILT
#
#     OUT=dir          where results go: check.json, check.log, a JSON per benchmark (default out)
#     PYTHON=path      with torch and pybind11 (default .venv's, else python3)
#     PREBUILT=dir     a tree that `pack` made: `build` loads it
#     SECONDS_MAX=n    time for all parts (default 530)
#     QUICK=1          without a GPU, run the benchmarks on the CPU at tiny shapes
#     BENCH_COMMIT=id  the commit, if the tree comes without its history
#     MINFERENCE_SOURCE=dir  MInference's source package, unpacked, to time attention against it
#                      (bench/original.py says how to get it)
#
# Each part has its own time limit and is recorded; a failure does not stop the others. Exit status: 0 all good,
# 1 some part failed, 2 no GPU, 3 unknown part.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 1

PARTS=(build instructions entry_points tests memcheck racecheck attention index ceilings)
SECONDS_MAX=${SECONDS_MAX:-530}
mkdir -p "${OUT:-out}"
OUT=$(cd "${OUT:-out}" && pwd)
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=$PWD/.venv/bin/python || PYTHON=python3; }
export OUT PYTHON PREBUILT=${PREBUILT:-} QUICK=${QUICK:-} MINFERENCE_SOURCE=${MINFERENCE_SOURCE:-}
export BUILD=build/gpu TESTS=build/gpu/tests/gpu PACKED=build/gpu-prebuilt
export PYTHONPATH=$PWD/python LD_LIBRARY_PATH=$PWD/python/minference:${LD_LIBRARY_PATH:-}
export PYTHONUNBUFFERED=1

# ---- Parts, each a function ------------------------------------------------------------------------

part_build() {
  set -e
  if [ -n "$PREBUILT" ]; then
    mkdir -p $TESTS
    cp "$PREBUILT"/*.so python/minference/
    cp "$PREBUILT"/tests/* $TESTS
    # The libraries work with every Python, the extension module with one version.
    "$PYTHON" -c 'import minference._C' 2>/dev/null || build_module
  else
    cmake -S . -B $BUILD -G Ninja -DCMAKE_BUILD_TYPE=Release -DMINF_TESTS=ON -DSIMT_TESTS=OFF \
      -DMINF_PYTHON=ON -DMINF_TORCH=ON -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
      -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)"
    cmake --build $BUILD --parallel "${MAX_JOBS:-$(nproc)}" \
      --target minference_torch _C instructions_emulated
    # Not built without nvcc; then the parts that need them say so.
    cmake --build $BUILD --parallel "${MAX_JOBS:-$(nproc)}" --target instructions entry_points || true
    for component in library python; do
      cmake --install $BUILD --prefix python/minference --component $component >/dev/null
    done
  fi
  "$PYTHON" -c 'import minference._C as c
print(c.version(), c.build_info())
for x in c.backends():
    print(x["name"], "(selected)" if x["selected"] else x["reason"] or "available")'
}

build_module() {
  local suffix includes
  suffix=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
  includes=$("$PYTHON" -m pybind11 --includes)
  # shellcheck disable=SC2086
  "${CXX:-g++}" -std=c++20 -O2 -fPIC -shared -fvisibility=hidden $includes -Iinclude \
    csrc/python/module.cpp -o "python/minference/_C$suffix" -Lpython/minference -lminference \
    -Wl,-rpath,'$ORIGIN'
}

part_pack() {
  set -e
  rm -rf $PACKED
  mkdir -p $PACKED/tests
  cp python/minference/*.so $PACKED
  cp $TESTS/instructions $TESTS/instructions_emulated $TESTS/entry_points $PACKED/tests
  strip $PACKED/*.so $PACKED/tests/*
  du -sh $PACKED
}

part_instructions() {
  $TESTS/instructions_emulated --dump $TESTS/instructions.bin >$TESTS/emulated.log ||
    { cat $TESTS/emulated.log && return 1; }
  $TESTS/instructions --expected $TESTS/instructions.bin
}

# Leaves out tests of the CPU alone, and modules that need packages that are not installed.
part_tests() {
  [ -n "$GPU" ] || { echo "no GPU: all tests would be skipped" && return 77; }
  local parallel=()
  "$PYTHON" -c 'import xdist' 2>/dev/null && parallel=(-n 8 --dist loadgroup)
  "$PYTHON" -m pytest -q -k cuda -p no:cacheprovider --continue-on-collection-errors -W default \
    --maxfail=100 "${parallel[@]}" tests/python
}

part_entry_points() { $TESTS/entry_points; }

# Skipped if the tool is absent or does not support this GPU, as with some machines' drivers.
sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer on PATH" && return 77; }
  local log=$TESTS/$1.log status
  compute-sanitizer --tool "$1" --error-exitcode 9 $TESTS/entry_points >"$log" 2>&1
  status=$?
  grep -v '^ok ' "$log" | head -n 100
  if grep -qi 'device not supported' "$log"; then
    echo "compute-sanitizer does not support this device here"
    return 77
  fi
  return $status
}

part_memcheck() { sanitize memcheck; }
part_racecheck() { sanitize racecheck; }
part_attention() { bench gpu_attention 140; }
part_index() { bench gpu_index 75; }
part_ceilings() { bench gpu_ceilings 30; }

# bench MODULE SECONDS: starts no further row after that many seconds.
bench() {
  local options=()
  if [ -z "$GPU" ]; then
    [ -n "$QUICK" ] || { echo "no GPU; QUICK=1 runs it on the CPU at tiny shapes" && return 77; }
    options=(--quick --device cpu)
  fi
  "$PYTHON" -m "bench.$1" --seconds "$2" --json "$OUT/$1.json" "${options[@]}"
}

# Seconds after which a part is stopped.
declare -A LIMITS=([build]=200 [tests]=110 [attention]=190 [index]=115 [ceilings]=60)

# ---- All chosen parts --------------------------------------------------------------------------------

export -f $(compgen -A function)
[ $# -gt 0 ] || set -- "${PARTS[@]}"
chosen=("$@")
for part in "${chosen[@]}"; do
  if [[ " ${PARTS[*]} pack " != *" $part "* ]]; then
    echo "unknown part '$part'; parts: ${PARTS[*]} pack" >&2
    exit 3
  fi
done

GPU=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) || GPU=
GPU=${GPU%%$'\n'*}
export GPU
log=$OUT/check.log
{
  echo "GPU: ${GPU:-none: nvidia-smi finds no NVIDIA GPU or no driver}"
  nvcc --version 2>/dev/null | tail -n 2
} | tee "$log"

records=()  # part status seconds note
for part in "${chosen[@]}"; do
  limit=${LIMITS[$part]:-40}
  left=$((SECONDS_MAX - SECONDS))
  [ "$limit" -le "$left" ] || limit=$left
  printf '\n==== %s (at most %d s)\n' "$part" "$limit" | tee -a "$log"
  if [ "$limit" -le 5 ]; then
    records+=("$part TIMEOUT 0 not started: no time left")
    continue
  fi
  start=$SECONDS
  timeout --kill-after=10 "$limit" bash -c "part_$part" 2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  took=$((SECONDS - start))
  case $status in
    0) records+=("$part ok $took") ;;
    77) records+=("$part SKIPPED $took $(tail -n 1 "$log")") ;;
    124 | 137) records+=("$part TIMEOUT $took stopped after $limit s") ;;
    *) records+=("$part FAILED $took status $status: $(tail -n 1 "$log")") ;;
  esac
done

# ---- Results -----------------------------------------------------------------------------------------

printf '\n==== %s, %d s in all\n' "${GPU:-no GPU}" "$SECONDS" | tee -a "$log"
for module in gpu_attention gpu_index gpu_ceilings; do
  [[ " ${chosen[*]} " == *" ${module#gpu_} "* && -f $OUT/$module.json ]] &&
    "$PYTHON" -m bench.runner "$OUT/$module.json"
done
failed=0
separator=
{
  printf '{"gpu": "%s", "seconds": %d, "parts": [' "$GPU" "$SECONDS"
  for record in "${records[@]}"; do
    read -r part status took note <<<"$record"
    printf '%s\n {"part": "%s", "status": "%s", "seconds": %s, "note": "%s"}' "$separator" "$part" \
      "$status" "$took" "$(tr -d '"\\' <<<"$note")"
    separator=,
  done
  printf '\n]}\n'
} >"$OUT/check.json"
for record in "${records[@]}"; do
  read -r part status took note <<<"$record"
  printf '%-14s %-8s %4s s  %s\n' "$part" "$status" "$took" "$note"
  [[ $status == ok || $status == SKIPPED ]] || failed=1
done
[ "$failed" = 0 ] || exit 1
if [ -z "$GPU" ] && [ "${chosen[*]}" != "build pack" ]; then
  echo "NO GPU: nothing above was seen on hardware"
  exit 2
fi
