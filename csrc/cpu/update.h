// The update of flat memory. cpu/update.cpp includes this file once for each instruction set, inside a region that makes the
// compiler target it; UPDATE_ISA is the namespace, UPDATE_BYTES the width of its vectors.

namespace update {
namespace UPDATE_ISA {

typedef float Floats __attribute__((vector_size(UPDATE_BYTES)));
typedef double Doubles __attribute__((vector_size(UPDATE_BYTES)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = Floats;
};
template <>
struct VectorOf<double> {
  using type = Doubles;
};

// ---- What update_rules.h computes with; the compiler is told to contract nothing ---------------------------------------

template <class V>
inline V mul(V a, V b) {
  return a * b;
}
template <class V>
inline V add(V a, V b) {
  return a + b;
}
template <class V>
inline V sub(V a, V b) {
  return a - b;
}
template <class V>
inline V div(V a, V b) {
  return a / b;
}
template <class V>
inline V sign(V x) {  // of NaN: 0, as torch.sign
  const V zero{}, one = zero + 1;
  return x > zero ? one : x < zero ? -one : zero;
}

#if UPDATE_BYTES == 64
inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline Doubles fma(Doubles a, Doubles b, Doubles c) { return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
#elif UPDATE_BYTES == 32
inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline Doubles fma(Doubles a, Doubles b, Doubles c) { return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
#else
template <class V>
inline V fma(V a, V b, V c) {
#if defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)
  V result;
  for (unsigned i = 0; i < sizeof(V) / sizeof(a[0]); ++i) result[i] = std::fma(a[i], b[i], c[i]);
  return result;
#else
  return a * b + c;
#endif
}
#endif

#define UPDATE_FUNCTION inline
#include "../update_rules.h"
#undef UPDATE_FUNCTION

// ---- The walk ----------------------------------------------------------------------------------------------------------

template <class V, class T>
inline Numbers<V> numbers(const Step& s) {
  const V z{};
  return {z + T(s.scale), z + T(s.share), z + T(s.decay), z + T(s.rate), z + T(s.keep1), z + T(1 - s.keep1),
          z + T(s.keep2), z + T(1 - s.keep2), z + T(s.delta)};
}

// A parameter's memory.
template <class T>
struct Memory {
  T *p, *g, *h1, *h2;
};

template <bool kSecond, class T, class V, class Bytes>
inline Values<V> load(const Memory<T>& m, int64_t i, Bytes bytes) {
  constexpr int64_t kAhead = 2048 / sizeof(T);  // half a page; prefetching never faults, so it may go past the end
  __builtin_prefetch(m.p + i + kAhead, 1);
  __builtin_prefetch(m.g + i + kAhead, 1);
  __builtin_prefetch(m.h1 + i + kAhead, 1);
  if (kSecond) __builtin_prefetch(m.h2 + i + kAhead, 1);
  Values<V> v{};
  std::memcpy(&v.p, m.p + i, bytes);
  std::memcpy(&v.g, m.g + i, bytes);
  std::memcpy(&v.h1, m.h1 + i, bytes);
  if (kSecond) std::memcpy(&v.h2, m.h2 + i, bytes);
  return v;
}

template <bool kFirst, bool kSecond, class T, class V, class Bytes>
inline void store_history(const Memory<T>& m, int64_t i, const Values<V>& v, Bytes bytes) {
  if (kFirst) std::memcpy(m.h1 + i, &v.h1, bytes);
  if (kSecond) std::memcpy(m.h2 + i, &v.h2, bytes);
}

template <class T, class V, class Bytes>
inline void store(const Memory<T>& m, const Step& step, int64_t i, Values<V> v, Bytes bytes) {
  v.p = sub(v.p, v.g);
  if (step.subtract) std::memcpy(m.p + i, &v.p, bytes);
  if (step.keep) std::memcpy(m.g + i, &v.g, bytes);
}

// Calls `some` with the place and the bytes of each vector of [begin, end); the last may not be full. The bytes of full ones
// are a type: with a number known at run time each copy of a vector would be a call of the C library, 5 to 12 times as slow.
template <class T, class V, class Some>
inline void each_vector(int64_t begin, int64_t end, Some some) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) some(i, std::integral_constant<size_t, sizeof(V)>{});
  if (i < end) some(i, (end - i) * sizeof(T));
}

// Values [begin, end) of a parameter. Rules with a root go over blocks twice, while they are in the cache.
template <Rule kRule, Decay kDecay, class T>
void walk(const Step& step, const Parameter& x, int64_t begin, int64_t end, Roots& roots) {
  using V = typename VectorOf<T>::type;
  constexpr bool kSecond = kHasSecond<kRule>, kDelta = kRule == kAdaDelta;
  const Numbers<V> n = numbers<V, T>(step);
  const Memory<T> m{static_cast<T*>(x.p), static_cast<T*>(x.g), static_cast<T*>(x.h1), static_cast<T*>(x.h2)};
  if constexpr (!kHasRoot<kRule>) {
    each_vector<T, V>(begin, end, [&](int64_t i, auto bytes) UPDATE_LAMBDA {
      Values<V> v = load<kSecond, T, V>(m, i, bytes);
      v.g = regularized<kDecay>(n, v);
      apply_rule<kRule>(n, v, V{});
      store(m, step, i, v, bytes);
      store_history<true, false>(m, i, v, bytes);
    });
  } else {
    T* const root = static_cast<T*>(roots.memory());
    for (int64_t first = begin; first < end; first += Roots::kMost) {
      const int64_t last = std::min(end, first + Roots::kMost);
      each_vector<T, V>(first, last, [&](int64_t i, auto bytes) UPDATE_LAMBDA {
        Values<V> v = load<kSecond, T, V>(m, i, bytes);
        v.g = regularized<kDecay>(n, v);
        const V r = radicand<kRule>(n, v);
        std::memcpy(root + (i - first), &r, bytes);
        store_history<true, kSecond && !kDelta>(m, i, v, bytes);
      });
      roots.take(last - first);
      each_vector<T, V>(first, last, [&](int64_t i, auto bytes) UPDATE_LAMBDA {
        Values<V> v = load<kSecond, T, V>(m, i, bytes);
        V r{};
        std::memcpy(&r, root + (i - first), bytes);
        v.g = regularized<kDecay>(n, v);
        apply_rule<kRule>(n, v, r);
        store(m, step, i, v, bytes);
        store_history<false, kDelta>(m, i, v, bytes);
      });
    }
  }
}

using Walk = void (*)(const Step&, const Parameter&, int64_t begin, int64_t end, Roots& roots);

template <Rule kRule, class T>
Walk walk_with(Decay decay) {
  return decay == kNoDecay ? walk<kRule, kNoDecay, T> : decay == kL2 ? walk<kRule, kL2, T> : walk<kRule, kL1, T>;
}

template <class T>
Walk walk_of(const Step& step) {
  switch (step.rule) {
    case kSgd:
      return walk_with<kSgd, T>(step.decay_kind);
    case kNesterov:
      return walk_with<kNesterov, T>(step.decay_kind);
    case kAdaGrad:
      return walk_with<kAdaGrad, T>(step.decay_kind);
    case kRmsProp:
      return walk_with<kRmsProp, T>(step.decay_kind);
    case kAdaDelta:
      return walk_with<kAdaDelta, T>(step.decay_kind);
    default:
      return walk_with<kAdam, T>(step.decay_kind);
  }
}

inline Walk walk_for(const Step& step, Type type) { return type == kDouble ? walk_of<double>(step) : walk_of<float>(step); }

}  // namespace UPDATE_ISA
}  // namespace update
