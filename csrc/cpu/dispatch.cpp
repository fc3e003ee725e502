// The CPU side: picks the row kernels of the best instruction set, splits the rows among threads, and decides how the
// result is written.

#include "dispatch.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define SP_X86 1
#include <immintrin.h>
#endif

namespace switch_pool {

// What a row of a plane gets: the sums of the windows' values, the sums over the number of values, that number, or (inside
// the kernels) a row of x over that number.
enum What { kSums, kNormalized, kCounts, kScaled };

// How the work is shared out: by rows of the result, or (group > 0) by bands of rows of so many planes.
struct Layout {
  bool channels_last;
  int group, band, bands;
};

// One instruction set's kernels for one type. The last two arguments are the rows, or bands, to do. The has_* say what a walk
// along the rows of planes is there for.
struct Kernels {
  using Reduce = void (*)(const Geometry&, const Layout&, const void* x, const void* gate, void* y, uint8_t* s, bool stream,
                          int64_t begin, int64_t end);
  Reduce reduce[4];  // maximum, maximum after ReLU, sum, average
  bool (*spread)(const Geometry&, Mode, What what, const Layout&, const void* y, const void* gate, const uint8_t* s,
                 int fixed, void* x, bool stream, int64_t begin, int64_t end);
  bool (*select)(const Geometry&, bool normalized, const Layout&, const void* x, const uint8_t* s, int fixed,
                 const void* gate, void* y, bool stream, int64_t begin, int64_t end);
  bool (*has_reduce)(const Geometry&);
  bool (*has_spread)(const Geometry&, Mode, What what, bool has_switches);
  bool (*has_select)(const Geometry&, bool normalized);
};

}  // namespace switch_pool

#define SP_QUOTE(x) #x
#define SP_STRING(x) SP_QUOTE(x)
#if defined(__clang__)  // which ignores all of a target with a word that it does not know
#define SP_AVX512 "avx512f,avx512bw,avx512dq,avx512vl"
#define SP_TARGET(flags) _Pragma(SP_STRING(clang attribute push(__attribute__((target(flags))), apply_to = function)))
#define SP_TARGET_END _Pragma("clang attribute pop")
#pragma clang diagnostic ignored "-Wpsabi"  // vectors are passed between functions of one instruction set only
#else
#define SP_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"
#define SP_TARGET(flags) _Pragma("GCC push_options") _Pragma(SP_STRING(GCC target(flags)))
#define SP_TARGET_END _Pragma("GCC pop_options")
#endif

#if SP_X86
#define SP_ISA avx512
#define SP_BYTES 64
#define SP_STREAM 1
#define SP_FLAGS SP_AVX512
#define SP_LAMBDA __attribute__((target(SP_FLAGS)))
SP_TARGET(SP_AVX512)
#include "kernels.h"
SP_TARGET_END
#undef SP_ISA
#undef SP_BYTES
#undef SP_FLAGS

#define SP_ISA avx2
#define SP_BYTES 32
#define SP_FLAGS "avx2"
SP_TARGET("avx2")
#include "kernels.h"
SP_TARGET_END
#undef SP_ISA
#undef SP_BYTES
#undef SP_STREAM
#undef SP_LAMBDA
#endif

#define SP_ISA portable
#define SP_BYTES 16
#define SP_STREAM 0
#define SP_LAMBDA
#include "kernels.h"

namespace switch_pool {
namespace cpu {
namespace {

enum InstructionSet { kPortable, kAvx2, kAvx512 };

InstructionSet best_instruction_set() {
#if SP_X86
  const char* capability = std::getenv("ATEN_CPU_CAPABILITY");
  const bool portable = capability && !std::strcmp(capability, "default");
  const bool narrow = capability && !std::strcmp(capability, "avx2");
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!portable && !narrow && wide) return kAvx512;
  if (!portable && __builtin_cpu_supports("avx2")) return kAvx2;
#endif
  return kPortable;
}

InstructionSet chosen() {
  static const InstructionSet set = best_instruction_set();
  return set;
}

Kernels kernels(Type type) {
#if SP_X86
  if (chosen() == kAvx512) return avx512::kernels(type);
  if (chosen() == kAvx2) return avx2::kernels(type);
#endif
  return portable::kernels(type);
}

int64_t size_of(Type type) { return type == kDouble ? 8 : type == kFloat ? 4 : 2; }

// How a result of so many bytes is best written. Memory that has been used before: past the caches, once it is larger than
// they are. Fresh memory: in large pages, since the kernel's work for each page costs more than the write; its zeroing
// leaves the page in the cache, so the write should hit it there.
bool should_stream(void* out, int64_t bytes) {
  constexpr int64_t kLarge = 8 << 20;
  if (bytes < kLarge) return false;
#if defined(__linux__)
  const uintptr_t page = sysconf(_SC_PAGESIZE);
  const uintptr_t middle = (reinterpret_cast<uintptr_t>(out) + bytes / 2) / page * page;
  unsigned char resident = 1;
  if (mincore(reinterpret_cast<void*>(middle), page, &resident) == 0 && !(resident & 1)) {
    constexpr uintptr_t kHuge = 2 << 20;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(out) + kHuge - 1) / kHuge * kHuge;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(out) + bytes) / kHuge * kHuge;
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: refusal changes nothing
    return false;
  }
#endif
  return true;
}

