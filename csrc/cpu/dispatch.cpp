// The operators on the CPU: chooses the kernels of the best instruction set and the path through the tensor, and splits the
// work among threads.

#include "dispatch.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "targets.h"

namespace switch_pool {

// What a row of a plane gets: the sums of the windows' values, the sums over the number of values, that number, or (inside
// the kernels) a row of x over that number.
enum What { kSums, kNormalized, kCounts, kScaled };

// The ways through a tensor, in channels_last
//   kRows     along the rows of the result, all channels of a place at once,
//   kWindows  window by window, one value at a time (overlapping windows with switches);
// and in NCHW
//   kPairs    along the rows of a plane (2x2 windows of stride 2, no padding),
//   kWindows  as above (switches),
//   kTurned   through planes that are turned into channels, some at a time (everything).
enum class Path { kRows, kPairs, kTurned, kWindows };

// How the work is shared out: by rows of the result, or (NCHW) by bands of rows of so many planes.
struct Layout {
  bool channels_last;
  Path path;
  int group, band, bands;
};

// One instruction set's kernels for one type. The last two arguments are the units to do.
struct Kernels {
  using Reduce = void (*)(const Geometry&, const Layout&, const void* x, const void* gate, void* y, uint8_t* s, int64_t begin,
                          int64_t end);
  Reduce reduce[4];  // maximum, maximum after ReLU, sum, average
  bool (*spread)(const Geometry&, Mode, What what, const Layout&, const void* y, const void* gate, const uint8_t* s,
                 int fixed, void* x, int64_t begin, int64_t end);
  bool (*select)(const Geometry&, bool normalized, const Layout&, const void* x, const uint8_t* s, int fixed,
                 const void* gate, void* y, int64_t begin, int64_t end);
  bool has_pairs;
};

}  // namespace switch_pool

#if SP_X86
#define SP_ISA avx512
#define SP_BYTES 64
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
#undef SP_LAMBDA
#endif

#define SP_ISA portable
#define SP_BYTES 16
#define SP_LAMBDA
#include "kernels.h"

namespace switch_pool {
namespace cpu {
namespace {

Kernels kernels(Type type) {
#if SP_X86
  if (chosen() == kAvx512) return avx512::kernels(type);
  if (chosen() == kAvx2) return avx2::kernels(type);
#endif
  return portable::kernels(type);
}

int64_t size_of(Type type) { return type == kDouble ? 8 : type == kFloat ? 4 : 2; }

constexpr int kWindowPlanes = 8;  // planes that the walk window by window interleaves

// Rows enough for a thread to be worth waking.
int64_t grain(int64_t elements_per_row) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_row)); }

// The units of one call: rows of the result, of `height` to a plane, or bands of them.
struct Units {
  Layout layout;
  int64_t count, grain;

  // elements: what a row of one plane costs.
  Units(const Geometry& g, Type type, bool channels_last, Path path, int height, int64_t elements)
      : layout{channels_last, path, 0, 0, 0} {
    if (channels_last) {
      count = g.batch * height;
      grain = cpu::grain(elements * g.channels);
    } else {
      share_out(g, height, size_of(type));
      count = (g.batch * g.channels + layout.group - 1) / layout.group * layout.bands;
      grain = cpu::grain(elements * layout.group * layout.band);
    }
  }

 private:
  // Groups and bands whose larger side stays in the second cache: of planes that fill a line of memory or more side by side
  // where they are turned, else of a few.
  void share_out(const Geometry& g, int height, int64_t size) {
    constexpr int64_t kBytes = 256 << 10;
    const int64_t plane = static_cast<int64_t>(g.height) * g.width * size;
    const bool turned = layout.path == Path::kTurned;
    layout.group = turned ? static_cast<int>(64 / size) : kWindowPlanes;
    for (int i = 0; turned && i < 2 && plane * layout.group * 2 <= kBytes; ++i) layout.group *= 2;
    const int64_t row = plane * layout.group / height;  // bytes of the plane to a row of the result
    layout.band = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(height, kBytes / std::max<int64_t>(1, row))));
    layout.bands = (height + layout.band - 1) / layout.band;
  }
};

bool is_disjoint(const Geometry& g) { return g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w; }

