// The kernel that updates parameters, as nvcc and, over the shim of the tests, any C++ compiler see it. No PyTorch.
#pragma once

#include "../update.h"

namespace update {
namespace device {

constexpr int kThreads = 256;
constexpr int kVectors = 4;       // vectors of 16 bytes that a thread loads before it computes
constexpr int kMostTensors = 72;  // of a launch: its arguments may take 4 KB

// What a kernel is given: parameters, and where their units begin. A unit is what a block does at once.
struct Table {
  Step step;
  Parameter parameters[kMostTensors];
  unsigned first[kMostTensors + 1];
  int count;
};
static_assert(sizeof(Table) <= 4096, "kernel arguments");

template <class T>
__host__ __device__ constexpr int64_t unit_size() {
  return int64_t(kThreads) * kVectors * (16 / sizeof(T));
}

// nvcc contracts a product and a sum to one rounding unless they are written like this.
__device__ inline float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline float sub(float a, float b) { return __fadd_rn(a, -b); }
__device__ inline double sub(double a, double b) { return __dadd_rn(a, -b); }
__device__ inline float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ inline double div(double a, double b) { return __ddiv_rn(a, b); }
__device__ inline float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
__device__ inline float root(float x) { return __fsqrt_rn(x); }
__device__ inline double root(double x) { return __dsqrt_rn(x); }
template <class T>
__device__ inline T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
}

#define UPDATE_FUNCTION __device__ inline
#include "../update_rules.h"
#undef UPDATE_FUNCTION

template <class T>
struct alignas(16) Pack {
  T at[16 / sizeof(T)];
};

template <class T>
__device__ inline Numbers<T> numbers(const Step& s) {
  const T rate = s.rate_at ? *static_cast<const T*>(s.rate_at) : static_cast<T>(s.rate);
  const T scale = s.scale_at ? *static_cast<const T*>(s.scale_at) : static_cast<T>(s.scale);
  return {scale, T(s.share), T(s.decay), rate, T(s.keep1), T(1 - s.keep1), T(s.keep2), T(1 - s.keep2), T(s.delta)};
}

template <Rule kRule, Decay kDecay, class T>
__device__ inline void update_value(const Numbers<T>& n, T& p, T& g, T& h1, T& h2) {
  Values<T> v{p, g, h1, h2};
  v.g = regularized<kDecay>(n, v);
  const T r = radicand<kRule>(n, v);
  apply_rule<kRule>(n, v, kHasRoot<kRule> ? root(r) : r);
  p = sub(v.p, v.g), g = v.g, h1 = v.h1, h2 = v.h2;
}

__device__ inline bool is_aligned(const Parameter& x) {
  const auto bits = reinterpret_cast<uintptr_t>(x.p) | reinterpret_cast<uintptr_t>(x.g) |
                    reinterpret_cast<uintptr_t>(x.h1) | reinterpret_cast<uintptr_t>(x.h2);
  return bits % 16 == 0;
}

// The parameter that a unit belongs to.
__device__ inline int find(const Table& table, unsigned unit) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first[middle] <= unit ? low : high) = middle;
  }
  return low;
}

template <Rule kRule, Decay kDecay, class T>
__global__ void __launch_bounds__(kThreads) update_kernel(const Table table, unsigned blocks) {
  constexpr bool kSecond = kHasSecond<kRule>;
  constexpr int kLanes = 16 / sizeof(T);
  const Step& step = table.step;
  const Numbers<T> n = numbers<T>(step);
  for (unsigned unit = blockIdx.x; unit < table.first[table.count]; unit += blocks) {
    const int which = find(table, unit);
    const Parameter& x = table.parameters[which];
    T *const p = static_cast<T*>(x.p), *const g = static_cast<T*>(x.g);
    T *const h1 = static_cast<T*>(x.h1), *const h2 = static_cast<T*>(x.h2);
    const int64_t begin = int64_t(unit - table.first[which]) * unit_size<T>();
    if (begin + unit_size<T>() <= x.n && is_aligned(x)) {
      Pack<T> vp[kVectors], vg[kVectors], v1[kVectors], v2[kVectors] = {};
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        const int64_t at = begin + (int64_t(i) * kThreads + threadIdx.x) * kLanes;
        vp[i] = *reinterpret_cast<const Pack<T>*>(p + at);
        vg[i] = *reinterpret_cast<const Pack<T>*>(g + at);
        v1[i] = *reinterpret_cast<const Pack<T>*>(h1 + at);
        if (kSecond) v2[i] = *reinterpret_cast<const Pack<T>*>(h2 + at);
      }
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        const int64_t at = begin + (int64_t(i) * kThreads + threadIdx.x) * kLanes;
#pragma unroll
        for (int k = 0; k < kLanes; ++k) {
          update_value<kRule, kDecay>(n, vp[i].at[k], vg[i].at[k], v1[i].at[k], v2[i].at[k]);
        }
        if (step.subtract) *reinterpret_cast<Pack<T>*>(p + at) = vp[i];
        if (step.keep) *reinterpret_cast<Pack<T>*>(g + at) = vg[i];
        *reinterpret_cast<Pack<T>*>(h1 + at) = v1[i];
        if (kSecond) *reinterpret_cast<Pack<T>*>(h2 + at) = v2[i];
      }
    } else {
      const int64_t end = begin + unit_size<T>() < x.n ? begin + unit_size<T>() : x.n;
      for (int64_t at = begin + threadIdx.x; at < end; at += kThreads) {
        T vp = p[at], vg = g[at], v1 = h1[at], v2 = kSecond ? h2[at] : T(0);
        update_value<kRule, kDecay>(n, vp, vg, v1, v2);
        if (step.subtract) p[at] = vp;
        if (step.keep) g[at] = vg;
        h1[at] = v1;
        if (kSecond) h2[at] = v2;
      }
    }
  }
}

}  // namespace device
}  // namespace update
