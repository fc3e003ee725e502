// Chooses the kernel for a call, fills its Task and enqueues it. No PyTorch here: raw pointers and a stream.

#include "launch.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "switch_pool.cuh"

namespace switch_pool {
namespace cuda {
namespace {

using namespace device;

constexpr index_t kMostItems = (index_t(1) << 31) - kThreads;  // what a Divider divides
constexpr int kTileBytes = 16 << 10, kMostShared = 48 << 10;

Divider make_divider(index_t divisor) {
  unsigned shift = 0;
  while ((index_t(1) << shift) < divisor) ++shift;
  const std::uint64_t multiplier = ((std::uint64_t(1) << 32) * ((std::uint64_t(1) << shift) - divisor)) / divisor + 1;
  return {unsigned(divisor), unsigned(multiplier), shift};
}

int size_of(Type type) { return type == kDouble ? 8 : type == kFloat ? 4 : 2; }

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

index_t ceil_divide(index_t a, index_t b) { return (a + b - 1) / b; }

// A call before a kernel is chosen.
struct Call {
  Task task;
  Type type;
  bool channels_last;
  cudaStream_t stream;

  const Geometry& g() const { return task.g; }
  int vector() const { return 16 / size_of(type); }
  bool is_square(int side) const {
    return g().kernel_h == side && g().kernel_w == side && g().stride_h == 2 && g().stride_w == 2 && type != kDouble;
  }
  bool is_aligned() const {
    return cuda::is_aligned(task.in) && cuda::is_aligned(task.gate) && cuda::is_aligned(task.switches) &&
           cuda::is_aligned(task.places) && cuda::is_aligned(task.out);
  }
  // Channels of whole vectors.
  bool has_vectors() const { return is_aligned() && g().channels % vector() == 0; }
  // 2x2 windows that tile the planes, in rows of whole vectors.
  bool has_pairs() const {
    return !channels_last && is_square(2) && g().pad_h == 0 && g().pad_w == 0 && g().height == 2 * g().rows &&
           g().width == 2 * g().cols && g().width % vector() == 0;
  }
};

Call make_call(const Geometry& g, Type type, bool channels_last, const void* in, void* out, void* stream) {
  Call call{};
  call.task.g = g;
  call.task.in = in;
  call.task.out = out;
  call.task.planes = g.batch * g.channels;
  call.type = type;
  call.channels_last = channels_last;
  call.stream = static_cast<cudaStream_t>(stream);
  return call;
}

template <class T>
void advance(T*& pointer, index_t bytes) {
  if (pointer) pointer = reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(pointer) + bytes);
}

void advance_all(Task& t, index_t images, index_t plane_in, index_t plane_out, index_t pooled, int size) {
  advance(t.in, images * plane_in * size);
  advance(t.out, images * plane_out * size);
  advance(t.gate, images * pooled * size);
  advance(t.switches, images * pooled);
  advance(t.places, images * pooled);
}

using Kernel = void (*)(Task);

#ifndef SP_SHIM  // the shim runs every thread in a loop
cudaError_t launch(Kernel kernel, index_t blocks, index_t shared, cudaStream_t stream, const Task& task) {
  void* arguments[] = {const_cast<Task*>(&task)};
  const dim3 grid(static_cast<unsigned>(blocks)), threads(kThreads);
  const cudaError_t error =
      cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, threads, arguments, static_cast<std::size_t>(shared), stream);
  if (error != cudaSuccess) cudaGetLastError();  // reported once, by what this call returns
  return error;
}
#endif

// Enqueues a kernel whose items are numbered by image (a plane in NCHW), as often as 31 bits need.
cudaError_t enqueue(const Call& call, Kernel kernel, index_t items_per_image, bool pooling) {
  const Geometry& g = call.g();
  const index_t images = call.channels_last ? g.batch : g.batch * g.channels, inner = call.channels_last ? g.channels : 1;
  const index_t places = index_t(g.height) * g.width * inner, windows = index_t(g.rows) * g.cols * inner;
  if (items_per_image > kMostItems) return cudaErrorInvalidConfiguration;
  const index_t most = kMostItems / items_per_image;
  for (index_t first = 0; first < images; first += most) {
    Task t = call.task;
    const index_t count = images - first < most ? images - first : most;
    t.items = unsigned(count * items_per_image);
    advance_all(t, first, pooling ? places : windows, pooling ? windows : places, windows, size_of(call.type));
    if (const cudaError_t error = launch(kernel, ceil_divide(t.items, kThreads), 0, call.stream, t)) return error;
  }
  return cudaSuccess;
}

// any_*: V elements of a result with planes of rows x cols.
cudaError_t enqueue_any(Call call, Kernel kernel, int v, int rows, int cols, bool pooling) {
  const index_t inner = call.channels_last ? call.g().channels / v : 1;
  call.task.d0 = make_divider(inner);
  call.task.d1 = make_divider(cols);
  call.task.d2 = make_divider(rows);
  return enqueue(call, kernel, inner * rows * cols, pooling);
}

// pairs_*: items are groups of V/2 windows, kGroups of them a thread.
cudaError_t enqueue_pairs(Call call, Kernel kernel, bool pooling) {
  const Geometry& g = call.g();
  const index_t windows = g.batch * g.channels * g.rows * g.cols, group = call.vector() / 2;
  call.task.d1 = make_divider(g.cols / group);
  const index_t slice = ceil_divide(index_t(1) << 30, g.cols) * g.cols;  // whole rows of windows
  for (index_t first = 0; first < windows; first += slice) {
    Task t = call.task;
    t.items = unsigned((windows - first < slice ? windows - first : slice) / group);
    advance_all(t, first, pooling ? 4 : 1, pooling ? 1 : 4, 1, size_of(call.type));
    if (const cudaError_t error = launch(kernel, ceil_divide(t.items, kGroups * kThreads), 0, call.stream, t)) return error;
  }
  return cudaSuccess;
}

// A tile of `planes` planes, or of `rows` rows of one; and the shared memory that it needs.
struct TilePlan {
  int planes, rows;
  index_t shared;
};

// Vectors of 16 bytes for a run of n elements of so many bytes, wherever it starts.
index_t room(index_t n, int size) { return ceil_divide(n, 16 / size) + 1; }

// rows_of_plane: rows that are shared out: of windows (pooling) or places.
TilePlan plan_tiles(const Call& call, int side, int rows_of_plane, bool pooling) {
  const Geometry& g = call.g();
  const int size = size_of(call.type);
  const index_t plane = index_t(g.height) * g.width * size, row = index_t(g.width) * size * (pooling ? 2 : 1);
  TilePlan plan{};
  index_t places, windows;
  if (plane <= kTileBytes + kTileBytes / 2) {
    plan.planes = int(plane < kTileBytes ? kTileBytes / plane : 1);
    places = plan.planes * index_t(g.height) * g.width;
    windows = plan.planes * index_t(g.rows) * g.cols;
  } else {
    plan.rows = int(row < kTileBytes ? kTileBytes / row : 1);
    if (plan.rows > rows_of_plane) plan.rows = rows_of_plane;
    places = (pooling ? index_t(plan.rows - 1) * 2 + side : plan.rows) * g.width;
    windows = (pooling ? index_t(plan.rows) : index_t(plan.rows) / 2 + side) * g.cols;
  }
  const index_t switches = windows + (pooling ? 2 * g.cols : 0);
  plan.shared = 16 * (room(places, size) + room(windows, size) + room(switches, 1) +
                      (!pooling && call.task.gate ? room(windows, size) : 0));
  return plan;
}

cudaError_t enqueue_tiles(Call call, Kernel kernel, const TilePlan& plan, int rows_of_plane, int d1, int d2, bool pooling) {
  const Geometry& g = call.g();
  const index_t planes = g.batch * g.channels, places = index_t(g.height) * g.width, windows = index_t(g.rows) * g.cols;
  call.task.d1 = make_divider(d1);
  call.task.d2 = make_divider(d2);
  call.task.tile_planes = plan.planes;
  call.task.tile_rows = plan.rows;
  call.task.tiles = plan.planes ? 0 : int(ceil_divide(rows_of_plane, plan.rows));
  // Slices begin at a multiple of 16 planes: aligned, whatever a plane's size is.
  const index_t per_plane = plan.planes ? 1 : call.task.tiles;
  const index_t slice = kMostItems / per_plane / (16 * 16) * 16 * (plan.planes ? plan.planes : 1);
  for (index_t first = 0; first < planes; first += slice) {
    Task t = call.task;
    t.planes = planes - first < slice ? planes - first : slice;
    advance_all(t, first, pooling ? places : windows, pooling ? windows : places, windows, size_of(call.type));
    const index_t blocks = plan.planes ? ceil_divide(t.planes, plan.planes) : t.planes * per_plane;
    if (const cudaError_t error = launch(kernel, blocks, plan.shared, call.stream, t)) return error;
  }
  return cudaSuccess;
}

// ---- The kernels of one type -------------------------------------------------------------------------------------------

template <class D>
struct Any {
  static constexpr int V = 16 / sizeof(typename D::Bits);