// Rows enough for a thread to be worth waking.
int64_t grain(int64_t elements_per_row) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_row)); }

// The units of one call: rows of the result, of `height` to a plane, or bands of them.
struct Units {
  Layout layout;
  int64_t count, grain;
  bool stream;

  // along: a walk along the rows of planes does it. elements: what a row of one plane costs.
  Units(const Geometry& g, Type type, bool channels_last, bool along, int height, int width, int64_t elements, void* out)
      : layout{channels_last, 0, 0, 0} {
    const int64_t planes = g.batch * g.channels, size = size_of(type);
    if (channels_last || along) {
      count = (channels_last ? g.batch : planes) * height;
      grain = cpu::grain(elements * (channels_last ? g.channels : 1));
      stream = should_stream(out, planes * height * width * size);
    } else {
      share_out(g, height, size);
      count = (planes + layout.group - 1) / layout.group * layout.bands;
      grain = cpu::grain(elements * layout.group * layout.band);
      stream = false;
    }
  }

 private:
  // Groups and bands whose larger side stays in the second cache, and a line of memory or more of planes side by side.
  void share_out(const Geometry& g, int height, int64_t size) {
    constexpr int64_t kBytes = 256 << 10;
    const int64_t line = 64, plane = static_cast<int64_t>(g.height) * g.width * size;
    layout.group = static_cast<int>(line / size);
    for (int i = 0; i < 2 && plane * layout.group * 2 <= kBytes; ++i) layout.group *= 2;
    const int64_t row = plane * layout.group / height;  // bytes of the plane to a row of the result
    layout.band = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(height, kBytes / std::max<int64_t>(1, row))));
    layout.bands = (height + layout.band - 1) / layout.band;
  }
};

void reduce(int which, const Geometry& g, Type type, bool channels_last, const void* x, const void* gate, void* y,
            uint8_t* s) {
  const Kernels k = kernels(type);
  const Units u(g, type, channels_last, k.has_reduce(g), g.rows, g.cols, int64_t(g.cols) * g.kernel_h * g.kernel_w, y);
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    k.reduce[which](g, u.layout, x, gate, y, s, u.stream, begin, end);
  });
}

bool spread(What what, const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const uint8_t* s,
            int fixed, const void* gate, void* x) {
  const Kernels k = kernels(type);
  const Units u(g, type, channels_last, k.has_spread(g, mode, what, s), g.height, g.width, g.width, x);
  std::atomic<bool> valid{true};
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    if (!k.spread(g, mode, what, u.layout, y, gate, s, fixed, x, u.stream, begin, end)) valid = false;
  });
  return valid;
}

}  // namespace

void max_pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, bool relu, void* y, uint8_t* s) {
  reduce(relu ? 1 : 0, g, type, channels_last, x, nullptr, y, s);
}

void pool_sum(const Geometry& g, Type type, bool channels_last, const void* x, bool average, const void* gate, void* y) {
  reduce(average ? 3 : 2, g, type, channels_last, x, gate, y, nullptr);
}

bool pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, const uint8_t* s, int fixed,
                 bool normalized, const void* gate, void* y) {
  const Kernels k = kernels(type);
  const int64_t elements = int64_t(g.cols) * g.kernel_h * g.kernel_w;
  const Units u(g, type, channels_last, k.has_select(g, normalized), g.rows, g.cols, elements, y);
  std::atomic<bool> valid{true};
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    if (!k.select(g, normalized, u.layout, x, s, fixed, gate, y, u.stream, begin, end)) valid = false;
  });
  return valid;
}

bool unpool(const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const uint8_t* s, int fixed,
            bool normalized, const void* gate, void* x) {
  return spread(normalized ? kNormalized : kSums, g, type, mode, channels_last, y, s, fixed, gate, x);
}

bool unpool_weights(const Geometry& g, Type type, bool channels_last, const uint8_t* s, void* x) {
  return spread(kCounts, g, type, kSwitch, channels_last, nullptr, s, 0, nullptr, x);
}

const char* instruction_set() {
  return chosen() == kAvx512 ? "avx512" : chosen() == kAvx2 ? "avx2" : "portable";
}

}  // namespace cpu
}  // namespace switch_pool
