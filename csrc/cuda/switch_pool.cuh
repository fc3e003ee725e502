// The kernels of switch pooling and unpooling, as nvcc, NVRTC (CuPy) and, over a shim that defines the few names below that
// C++ lacks, any C++ compiler see them. No PyTorch, no CUDA library. What a kernel needs to know is in a Task; who fills
// it (launch.cu, cupy_backend.py) chooses the kernel:
//
//   any_*     one thread an element (or 16 bytes of channels, in channels_last): every window, stride and pad
//   pixels_*  2x2/2 and 3x3/2 in channels_last: 16 bytes of channels of a window, or of the places between windows
//   pairs_*   2x2/2 in NCHW where rows are multiples of 16 bytes: straight through registers
//   tiles_*   2x2/2 and 3x3/2 in any other NCHW: through shared memory, since rows begin anywhere
//
// Every element of a result is written once, by one thread: nothing is cleared before, nothing is added atomically, and the
// sums are the same in every run.
#pragma once

#include "../geometry.h"

#define SP_KERNEL __global__ void __launch_bounds__(256)
#ifndef SP_SHARED  // the shim's is a plain array
#define SP_SHARED(type, name) extern __shared__ type name[]
#endif

namespace switch_pool {
namespace device {

const int kThreads = 256;

// Division by a number known before: exact below 2^31. make_divider is in launch.cu and cupy_backend.py.
struct Divider {
  unsigned divisor, multiplier, shift;
};

struct Task {
  Geometry g;
  const void* in;                  // x when pooling, y when unpooling
  const void* gate;                // like the pooled side, or null
  const unsigned char* switches;   // null: every window has the switch `fixed`
  unsigned char* places;           // the switches that a max pooling writes
  void* out;
  int fixed;
  int mode;                        // Mode; unpooling: kCount counts instead of adding
  int normalized;
  float lower;                     // maxima: what smaller values count as; 0 for ReLU, else -infinity
  unsigned items;                  // what threads share: see each kernel
  Divider d0, d1, d2;              // item = ((i2 * d2 + i1) * d1 + i0) * d0 + inner
  int tile_planes, tile_rows, tiles;  // tiles_*: planes a tile; or, if 0, rows a tile, and tiles a plane
  index_t planes;
};

const int kCount = 3;  // one more Mode: how many values meet

// ---- Types -------------------------------------------------------------------------------------------------------------

struct Float {
  typedef unsigned Bits;
  typedef float Acc;
  static __device__ float load(unsigned x) { return __uint_as_float(x); }
  static __device__ unsigned store(float x) { return __float_as_uint(x); }
  static __device__ float lowest() { return -3.402823466e+38f; }
};

struct Double {
  typedef unsigned long long Bits;
  typedef double Acc;
  static __device__ double load(unsigned long long x) { return __longlong_as_double(static_cast<long long>(x)); }
  static __device__ unsigned long long store(double x) { return static_cast<unsigned long long>(__double_as_longlong(x)); }
  static __device__ double lowest() { return -3.4028234663852886e+38; }
};

struct Half {
  typedef unsigned short Bits;
  typedef float Acc;
#ifndef SP_SHIM
  static __device__ float load(unsigned short x) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x));
    return value;
  }
  static __device__ unsigned short store(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
  }
#else
  static __device__ float load(unsigned short x) { return half_to_float(x); }
  static __device__ unsigned short store(float x) { return float_to_half(x); }
#endif
  static __device__ float lowest() { return -65504.f; }
};

struct BFloat16 {
  typedef unsigned short Bits;
  typedef float Acc;
  static __device__ float load(unsigned short x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
  static __device__ unsigned short store(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    const unsigned rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<unsigned short>(x == x ? rounded : 0x7fc0);
#endif
  }
  static __device__ float lowest() { return __uint_as_float(0xff7f0000u); }
};

// ---- Small vectors in registers: every index is known when compiling ---------------------------------------------------

template <int kBytes>
struct Words {
  unsigned w[(kBytes + 3) / 4];

  __device__ void load(const void* from) {
    if constexpr (kBytes == 16) {
      const uint4 v = *static_cast<const uint4*>(from);
      w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
    } else if constexpr (kBytes == 8) {
      const uint2 v = *static_cast<const uint2*>(from);
      w[0] = v.x, w[1] = v.y;
    } else if constexpr (kBytes == 4) {
      w[0] = *static_cast<const unsigned*>(from);
    } else if constexpr (kBytes == 2) {
      w[0] = *static_cast<const unsigned short*>(from);
    } else {
      w[0] = *static_cast<const unsigned char*>(from);
    }
  }
  __device__ void store(void* to) const {
    if constexpr (kBytes == 16) {
      *static_cast<uint4*>(to) = make_uint4(w[0], w[1], w[2], w[3]);
    } else if constexpr (kBytes == 8) {
      *static_cast<uint2*>(to) = make_uint2(w[0], w[1]);
    } else if constexpr (kBytes == 4) {
      *static_cast<unsigned*>(to) = w[0];
    } else if constexpr (kBytes == 2) {
      *static_cast<unsigned short*>(to) = static_cast<unsigned short>(w[0]);
    } else {
      *static_cast<unsigned char*>(to) = static_cast<unsigned char>(w[0]);
    }
  }
  // Elements of kSize bytes, set in ascending order.
  template <int kSize>
  __device__ unsigned get(int i) const {
    return kSize == 4 ? w[i] : w[i * kSize / 4] >> i * kSize % 4 * 8 & ((1u << kSize % 4 * 8) - 1);
  }
  template <int kSize>
  __device__ void set(int i, unsigned x) {
    if (i * kSize % 4 == 0) {
      w[i * kSize / 4] = x;
    } else {
      w[i * kSize / 4] |= x << i * kSize % 4 * 8;
    }
  }
};

template <class D, int V>
struct Pack : Words<V * static_cast<int>(sizeof(typename D::Bits))> {
  typedef typename D::Bits Bits;
  static const int kSize = sizeof(Bits);