  static cudaError_t max(const Call& call) {
    const bool last = call.channels_last, vectors = last && call.has_vectors();
    const Kernel kernel = vectors ? any_max<D, V, true> : last ? any_max<D, 1, true> : any_max<D, 1, false>;
    return enqueue_any(call, kernel, vectors ? V : 1, call.g().rows, call.g().cols, true);
  }
  static cudaError_t sum(const Call& call) {
    const bool last = call.channels_last, vectors = last && call.has_vectors();
    const Kernel kernel = vectors ? any_sum<D, V, true> : last ? any_sum<D, 1, true> : any_sum<D, 1, false>;
    return enqueue_any(call, kernel, vectors ? V : 1, call.g().rows, call.g().cols, true);
  }
  static cudaError_t select(const Call& call) {
    const Kernel kernel = call.channels_last ? any_select<D, true> : any_select<D, false>;
    return enqueue_any(call, kernel, 1, call.g().rows, call.g().cols, true);
  }
  static cudaError_t unpool(const Call& call) {
    const bool last = call.channels_last, vectors = last && call.has_vectors();
    const Kernel kernel = vectors ? any_unpool<D, V, true> : last ? any_unpool<D, 1, true> : any_unpool<D, 1, false>;
    return enqueue_any(call, kernel, vectors ? V : 1, call.g().height, call.g().width, false);
  }
};

// What launching gave; nothing if no kernel fits.
using Launched = std::optional<cudaError_t>;

// The fast kernels of one type for windows of K x K, stride 2.
template <class D, int K>
struct Square {
  static constexpr int V = 16 / sizeof(typename D::Bits);

