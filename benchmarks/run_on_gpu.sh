#!/usr/bin/env bash
# All that needs a GPU, in one go and unattended: build, tests, compute-sanitizer, benchmark. Needs PyTorch with CUDA, nvcc
# and this package's dependencies; no network. Under 20 minutes.
#
#     benchmarks/run_on_gpu.sh [FOLDER] [STEP...]
#
# FOLDER (default gpu_results) takes the logs and the tables. STEPs: build tests benchmark sanitizer, all by default. PYTHON
# names the interpreter. What fails, or finds no time left, is said at the end and by the exit status; the rest still runs.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-gpu_results}")
shift || true
steps=${*:-build tests benchmark sanitizer}
python=${PYTHON:-python3}
mkdir -p "$folder"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=()
readonly most=1170  # seconds for everything

# run NAME SECONDS COMMAND...: its output goes to NAME.log, the end of it to the terminal.
run() {
  local name=$1 limit=$2 left=$((most - SECONDS)) start=$SECONDS status=0
  shift 2
  timeout --kill-after=10 $((left < 1 ? 1 : limit < left ? limit : left)) "$@" >"$folder/$name.log" 2>&1 || status=$?
  echo "== $name: status $status, $((SECONDS - start)) s"
  tail -n 4 "$folder/$name.log"
  if [ "$status" -ne 0 ]; then failed+=("$name"); fi
}

# The sanitizer is after the kernels: a few cases, but every family, type and layout.
small="as_on_the_cpu and (float32 or bfloat16) or stray"

run machine 60 bash -c "nvidia-smi; nvcc --version; $python -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())'"
for step in $steps; do
  case $step in
    build)
      run build 420 "$python" setup.py build_ext --inplace
      run backends 120 "$python" -c "from pycaffe_compat import ops; i = ops.backend_info(); print(i); assert i['cuda']['backend'] == 'extension'"
      ;;
    tests)
      run tests_cuda 420 "$python" -m pytest -q -rs -p no:cacheprovider tests/ops/test_cuda.py
      run tests_kernels 300 "$python" -m pytest -q -rs -p no:cacheprovider tests/csrc tests/ops/test_extension.py
      run tests_ops 240 "$python" -m pytest -q -rs -p no:cacheprovider tests/ops/test_operators.py tests/ops/test_backends.py
      ;;
    sanitizer)
      for tool in memcheck racecheck initcheck synccheck; do
        run "sanitizer_$tool" 180 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
          "$python" -m pytest -q -x -p no:cacheprovider tests/ops/test_cuda.py -k "extension and ($small)"
      done
      ;;
    benchmark)
      run benchmark 540 "$python" benchmarks/bench_pooling.py --device cuda --rounds 9 --out "$folder"
      ;;
    *)
      echo "unknown step $step; valid: build tests benchmark sanitizer" >&2
      exit 2
      ;;
  esac
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all well; results in $folder"