  __device__ Bits bits(int i) const {
    if constexpr (kSize == 8) {
      return static_cast<Bits>(this->w[2 * i]) | static_cast<Bits>(this->w[2 * i + 1]) << 32;
    } else {
      return static_cast<Bits>(this->template get<kSize>(i));
    }
  }
  __device__ typename D::Acc value(int i) const { return D::load(bits(i)); }
  __device__ void put(int i, Bits x) {
    if constexpr (kSize == 8) {
      this->w[2 * i] = static_cast<unsigned>(x), this->w[2 * i + 1] = static_cast<unsigned>(x >> 32);
    } else {
      this->template set<kSize>(i, x);
    }
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(this->w) / 4); ++i) this->w[i] = 0;
  }
};

template <int V>
struct Bytes : Words<V> {
  __device__ int at(int i) const { return static_cast<int>(this->template get<1>(i)); }
  __device__ void put(int i, int x) { this->template set<1>(i, static_cast<unsigned>(x)); }
  __device__ void fill(int x) {
#pragma unroll
    for (int i = 0; i < (V + 3) / 4; ++i) this->w[i] = static_cast<unsigned>(x) * 0x01010101u;
  }
  // The switches at an offset, or the one that all windows have.
  __device__ void fetch(const Task& t, index_t offset) {
    if (t.switches) {
      this->load(t.switches + offset);
    } else {
      fill(t.fixed);
    }
  }
};

// ---- Places and windows ------------------------------------------------------------------------------------------------

__device__ inline unsigned quotient(unsigned n, const Divider& d) { return (__umulhi(n, d.multiplier) + n) >> d.shift; }

// n becomes its quotient; the remainder is returned.
__device__ inline int split(unsigned& n, const Divider& d) {
  const unsigned q = quotient(n, d);
  const int remainder = static_cast<int>(n - q * d.divisor);
  n = q;
  return remainder;
}

// Whether 0 <= i < n: one comparison.
__device__ inline bool within(int i, int n) { return static_cast<unsigned>(i) < static_cast<unsigned>(n); }

__device__ inline int larger(int a, int b) { return a > b ? a : b; }
__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

template <class D>
__device__ inline const typename D::Bits* input(const Task& t) {
  return static_cast<const typename D::Bits*>(t.in);
}
template <class D>
__device__ inline typename D::Bits* output(const Task& t) {
  return static_cast<typename D::Bits*>(t.out);
}

template <class A>
__device__ inline bool is_closed(A gate) {
  return gate <= 0;
}

// The windows that cover a place, along one axis: from the first to before the last.
__device__ inline int first_covering(int place, int kernel, int stride, int pad) {
  const int start = place + pad - kernel;
  return start < 0 ? 0 : start / stride + 1;
}
__device__ inline int last_covering(int place, int stride, int pad, int count) {
  return place + pad < 0 ? 0 : smaller(count, (place + pad) / stride + 1);
}

// What an average divides by, along one axis.
__device__ inline int divisor(int start, int kernel, int size, int pad) {
  return smaller(start + kernel, size + pad) - start;
}

// The larger of x and lower; NaN stays.
template <class A>
__device__ inline A at_least(A x, A lower) {
  return x < lower ? lower : x;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ inline float at_least(float x, float lower) {
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(lower));
  return x;
}
#endif

// One step of a maximum: strictly larger wins, so the first of ties; NaN never.
template <class A>
__device__ inline void step(A& best, int& at, A x, A lower, int place) {
  x = at_least(x, lower);
  const bool wins = x > best;
  best = wins ? x : best;
  at = wins ? place : at;
}

// A place's result from the sum and the number of the values that meet there. Each factor is rounded, as SafeInv and
// Eltwise PROD would find it in memory.
template <class D>
__device__ inline typename D::Acc inverse(int count) {
  typedef typename D::Acc A;
  return D::load(D::store(count == 0 ? A(0) : A(1) / A(count)));
}
template <class D>
__device__ inline typename D::Bits finish(typename D::Acc sum, int count, int normalized) {
  const typename D::Bits rounded = D::store(sum);
  return normalized ? D::store(D::load(rounded) * inverse<D>(count)) : rounded;
}

// How many windows name a place of one plane (or of one channel of an image, `step` elements from pixel to pixel).
__device__ inline int count_named(const Task& t, const unsigned char* s, index_t step, int h, int w) {
  const Geometry& g = t.g;
  int count = 0;
  const int last_row = last_covering(h, g.stride_h, g.pad_h, g.rows), last_col = last_covering(w, g.stride_w, g.pad_w, g.cols);
  for (int row = first_covering(h, g.kernel_h, g.stride_h, g.pad_h); row < last_row; ++row) {
    for (int col = first_covering(w, g.kernel_w, g.stride_w, g.pad_w); col < last_col; ++col) {
      const int here = (h - row * g.stride_h + g.pad_h) * g.kernel_w + w - col * g.stride_w + g.pad_w;
      count += s[(static_cast<index_t>(row) * g.cols + col) * step] == here;
    }
  }
  return count;
}

// ---- any_*: items are V elements of the result -------------------------------------------------------------------------

// Where an item lies: its column and row; its image and first channel (channels_last), or its plane and 0.
struct Spot {
  int col, row, channel;
  unsigned image;
  index_t step;  // from pixel to pixel

  // The offset of the same channel and place (0, 0) in a tensor of planes of so many places.
  __device__ index_t base(index_t places) const { return image * (places * step) + channel; }
};

