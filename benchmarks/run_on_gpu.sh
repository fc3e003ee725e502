#!/usr/bin/env bash
# All that needs a GPU, unattended: build, tests, benchmarks, compute-sanitizer. Needs PyTorch with CUDA, nvcc and this
# package's dependencies (lmdb aside); no network. Under 30 minutes, each step under 10: where a call may not last longer, make one
# for each step, in this order and with one FOLDER.
#
#     benchmarks/run_on_gpu.sh [FOLDER] [STEP...]
#
# FOLDER (default gpu_results) takes logs, tables and plots; FOLDER.tar.gz is all of it in one file. STEPs: build tests
# nets benchmark training sanitizer, all by default. PYTHON names the interpreter, LIMIT the seconds for everything. What fails, or finds no
# time left, is said at the end and by the exit status; the rest still runs.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-gpu_results}")
shift || true
steps=${*:-build tests nets benchmark training sanitizer}
python=${PYTHON:-python3}
mkdir -p "$folder"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=()
readonly most=${LIMIT:-1770}

# run NAME SECONDS COMMAND...: its output goes to NAME.log, the end of it to the terminal.
run() {
  local name=$1 limit=$2 left=$((most - SECONDS)) start=$SECONDS status=0
  shift 2
  timeout --kill-after=20 $((left < 1 ? 1 : limit < left ? limit : left)) "$@" >"$folder/$name.log" 2>&1 || status=$?
  echo "== $name: status $status, $((SECONDS - start)) s"
  if [ "$status" -eq 0 ]; then
    tail -n "${shown:-4}" "$folder/$name.log"
  else
    failed+=("$name")
    tail -n 25 "$folder/$name.log"
  fi
}

export python
pytest=("$python" -m pytest -rs --tb=short --maxfail=20 -p no:cacheprovider)

# The sanitizer is after our kernels: a few cases, but every family, type and layout; PyTorch's own are not looked at.
small="extension and (as_on_the_cpu and (float32 or bfloat16) or stray)"

shown=20 run machine 60 bash -c 'nvidia-smi; command -v nvcc compute-sanitizer; nvcc --version; "$python" -c "
import torch
print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name(), torch.cuda.get_device_capability())"'
for step in $steps; do
  case $step in
    build)
      run build 300 "$python" setup.py build_ext --inplace
      run backends 60 "$python" -c "
from pycaffe_compat import ops
from pycaffe_compat.ops import backends
print({name: backends.unavailable(name, 'cuda') or 'serves' for name in backends.NAMES})
print(ops.backend_info())
assert ops.backend_info()['cuda']['backend'] == 'extension'"
      ;;
    tests)
      run tests_extension 200 "${pytest[@]}" tests/ops/test_cuda.py -k extension
      if "$python" -c "import cupy" 2>"$folder/cupy.log"; then
        run tests_cupy 200 "${pytest[@]}" tests/ops/test_cuda.py -k cupy
      fi
      run tests_torch 120 "${pytest[@]}" tests/ops/test_cuda.py -k "not extension and not cupy"
      ;;
    nets)
      run tests_nets 120 "${pytest[@]}" tests/test_on_gpu.py
      run tests_ops 180 "${pytest[@]}" tests/ops/test_extension.py tests/ops/test_operators.py tests/ops/test_backends.py
      ;;
    benchmark)
      shown=26 run benchmark 560 "$python" benchmarks/bench_pooling.py --device cuda --rounds 9 --limit 480 --out "$folder"
      ;;
    training)
      shown=20 run training 400 "$python" benchmarks/bench_training.py --device cuda --out "$folder"
      shown=12 run update 150 "$python" benchmarks/bench_update.py --device cuda --out "$folder/update_cuda.md"
      ;;
    sanitizer)
      for tool in memcheck racecheck initcheck synccheck; do
        run "sanitizer_$tool" 140 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
          --kernel-name kns=switch_pool "${pytest[@]}" tests/ops/test_cuda.py -k "$small"
      done
      ;;
    *)
      echo "unknown step $step; valid: build tests nets benchmark training sanitizer" >&2
      exit 2
      ;;
  esac
done

tar -czf "$folder.tar.gz" -C "$(dirname "$folder")" "$(basename "$folder")"
if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all well; results in $folder and $folder.tar.gz"
