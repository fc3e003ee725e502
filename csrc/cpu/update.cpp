// The update on the CPU: shares the values of all parameters among threads, in the best instruction set.

#include "../update.h"

#include <ATen/CPUFunctions.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "targets.h"

namespace update {
namespace {

// ATen's square roots, of so many values at a time that it does not ask other threads for help.
class Roots {
 public:
  static constexpr int64_t kMost = 2048;

  explicit Roots(Type type)
      : values_(at::detail::empty_cpu({kMost}, type == kDouble ? at::kDouble : at::kFloat, false, std::nullopt)) {}
  void* memory() { return values_.data_ptr(); }
  // Turns the first n values of memory() into their roots.
  void take(int64_t n) {
    at::Tensor first = n == kMost ? values_ : at::cpu::as_strided(values_, {n}, {1}, 0);
    at::cpu::sqrt_(first);
  }

 private:
  at::Tensor values_;
};

}  // namespace
}  // namespace update

#if SP_X86
#define UPDATE_ISA avx512
#define UPDATE_BYTES 64
#define UPDATE_LAMBDA __attribute__((target(SP_AVX512)))
SP_TARGET(SP_AVX512)
#include "update.h"
SP_TARGET_END
#undef UPDATE_ISA
#undef UPDATE_BYTES
#undef UPDATE_LAMBDA

#define UPDATE_ISA avx2
#define UPDATE_BYTES 32
#define UPDATE_LAMBDA __attribute__((target("avx2,fma")))
SP_TARGET("avx2,fma")
#include "update.h"
SP_TARGET_END
#undef UPDATE_ISA
#undef UPDATE_BYTES
#undef UPDATE_LAMBDA
#endif

#define UPDATE_ISA portable
#define UPDATE_BYTES 16
#define UPDATE_LAMBDA
#include "update.h"

namespace update {
namespace cpu {
namespace {

portable::Walk walk_for(const Step& step, Type type) {
#if SP_X86
  using namespace switch_pool::cpu;
  if (chosen() == kAvx512) return avx512::walk_for(step, type);
  if (chosen() == kAvx2) return avx2::walk_for(step, type);
#endif
  return portable::walk_for(step, type);
}

}  // namespace

void update(const Step& step, Type type, const Parameter* parameters, int count) {
  // Units of so many values, so that small parameters share a thread and large ones are shared; a vector begins none but the
  // last of a parameter in the middle of a line of memory.
  constexpr int64_t kUnit = 4096, kGrain = 8;
  std::vector<int64_t> first(count + 1, 0);  // the first unit of each parameter
  for (int i = 0; i < count; ++i) first[i + 1] = first[i] + (parameters[i].n + kUnit - 1) / kUnit;
  const auto walk = walk_for(step, type);
  at::parallel_for(0, first[count], kGrain, [&](int64_t begin, int64_t end) {
    Roots roots(type);
    for (auto i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1; i < count && first[i] < end; ++i) {
      const int64_t from = std::max(begin, first[i]) - first[i], to = std::min(end, first[i + 1]) - first[i];
      walk(step, parameters[i], from * kUnit, std::min(to * kUnit, parameters[i].n), roots);
    }
  });
}

}  // namespace cpu
}  // namespace update