// d0: vectors of channels (channels_last), d1: columns, d2: rows.
template <int V, bool kLast>
__device__ inline Spot locate(const Task& t, unsigned item) {
  Spot spot;
  spot.channel = kLast ? split(item, t.d0) * V : 0;
  spot.col = split(item, t.d1);
  spot.row = split(item, t.d2);
  spot.image = item;
  spot.step = kLast ? t.g.channels : 1;
  return spot;
}

__device__ inline index_t places_of(const Geometry& g) { return static_cast<index_t>(g.height) * g.width; }
__device__ inline index_t windows_of(const Geometry& g) { return static_cast<index_t>(g.rows) * g.cols; }

__device__ inline unsigned own_item() { return blockIdx.x * kThreads + threadIdx.x; }

// What becomes of a window's places: the maximum and where it was, or the sum.
template <class D>
struct MaxOf {
  typedef typename D::Acc A;
  static const bool kHasPlace = true;
  static const int kAhead = 4;  // loads on their way, as far as registers go
  A best;
  int at;
  __device__ void start() { best = D::lowest(), at = kNone; }
  __device__ void take(const Task& t, A x, int place) { step<A>(best, at, x, t.lower, place); }
  __device__ typename D::Bits value(const Task&, A) const { return D::store(best); }
  __device__ int place() const { return at; }
};
template <class D>
struct SumOf {
  typedef typename D::Acc A;
  static const bool kHasPlace = false;
  static const int kAhead = 2;
  A sum;
  __device__ void start() { sum = 0; }
  __device__ void take(const Task&, A x, int) { sum += x; }
  __device__ typename D::Bits value(const Task& t, A size) const { return D::store(t.mode == kAverage ? sum / size : sum); }
  __device__ int place() const { return kNone; }
};

// V windows, from `offset` on. size: what an average divides by.
template <class D, class Op, int V>
__device__ inline void put_windows(const Task& t, const Op* windows, typename D::Acc size, index_t offset) {
  Pack<D, V> y, gate;
  if (!Op::kHasPlace && t.gate) gate.load(static_cast<const typename D::Bits*>(t.gate) + offset);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool closed = !Op::kHasPlace && t.gate && is_closed(gate.value(v));
    y.put(v, closed ? typename D::Bits(0) : windows[v].value(t, size));
  }
  y.store(output<D>(t) + offset);
  if (Op::kHasPlace) {
    Bytes<V> s;
#pragma unroll
    for (int v = 0; v < V; ++v) s.put(v, windows[v].place());
    s.store(t.places + offset);
  }
}

// What the average of a window that starts at (h, w) divides by.
template <class A>
__device__ inline A size_of_window(const Geometry& g, int h, int w) {
  return A(divisor(h, g.kernel_h, g.height, g.pad_h)) * A(divisor(w, g.kernel_w, g.width, g.pad_w));
}

template <class D, class Op, int V, bool kLast>
__device__ inline void reduce_any(const Task& t) {
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<V, kLast>(t, item);
  const index_t base = spot.base(places_of(g));
  const int h = spot.row * g.stride_h - g.pad_h, w = spot.col * g.stride_w - g.pad_w;
  const int first = larger(0, -w), last = smaller(g.kernel_w, g.width - w), end = smaller(g.kernel_h, g.height - h);
  Op windows[V];
#pragma unroll
  for (int v = 0; v < V; ++v) windows[v].start();
  for (int i = larger(0, -h); i < end; ++i) {
    const typename D::Bits* row = input<D>(t) + base + (static_cast<index_t>(h + i) * g.width + w) * spot.step;
#pragma unroll Op::kAhead
    for (int j = first; j < last; ++j) {
      Pack<D, V> x;
      x.load(row + j * spot.step);
#pragma unroll
      for (int v = 0; v < V; ++v) windows[v].take(t, x.value(v), i * g.kernel_w + j);
    }
  }
  put_windows<D, Op, V>(t, windows, size_of_window<typename D::Acc>(g, h, w), static_cast<index_t>(item) * V);
}

template <class D, int V, bool kLast>
SP_KERNEL any_max(const Task t) {
  reduce_any<D, MaxOf<D>, V, kLast>(t);
}

template <class D, int V, bool kLast>
SP_KERNEL any_sum(const Task t) {
  reduce_any<D, SumOf<D>, V, kLast>(t);
}

template <class D, bool kLast>
SP_KERNEL any_select(const Task t) {
  typedef typename D::Bits B;
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<1, kLast>(t, item);
  const int place = t.switches ? t.switches[item] : t.fixed;
  const int h = spot.row * g.stride_h - g.pad_h + place / g.kernel_w;
  const int w = spot.col * g.stride_w - g.pad_w + place % g.kernel_w;
  B value = 0;
  // 255 is a place of a window that has 256 of them or more; none has.
  if (place < g.kernel_h * g.kernel_w && within(h, g.height) && within(w, g.width)) {
    value = input<D>(t)[spot.base(places_of(g)) + (static_cast<index_t>(h) * g.width + w) * spot.step];
    if (t.normalized) {
      const int count = count_named(t, t.switches + spot.base(windows_of(g)), spot.step, h, w);
      value = D::store(D::load(value) * inverse<D>(count));
    }
  }
  if (t.gate && is_closed(D::load(static_cast<const B*>(t.gate)[item]))) value = 0;
  output<D>(t)[item] = value;
}