  static Launched pool(const Call& call, Kernel pixels, Kernel pairs, Kernel tiles) {
    const Geometry& g = call.g();
    if (call.channels_last) return call.has_vectors() ? Launched(enqueue_any(call, pixels, V, g.rows, g.cols, true)) : Launched();
    if (!call.is_aligned()) return {};
    if (pairs && call.has_pairs()) return enqueue_pairs(call, pairs, true);
    const TilePlan plan = plan_tiles(call, K, g.rows, true);
    if (!tiles || plan.shared > kMostShared) return {};
    return enqueue_tiles(call, tiles, plan, g.rows, g.cols, g.rows, true);
  }
  static Launched max(const Call& call) {
    if constexpr (K == 2) return pool(call, pixels_max<D, V, K>, pairs_max<D, V>, tiles_max<D, K>);
    return pool(call, pixels_max<D, V, K>, nullptr, tiles_max<D, K>);
  }
  static Launched sum(const Call& call) {
    if constexpr (K == 2) return pool(call, pixels_sum<D, V, K>, pairs_sum<D, V>, nullptr);
    return pool(call, pixels_sum<D, V, K>, nullptr, nullptr);
  }
  static Launched select(const Call& call) {
    if constexpr (K == 2) return pool(call, pixels_select<D, V, K>, pairs_select<D, V>, tiles_select<D, K>);
    return pool(call, pixels_select<D, V, K>, nullptr, tiles_select<D, K>);
  }
  static Launched unpool(const Call& call) {
    const Geometry& g = call.g();
    const int block_rows = (g.height - 1 + g.pad_h) / 2 + 1, block_cols = (g.width - 1 + g.pad_w) / 2 + 1;
    if (call.channels_last) {
      if (!call.has_vectors()) return {};
      return enqueue_any(call, pixels_unpool<D, V, K>, V, block_rows, block_cols, false);
    }
    if (!call.is_aligned()) return {};
    if constexpr (K == 2) {
      if (call.has_pairs()) return enqueue_pairs(call, pairs_unpool<D, V>, false);
    }
    const TilePlan plan = plan_tiles(call, K, g.height, false);
    if (plan.shared > kMostShared) return {};
    return enqueue_tiles(call, tiles_unpool<D, K>, plan, g.height, (block_cols + 1) / 2, block_rows - g.pad_h / 2, false);
  }
};

enum Operator { kMaximum, kTotal, kSelect, kUnpool };

template <class D>
cudaError_t run_any(Operator op, const Call& call) {
  switch (op) {
    case kMaximum:
      return Any<D>::max(call);
    case kTotal:
      return Any<D>::sum(call);
    case kSelect:
      return Any<D>::select(call);
    default:
      return Any<D>::unpool(call);
  }
}

template <class D, int K>
Launched run_square(Operator op, const Call& call) {
  switch (op) {
    case kMaximum:
      return Square<D, K>::max(call);
    case kTotal:
      return Square<D, K>::sum(call);
    case kSelect:
      return Square<D, K>::select(call);
    default:
      return call.task.mode == kSwitch ? Square<D, K>::unpool(call) : Launched();
  }
}

template <class D>
cudaError_t run(Operator op, const Call& call) {
  Launched launched;
  if (call.is_square(2)) launched = run_square<D, 2>(op, call);
  if (call.is_square(3)) launched = run_square<D, 3>(op, call);
  return launched ? *launched : run_any<D>(op, call);
}

cudaError_t dispatch(Operator op, const Call& call) {
  switch (call.type) {
    case kFloat:
      return run<Float>(op, call);
    case kHalf:
      return run<Half>(op, call);
    case kBFloat16:
      return run<BFloat16>(op, call);
    default:
      return run_any<Double>(op, call);
  }
}

// Where no place is covered twice, a place that counts was named once.
bool is_disjoint(const Geometry& g) { return g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w; }

}  // namespace