// What a path can serve, and where it is worth it: benchmarks/dispatch.md. Short rows are too much work for each row.
bool has_pairs(const Kernels& k, const Geometry& g, Type type) {
  constexpr int kLeastBytes = 48;
  return k.has_pairs && g.kernel_h == 2 && g.kernel_w == 2 && g.stride_h == 2 && g.stride_w == 2 && g.pad_h == 0 &&
         g.pad_w == 0 && std::min(g.cols, g.width / 2) * size_of(type) >= kLeastBytes;
}

bool has_windows(const Geometry& g, const uint8_t* s) {  // the places of some planes are numbered by 31 bits
  return s && (int64_t(g.rows) * g.stride_h + g.kernel_h) * g.width + g.pad_w <= INT32_MAX / kWindowPlanes;
}

std::atomic<int> forced_path{-1};  // see the end of this file

bool is_forced(Path path) { return forced_path == static_cast<int>(path); }

Path reduce_path(const Kernels& k, const Geometry& g, Type type, bool channels_last) {
  if (channels_last) return Path::kRows;
  if (is_forced(Path::kTurned)) return Path::kTurned;
  return has_pairs(k, g, type) ? Path::kPairs : Path::kTurned;
}

Path spread_path(const Kernels& k, const Geometry& g, Type type, bool channels_last, Mode mode, What what, const uint8_t* s) {
  const bool switched = mode == kSwitch && has_windows(g, s) && g.stride_h <= g.kernel_h;
  if (channels_last) {
    const bool slow = size_of(type) < 4 || g.channels < 64;  // for vectors
    const bool wanted = is_forced(Path::kWindows) || (slow && !is_forced(Path::kRows));
    return switched && !is_disjoint(g) && wanted ? Path::kWindows : Path::kRows;
  }
  if (is_forced(Path::kTurned)) return Path::kTurned;
  if (is_forced(Path::kWindows) && switched) return Path::kWindows;
  if (mode == kSwitch && what != kCounts && has_pairs(k, g, type)) return Path::kPairs;
  return switched && !is_disjoint(g) ? Path::kWindows : Path::kTurned;
}

Path select_path(const Kernels& k, const Geometry& g, Type type, bool channels_last, bool normalized, const uint8_t* s) {
  if (channels_last) return Path::kRows;
  if (is_forced(Path::kTurned)) return Path::kTurned;
  if (is_forced(Path::kWindows) && has_windows(g, s)) return Path::kWindows;
  if (has_pairs(k, g, type)) return Path::kPairs;
  if (!has_windows(g, s)) return Path::kTurned;
  const bool counts = normalized && !is_disjoint(g);  // one plane at a time, which is slow for halves and for short rows
  return counts && (size_of(type) < 4 || g.cols * size_of(type) < 96) ? Path::kTurned : Path::kWindows;
}

void reduce(int which, const Geometry& g, Type type, bool channels_last, const void* x, const void* gate, void* y,
            uint8_t* s) {
  const Kernels k = kernels(type);
  const Path path = reduce_path(k, g, type, channels_last);
  const Units u(g, type, channels_last, path, g.rows, int64_t(g.cols) * g.kernel_h * g.kernel_w);
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    k.reduce[which](g, u.layout, x, gate, y, s, begin, end);
  });
}

bool spread(What what, const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const uint8_t* s,
            int fixed, const void* gate, void* x) {
  const Kernels k = kernels(type);
  const Path path = spread_path(k, g, type, channels_last, mode, what, s);
  const int height = path == Path::kPairs ? g.rows : g.height;  // pairs of rows
  const Units u(g, type, channels_last, path, height, int64_t(g.width) * (path == Path::kPairs ? 2 : 1));
  std::atomic<bool> valid{true};
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    if (!k.spread(g, mode, what, u.layout, y, gate, s, fixed, x, begin, end)) valid = false;
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
  const Path path = select_path(k, g, type, channels_last, normalized, s);
  const Units u(g, type, channels_last, path, g.rows, int64_t(g.cols) * g.kernel_h * g.kernel_w);
  std::atomic<bool> valid{true};
  at::parallel_for(0, u.count, u.grain, [&](int64_t begin, int64_t end) {
    if (!k.select(g, normalized, u.layout, x, s, fixed, gate, y, begin, end)) valid = false;
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

// For tests and benchmarks, by ctypes: -1 takes the path that the rule says, others are a Path, taken where it can serve.
extern "C" __attribute__((visibility("default"))) void switch_pool_force_path(int path) {
  switch_pool::cpu::forced_path = path;
}