template <class D, int V, bool kLast>
SP_KERNEL any_unpool(const Task t) {
  typedef typename D::Acc A;
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<V, kLast>(t, item);
  const index_t base = spot.base(windows_of(g));
  const int last_row = last_covering(spot.row, g.stride_h, g.pad_h, g.rows);
  const int last_col = last_covering(spot.col, g.stride_w, g.pad_w, g.cols);
  A sum[V];
  int count[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = 0, count[v] = 0;
  for (int row = first_covering(spot.row, g.kernel_h, g.stride_h, g.pad_h); row < last_row; ++row) {
#pragma unroll 1
    for (int col = first_covering(spot.col, g.kernel_w, g.stride_w, g.pad_w); col < last_col; ++col) {
      const int h = row * g.stride_h - g.pad_h, w = col * g.stride_w - g.pad_w;
      const int here = (spot.row - h) * g.kernel_w + spot.col - w;
      const index_t offset = base + (static_cast<index_t>(row) * g.cols + col) * spot.step;
      const A size = A(divisor(h, g.kernel_h, g.height, g.pad_h)) * A(divisor(w, g.kernel_w, g.width, g.pad_w));
      Bytes<V> s;
      Pack<D, V> y, gate;
      if (t.mode == kSwitch || t.mode == kCount) s.fetch(t, offset);
      if (t.mode != kCount) y.load(input<D>(t) + offset);
      if (t.gate) gate.load(static_cast<const typename D::Bits*>(t.gate) + offset);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool named = t.mode == kSum || t.mode == kAverage || s.at(v) == here;
        const bool open = !t.gate || !is_closed(gate.value(v));
        A value = t.mode == kCount ? A(1) : y.value(v);
        if (t.mode == kAverage) value = value / size;
        sum[v] += named && open ? value : A(0);
        count[v] += named;
      }
    }
  }
  Pack<D, V> x;
#pragma unroll
  for (int v = 0; v < V; ++v) x.put(v, finish<D>(sum[v], count[v], t.normalized));
  x.store(output<D>(t) + static_cast<index_t>(item) * V);
}

// ---- pixels_*: KxK windows, stride 2, channels_last, V channels a thread -----------------------------------------------

// Items are V channels of a window.
template <class D, class Op, int V, int K>
__device__ inline void reduce_pixels(const Task& t) {
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<V, true>(t, item);
  const int h = spot.row * 2 - g.pad_h, w = spot.col * 2 - g.pad_w;
  const typename D::Bits* x = input<D>(t) + spot.base(places_of(g));
  Pack<D, V> window[K * K];
  bool inside[K * K];
#pragma unroll
  for (int i = 0; i < K * K; ++i) {
    const int r = h + i / K, c = w + i % K;
    inside[i] = within(r, g.height) && within(c, g.width);
    if (inside[i]) window[i].load(x + (static_cast<index_t>(r) * g.width + c) * spot.step);
  }
  Op windows[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    windows[v].start();
#pragma unroll
    for (int i = 0; i < K * K; ++i) {
      if (inside[i]) windows[v].take(t, window[i].value(v), i);
    }
  }
  put_windows<D, Op, V>(t, windows, size_of_window<typename D::Acc>(g, h, w), static_cast<index_t>(item) * V);
}

template <class D, int V, int K>
SP_KERNEL pixels_max(const Task t) {
  reduce_pixels<D, MaxOf<D>, V, K>(t);
}

template <class D, int V, int K>
SP_KERNEL pixels_sum(const Task t) {
  reduce_pixels<D, SumOf<D>, V, K>(t);
}

// Items are V channels of a window.
template <class D, int V, int K>
SP_KERNEL pixels_select(const Task t) {
  typedef typename D::Bits B;
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<V, true>(t, item);
  const int h = spot.row * 2 - g.pad_h, w = spot.col * 2 - g.pad_w;
  const typename D::Bits* x = input<D>(t) + spot.base(places_of(g));
  const index_t offset = static_cast<index_t>(item) * V;
  Bytes<V> s;
  s.fetch(t, offset);
  Pack<D, V> window[K * K], gate, y;
#pragma unroll
  for (int i = 0; i < K * K; ++i) {
    const int r = h + i / K, c = w + i % K;
    if (within(r, g.height) && within(c, g.width)) {
      window[i].load(x + (static_cast<index_t>(r) * g.width + c) * spot.step);
    } else {
      window[i].clear();
    }
  }
  if (t.gate) gate.load(static_cast<const B*>(t.gate) + offset);
  int count[V];
#pragma unroll
  for (int v = 0; v < V; ++v) count[v] = 1;
  if (K == 3 && t.normalized) {
    // A place is named by the windows beside its own, too, where theirs reaches it.
#pragma unroll
    for (int i = 0; i < 9; ++i) {
      const int dr = i / 3 - 1, dc = i % 3 - 1;
      const int row = spot.row + dr, col = spot.col + dc;
      if (i == 4 || !within(row, g.rows) || !within(col, g.cols)) continue;
      Bytes<V> other;
      other.load(t.switches + offset + (static_cast<index_t>(dr) * g.cols + dc) * spot.step);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const int r = s.at(v) / 3 - 2 * dr, c = s.at(v) % 3 - 2 * dc;
        count[v] += within(r, 3) && within(c, 3) && other.at(v) == r * 3 + c;
      }
    }
  }
  // Place by place with masks: a choice among K * K registers by number would become an array in memory.
  B value[V];
#pragma unroll
  for (int v = 0; v < V; ++v) value[v] = 0;
#pragma unroll
  for (int i = 0; i < K * K; ++i) {
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] |= window[i].bits(v) & static_cast<B>(-static_cast<int>(s.at(v) == i));
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (K == 3 && t.normalized) value[v] = D::store(D::load(value[v]) * inverse<D>(count[v]));
    y.put(v, t.gate && is_closed(gate.value(v)) ? B(0) : value[v]);
  }
  y.store(output<D>(t) + offset);
}