int max_pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, bool relu, void* y,
                    unsigned char* s, void* stream) {
  Call call = make_call(g, type, channels_last, x, y, stream);
  call.task.places = s;
  call.task.lower = relu ? 0.f : -INFINITY;
  return dispatch(kMaximum, call);
}

int pool_sum(const Geometry& g, Type type, bool channels_last, const void* x, bool average, const void* gate, void* y,
             void* stream) {
  Call call = make_call(g, type, channels_last, x, y, stream);
  call.task.gate = gate;
  call.task.mode = average ? kAverage : kSum;
  return dispatch(kTotal, call);
}

int pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, const unsigned char* s, int fixed,
                bool normalized, const void* gate, void* y, void* stream) {
  Call call = make_call(g, type, channels_last, x, y, stream);
  call.task.gate = gate;
  call.task.switches = s;
  call.task.fixed = fixed;
  call.task.normalized = normalized && !is_disjoint(g);
  return dispatch(kSelect, call);
}

int unpool(const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const unsigned char* s, int fixed,
           bool normalized, const void* gate, void* x, void* stream) {
  Call call = make_call(g, type, channels_last, y, x, stream);
  call.task.gate = gate;
  call.task.switches = s;
  call.task.fixed = fixed;
  call.task.mode = mode;
  call.task.normalized = normalized && !is_disjoint(g);
  return dispatch(kUnpool, call);
}

int unpool_weights(const Geometry& g, Type type, bool channels_last, const unsigned char* s, void* x, void* stream) {
  Call call = make_call(g, type, channels_last, nullptr, x, stream);
  call.task.switches = s;
  call.task.mode = kCount;
  return dispatch(kUnpool, call);
}

const char* error_name(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace cuda
}  // namespace switch_pool