// The four places at (h, w) and V channels, from the windows that meet them; x is place (0, 0) of the first channel.
template <class D, int V, int K, bool kNormalized>
__device__ inline void unpool_pixels(const Geometry& g, const Pack<D, V>* y, const Bytes<V>* s, int h, int w,
                                     typename D::Bits* x) {
  const int kBefore = K - 2, kWindows = (K - 1) * (K - 1);
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const int r = h + p / 2, c = w + p % 2;
    if (!within(r, g.height) || !within(c, g.width)) continue;
    Pack<D, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (K == 2) {
        out.put(v, s[0].at(v) == p ? y[0].bits(v) : typename D::Bits(0));
        continue;
      }
      typename D::Acc sum = 0;
      int count = 0;
#pragma unroll
      for (int i = 0; i < kWindows; ++i) {  // row-major over the windows
        const int window_r = p / 2 + 2 * (kBefore - i / (K - 1)), window_c = p % 2 + 2 * (kBefore - i % (K - 1));
        if (window_r >= K || window_c >= K) continue;
        if (s[i].at(v) == window_r * K + window_c) {
          sum += y[i].value(v);
          if (kNormalized) ++count;
        }
      }
      out.put(v, finish<D>(sum, count, kNormalized));
    }
    out.store(x + (static_cast<index_t>(r) * g.width + c) * g.channels);
  }
}

// Items are V channels of the 2x2 places from which window (row, col) starts; d1 and d2 count those. Of 3x3 windows,
// those one before reach them, too.
template <class D, int V, int K>
SP_KERNEL pixels_unpool(const Task t) {
  const unsigned item = own_item();
  if (item >= t.items) return;
  const Geometry& g = t.g;
  const Spot spot = locate<V, true>(t, item);
  const index_t windows = spot.base(windows_of(g));
  const int kBefore = K - 2, kWindows = (K - 1) * (K - 1);
  Pack<D, V> y[kWindows];
  Bytes<V> s[kWindows];
#pragma unroll
  for (int i = 0; i < kWindows; ++i) {
    const int row = spot.row - kBefore + i / (K - 1), col = spot.col - kBefore + i % (K - 1);
    if (within(row, g.rows) && within(col, g.cols)) {
      const index_t offset = windows + (static_cast<index_t>(row) * g.cols + col) * spot.step;
      y[i].load(input<D>(t) + offset);
      s[i].fetch(t, offset);
      if (t.gate) {
        Pack<D, V> gate, open;
        gate.load(static_cast<const typename D::Bits*>(t.gate) + offset);
#pragma unroll
        for (int v = 0; v < V; ++v) open.put(v, is_closed(gate.value(v)) ? typename D::Bits(0) : y[i].bits(v));
        y[i] = open;
      }
    } else {
      y[i].clear();
      s[i].fill(kNone);
    }
  }
  const int h = spot.row * 2 - g.pad_h, w = spot.col * 2 - g.pad_w;
  typename D::Bits* x = output<D>(t) + spot.base(places_of(g));
  if (K == 3 && t.normalized) {
    unpool_pixels<D, V, K, true>(g, y, s, h, w, x);
  } else {
    unpool_pixels<D, V, K, false>(g, y, s, h, w, x);
  }
}

// ---- pairs_*: 2x2 windows, stride 2, that tile NCHW planes exactly; 16 bytes of two rows a group -----------------------

// Items are groups: V/2 windows in a row, which lie over 16 bytes of two rows of places. d1: groups to a row of windows.
// Rows of windows are numbered through all planes: the rows of places under row r are 2r and 2r + 1.
template <int V>
__device__ inline index_t group_offset(const Task& t, unsigned group) {
  const int col = split(group, t.d1);
  return static_cast<index_t>(group) * 2 * t.g.width + col * V;
}

// A thread takes kGroups of them, a block's width apart: neighbouring threads access neighbouring memory, in whole sectors.
const int kGroups = 2;

__device__ inline unsigned own_group(int i) { return (blockIdx.x * kGroups + i) * kThreads + threadIdx.x; }

template <class D, int V>
__device__ inline void load_groups(const Task& t, Pack<D, V>* x) {
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) >= t.items) continue;
    const typename D::Bits* from = input<D>(t) + group_offset<V>(t, own_group(i));
    x[2 * i].load(from);
    x[2 * i + 1].load(from + t.g.width);
  }
}

template <class D, class Op, int V>
__device__ inline void reduce_pairs(const Task& t) {
  Pack<D, V> x[2 * kGroups];
  load_groups<D, V>(t, x);
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) >= t.items) continue;
    Op windows[V / 2];
#pragma unroll
    for (int v = 0; v < V / 2; ++v) {
      windows[v].start();
      windows[v].take(t, x[2 * i].value(2 * v), 0);
      windows[v].take(t, x[2 * i].value(2 * v + 1), 1);
      windows[v].take(t, x[2 * i + 1].value(2 * v), 2);
      windows[v].take(t, x[2 * i + 1].value(2 * v + 1), 3);
    }
    put_windows<D, Op, V / 2>(t, windows, 4, static_cast<index_t>(own_group(i)) * (V / 2));
  }
}

template <class D, int V>
SP_KERNEL pairs_max(const Task t) {
  reduce_pairs<D, MaxOf<D>, V>(t);
}

template <class D, int V>
SP_KERNEL pairs_sum(const Task t) {
  reduce_pairs<D, SumOf<D>, V>(t);
}

// What belongs to V/2 windows; all of it is fetched before any is used.
template <class D, int V>
struct Pooled {
  Pack<D, V / 2> y, gate;
  Bytes<V / 2> s;

  __device__ void fetch(const Task& t, const typename D::Bits* values, index_t offset) {
    if (values) y.load(values + offset);
    s.fetch(t, offset);
    if (t.gate) gate.load(static_cast<const typename D::Bits*>(t.gate) + offset);
  }
};

template <class D, int V>
SP_KERNEL pairs_select(const Task t) {
  typedef typename D::Bits B;
  Pack<D, V> x[2 * kGroups];
  Pooled<D, V> pooled[kGroups];
  load_groups<D, V>(t, x);
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) < t.items) pooled[i].fetch(t, nullptr, static_cast<index_t>(own_group(i)) * (V / 2));
  }
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) >= t.items) continue;
    Pack<D, V / 2> y;
#pragma unroll
    for (int v = 0; v < V / 2; ++v) {
      const int place = pooled[i].s.at(v);
      B value = place == 0 ? x[2 * i].bits(2 * v) : B(0);
      value = place == 1 ? x[2 * i].bits(2 * v + 1) : value;
      value = place == 2 ? x[2 * i + 1].bits(2 * v) : value;
      value = place == 3 ? x[2 * i + 1].bits(2 * v + 1) : value;
      y.put(v, t.gate && is_closed(pooled[i].gate.value(v)) ? B(0) : value);
    }
    y.store(output<D>(t) + static_cast<index_t>(own_group(i)) * (V / 2));
  }
}

template <class D, int V>
SP_KERNEL pairs_unpool(const Task t) {
  typedef typename D::Bits B;
  Pooled<D, V> pooled[kGroups];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) < t.items) pooled[i].fetch(t, input<D>(t), static_cast<index_t>(own_group(i)) * (V / 2));
  }
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    if (own_group(i) >= t.items) continue;
    Pack<D, V> upper, under;
#pragma unroll
    for (int v = 0; v < V / 2; ++v) {
      const int place = pooled[i].s.at(v);
      const B value = t.gate && is_closed(pooled[i].gate.value(v)) ? B(0) : pooled[i].y.bits(v);
      upper.put(2 * v, place == 0 ? value : B(0));
      upper.put(2 * v + 1, place == 1 ? value : B(0));
      under.put(2 * v, place == 2 ? value : B(0));
      under.put(2 * v + 1, place == 3 ? value : B(0));
    }
    B* to = output<D>(t) + group_offset<V>(t, own_group(i));
    upper.store(to);
    under.store(to + t.g.width);
  }
}

// ---- tiles_*: KxK windows, stride 2, NCHW: a block brings rows of a plane, or planes, to shared memory -----------------

// A run of a tensor's elements: 16 bytes at a time where it can, since its ends lie anywhere. In shared memory an element
// keeps its place within 16 bytes.
template <class B>
struct Run {
  static const int kVector = 16 / static_cast<int>(sizeof(B));
  index_t start;
  int count, shift;

  __device__ Run(index_t start_, int count_) : start(start_), count(count_), shift(static_cast<int>(start_ % kVector)) {}

  // Reads whole vectors, up to one more at each end; none beyond the tensor's `total` elements.
  __device__ void bring(const B* from, index_t total, uint4* to) const {
    const index_t base = start - shift;
    const int vectors = (shift + count + kVector - 1) / kVector;
    const index_t ready = (total - base) / kVector;  // vectors that the tensor has whole
    const int whole = vectors < ready ? vectors : static_cast<int>(ready);
    const uint4* source = reinterpret_cast<const uint4*>(from + base);
#pragma unroll 1
    for (int i = threadIdx.x; i < whole; i += 4 * kThreads) {
      uint4 v[4];  // four loads on their way before the first is stored
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (i + k * kThreads < whole) v[k] = source[i + k * kThreads];
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (i + k * kThreads < whole) to[i + k * kThreads] = v[k];
      }
    }
    if (whole < vectors) {
      B* tail = reinterpret_cast<B*>(to);
#pragma unroll 1
      for (index_t e = static_cast<index_t>(whole) * kVector + threadIdx.x; base + e < total; e += kThreads) {
        tail[e] = from[base + e];
      }
    }
  }

  __device__ void take(const uint4* from, B* to) const {
    const B* elements = reinterpret_cast<const B*>(from);
    const index_t base = start - shift;
    const int vectors = (shift + count + kVector - 1) / kVector;
    for (int i = threadIdx.x; i < vectors; i += kThreads) {
      const int first = i * kVector - shift, last = first + kVector;
      if (first >= 0 && last <= count) {
        reinterpret_cast<uint4*>(to + base)[i] = from[i];
      } else {
#pragma unroll 1
        for (int e = larger(first, 0); e < smaller(last, count); ++e) to[start + e] = elements[shift + e];
      }
    }
  }

  // Vectors of shared memory that a run of so many elements may need.
  __device__ static int room(int count) { return (count + kVector - 1) / kVector + 1; }
};

// The rows of a tile: windows (pooling) or places (unpooling), of one plane or of all of some planes.
struct Tile {
  index_t plane;
  int planes, row, rows;

  __device__ Tile(const Task& t, int rows_of_plane) {
    const unsigned index = blockIdx.x;
    if (t.tile_planes) {
      plane = static_cast<index_t>(index) * t.tile_planes;
      planes = static_cast<int>(t.planes - plane < t.tile_planes ? t.planes - plane : t.tile_planes);
      row = 0, rows = rows_of_plane;
    } else {
      const unsigned tiles = static_cast<unsigned>(t.tiles);
      plane = index / tiles, planes = 1;
      row = static_cast<int>(index % tiles) * t.tile_rows;
      rows = smaller(t.tile_rows, rows_of_plane - row);
    }
  }
};

// d1: columns of windows, d2: rows of windows.
template <class D, int K>
SP_KERNEL tiles_max(const Task t) {
  typedef typename D::Bits B;
  typedef typename D::Acc A;
  SP_SHARED(uint4, shared);
  const Geometry& g = t.g;
  const Tile tile(t, g.rows);
  const index_t area = places_of(g), windows = windows_of(g);
  const int first = larger(0, tile.row * 2 - g.pad_h);
  const int last = smaller(g.height, (tile.row + tile.rows - 1) * 2 - g.pad_h + K);
  const int height = tile.planes > 1 ? g.height : last - first, top = tile.planes > 1 ? 0 : first;
  const Run<B> xs(tile.plane * area + static_cast<index_t>(top) * g.width, tile.planes * height * g.width);
  const Run<B> ys(tile.plane * windows + static_cast<index_t>(tile.row) * g.cols, tile.planes * tile.rows * g.cols);
  const Run<unsigned char> ss(ys.start, ys.count);
  uint4* y_room = shared + Run<B>::room(xs.count);
  uint4* s_room = y_room + Run<B>::room(ys.count);
  xs.bring(input<D>(t), t.planes * area, shared);
  __syncthreads();
  const B* x = reinterpret_cast<const B*>(shared) + xs.shift;
  B* y = reinterpret_cast<B*>(y_room) + ys.shift;
  unsigned char* s = reinterpret_cast<unsigned char*>(s_room) + ss.shift;
#pragma unroll 1
  for (int i = threadIdx.x; i < ys.count; i += kThreads) {
    unsigned index = i;
    const int col = split(index, t.d1);
    const int row = tile.planes > 1 ? split(index, t.d2) : tile.row + static_cast<int>(index);
    const int plane = tile.planes > 1 ? static_cast<int>(index) : 0;
    const int h = row * 2 - g.pad_h, w = col * 2 - g.pad_w;
    const B* window = x + (plane * height + h - top) * g.width + w;
    A best = D::lowest();
    int at = kNone;
    if (h >= 0 && h + K <= g.height && w >= 0 && w + K <= g.width) {
#pragma unroll
      for (int k = 0; k < K * K; ++k) step<A>(best, at, D::load(window[k / K * g.width + k % K]), t.lower, k);
    } else {
#pragma unroll
      for (int k = 0; k < K * K; ++k) {
        const int r = h + k / K, c = w + k % K;
        if (!within(r, g.height) || !within(c, g.width)) continue;
        step<A>(best, at, D::load(window[k / K * g.width + k % K]), t.lower, k);
      }
    }
    y[i] = D::store(best);
    s[i] = static_cast<unsigned char>(at);
  }
  __syncthreads();
  ys.take(y_room, output<D>(t));
  ss.take(s_room, t.places);
}

// d1: columns of windows, d2: rows of windows.
template <class D, int K>
SP_KERNEL tiles_select(const Task t) {
  typedef typename D::Bits B;
  SP_SHARED(uint4, shared);
  const Geometry& g = t.g;
  const Tile tile(t, g.rows);
  const index_t area = places_of(g), windows = windows_of(g);
  const int first = larger(0, tile.row * 2 - g.pad_h);
  const int last = smaller(g.height, (tile.row + tile.rows - 1) * 2 - g.pad_h + K);
  const int height = tile.planes > 1 ? g.height : last - first, top = tile.planes > 1 ? 0 : first;
  const Run<B> xs(tile.plane * area + static_cast<index_t>(top) * g.width, tile.planes * height * g.width);
  const Run<B> ys(tile.plane * windows + static_cast<index_t>(tile.row) * g.cols, tile.planes * tile.rows * g.cols);
  // To count the windows that name a place, one row of windows more on each side.
  const int above = t.normalized && tile.planes == 1 ? smaller(1, tile.row) : 0;
  const int below = t.normalized && tile.planes == 1 ? smaller(1, g.rows - tile.row - tile.rows) : 0;
  const Run<unsigned char> ss(ys.start - above * g.cols, ys.count + (above + below) * g.cols);
  uint4* y_room = shared + Run<B>::room(xs.count);
  uint4* s_room = y_room + Run<B>::room(ys.count);
  xs.bring(input<D>(t), t.planes * area, shared);
  if (t.switches) ss.bring(t.switches, t.planes * windows, s_room);
  __syncthreads();
  const B* x = reinterpret_cast<const B*>(shared) + xs.shift;
  B* y = reinterpret_cast<B*>(y_room) + ys.shift;
  const unsigned char* s = reinterpret_cast<const unsigned char*>(s_room) + ss.shift + above * g.cols;
#pragma unroll 1
  for (int i = threadIdx.x; i < ys.count; i += kThreads) {
    unsigned index = i;
    const int col = split(index, t.d1);
    const int row = tile.planes > 1 ? split(index, t.d2) : tile.row + static_cast<int>(index);
    const int plane = tile.planes > 1 ? static_cast<int>(index) : 0;
    const int place = t.switches ? s[i] : t.fixed;
    const int r = place / K, c = place % K;
    const int h = row * 2 - g.pad_h + r, w = col * 2 - g.pad_w + c;
    B value = 0;
    if (place < K * K && within(h, g.height) && within(w, g.width)) {
      value = x[(plane * height + h - top) * g.width + w];
      if (K == 3 && t.normalized) {
        int count = 1;
#pragma unroll
        for (int k = 0; k < 9; ++k) {
          const int dr = k / 3 - 1, dc = k % 3 - 1;
          const int other_r = r - 2 * dr, other_c = c - 2 * dc;
          if (k == 4 || !within(other_r, 3) || !within(other_c, 3)) continue;
          if (!within(row + dr, g.rows) || !within(col + dc, g.cols)) continue;
          count += s[i + dr * g.cols + dc] == other_r * 3 + other_c;
        }
        value = D::store(D::load(value) * inverse<D>(count));
      }
    }
    if (t.gate && is_closed(D::load(static_cast<const B*>(t.gate)[ys.start + i]))) value = 0;
    y[i] = value;
  }
  __syncthreads();
  ys.take(y_room, output<D>(t));
}

// What tiles_unpool works on: runs in shared memory, each from its first element on.
template <class B>
struct UnpoolTile {
  B *x, *y;
  unsigned char* s;
  int planes, row, rows;           // of places: planes, first row, rows of each
  int windows_top, windows_rows;   // first row of windows there, rows of each plane
  int first_block, lines, blocks;  // 2x4 places: the first row of them, how many rows, how many to a row
};

// A thread takes 2x4 places. The windows that meet them: those that start there and, if 3x3, those one before.
template <class D, int K, bool kNormalized>
__device__ inline void unpool_tile(const Task& t, const UnpoolTile<typename D::Bits>& tile) {
  typedef typename D::Acc A;
  const Geometry& g = t.g;
  const int kBefore = K - 2, kDown = 1 + kBefore, kAcross = 2 + kBefore;
#pragma unroll 1
  for (int i = threadIdx.x; i < tile.planes * tile.lines * tile.blocks; i += kThreads) {
    unsigned index = i;
    const int col = split(index, t.d1) * 2 - kBefore;
    const int line = tile.planes > 1 ? split(index, t.d2) : static_cast<int>(index);
    const int plane = tile.planes > 1 ? static_cast<int>(index) : 0;
    const int row = tile.first_block + line - kBefore;
    const int first = (plane * tile.windows_rows + row - tile.windows_top) * g.cols + col;
    A value[kDown * kAcross];
    int place[kDown * kAcross];
#pragma unroll
    for (int k = 0; k < kDown * kAcross; ++k) {
      const int r = row + k / kAcross, c = col + k % kAcross;
      const bool there = within(r, g.rows) && within(c, g.cols);
      const int window = first + k / kAcross * g.cols + k % kAcross;
      place[k] = there ? tile.s[window] : kNone;
      value[k] = there ? D::load(tile.y[window]) : A(0);
    }
    const int h = (row + kBefore) * 2 - g.pad_h - tile.row, w = (col + kBefore) * 2 - g.pad_w;
    typename D::Bits* to = tile.x + (plane * tile.rows + h) * g.width + w;
#pragma unroll
    for (int p = 0; p < 8; ++p) {
      const int r = p / 4, c = p % 4;
      if (!within(h + r, tile.rows) || !within(w + c, g.width)) continue;
      A sum = 0;
      int count = 0;
#pragma unroll
      for (int k = 0; k < kDown * kAcross; ++k) {  // row-major over the windows
        const int window_r = r + (kBefore - k / kAcross) * 2, window_c = c + (kBefore - k % kAcross) * 2;
        if (window_r < 0 || window_r >= K || window_c < 0 || window_c >= K) continue;
        if (place[k] == window_r * K + window_c) {
          sum += value[k];
          if (kNormalized) ++count;
        }
      }
      to[r * g.width + c] = finish<D>(sum, count, kNormalized);
    }
  }
}

// d1: 2x4 places to a row, d2: to a column of places; both counted from where the first window starts.
template <class D, int K>
SP_KERNEL tiles_unpool(const Task t) {
  typedef typename D::Bits B;
  SP_SHARED(uint4, shared);
  const Geometry& g = t.g;
  const Tile tile(t, g.height);
  const index_t area = places_of(g), windows = windows_of(g);
  const int first_block = (tile.row + g.pad_h) / 2, last_block = (tile.row + tile.rows - 1 + g.pad_h) / 2 + 1;
  const int first = smaller(g.rows, larger(0, first_block - (K - 2))), last = larger(first, smaller(g.rows, last_block));
  const int rows = tile.planes > 1 ? g.rows : last - first, top = tile.planes > 1 ? 0 : first;
  const Run<B> xs(tile.plane * area + static_cast<index_t>(tile.row) * g.width, tile.planes * tile.rows * g.width);
  const Run<B> ys(tile.plane * windows + static_cast<index_t>(top) * g.cols, tile.planes * rows * g.cols);
  const Run<unsigned char> ss(ys.start, ys.count);
  uint4* y_room = shared + Run<B>::room(xs.count);
  uint4* s_room = y_room + Run<B>::room(ys.count);
  uint4* gate_room = s_room + Run<unsigned char>::room(ss.count);
  UnpoolTile<B> work;
  work.x = reinterpret_cast<B*>(shared) + xs.shift;
  work.y = reinterpret_cast<B*>(y_room) + ys.shift;
  work.s = reinterpret_cast<unsigned char*>(s_room) + ss.shift;
  work.planes = tile.planes, work.row = tile.row, work.rows = tile.rows;
  work.windows_top = top, work.windows_rows = rows;
  work.first_block = first_block, work.lines = last_block - first_block, work.blocks = static_cast<int>(t.d1.divisor);
  ys.bring(input<D>(t), t.planes * windows, y_room);
  if (t.gate) ys.bring(static_cast<const B*>(t.gate), t.planes * windows, gate_room);
  if (t.switches) {
    ss.bring(t.switches, t.planes * windows, s_room);
  } else {
    for (int i = threadIdx.x; i < ss.count; i += kThreads) work.s[i] = static_cast<unsigned char>(t.fixed);
  }
  __syncthreads();
  if (t.gate) {
    const B* gate = reinterpret_cast<const B*>(gate_room) + ys.shift;
    for (int i = threadIdx.x; i < ys.count; i += kThreads) {
      if (is_closed(D::load(gate[i]))) work.y[i] = 0;
    }
    __syncthreads();
  }
  if (K == 3 && t.normalized) {
    unpool_tile<D, K, true>(t, work);
  } else {
    unpool_tile<D, K, false>(t, work);
  }
  __syncthreads();
  xs.take(shared, output<D>(t));
}

}  // namespace device
}  // namespace switch_pool
