// The CPU kernels' vectors and number types. Part of kernels.h, which says what SP_BYTES is: included as often.

namespace switch_pool {
namespace SP_ISA {

// ---- Vectors: T stands for a lane, kLanes for their number -------------------------------------------------------------

template <int kSize>
struct IntegerOf;
template <>
struct IntegerOf<1> {
  using type = int8_t;
};
template <>
struct IntegerOf<2> {
  using type = int16_t;
};
template <>
struct IntegerOf<4> {
  using type = int32_t;
};
template <>
struct IntegerOf<8> {
  using type = int64_t;
};
// Positions are compared at the width of the values: one mask serves both.
template <class Key>
using PlaceOf = typename IntegerOf<sizeof(Key)>::type;

template <class T, int kLanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kLanes * sizeof(T))));
};
template <class T, int kLanes>
using Vector = typename VectorOf<T, kLanes>::type;

template <class V>
inline V load_vector(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

template <int kFirst, class T, int kLanes, int... kLane>
inline Vector<T, kLanes> every_other(Vector<T, kLanes> a, Vector<T, kLanes> b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * kLane + kFirst)...);
#else
  return __builtin_shuffle(a, b, Vector<PlaceOf<T>, kLanes>{PlaceOf<T>(2 * kLane + kFirst)...});
#endif
}

// The elements at from[0], from[2], … and those at from[1], from[3], …
template <class T, int kLanes>
inline void load_split(const void* from, Vector<T, kLanes>& even, Vector<T, kLanes>& odd) {
  using V = Vector<T, kLanes>;
  const V a = load_vector<V>(from), b = load_vector<V>(static_cast<const char*>(from) + sizeof(V));
  even = every_other<0, T, kLanes>(a, b, std::make_integer_sequence<int, kLanes>());
  odd = every_other<1, T, kLanes>(a, b, std::make_integer_sequence<int, kLanes>());
}

// The reverse: even[0], odd[0], even[1], … in a and on in b.
template <class T, int kLanes, int... kLane>
inline void merge(Vector<T, kLanes> even, Vector<T, kLanes> odd, Vector<T, kLanes>& a, Vector<T, kLanes>& b,
                  std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  a = __builtin_shufflevector(even, odd, (kLane / 2 + kLane % 2 * kLanes)...);
  b = __builtin_shufflevector(even, odd, ((kLanes + kLane) / 2 + kLane % 2 * kLanes)...);
#else
  using Index = Vector<PlaceOf<T>, kLanes>;
  a = __builtin_shuffle(even, odd, Index{PlaceOf<T>(kLane / 2 + kLane % 2 * kLanes)...});
  b = __builtin_shuffle(even, odd, Index{PlaceOf<T>((kLanes + kLane) / 2 + kLane % 2 * kLanes)...});
#endif
}

template <class T, int kLanes>
inline void merge(Vector<T, kLanes> even, Vector<T, kLanes> odd, Vector<T, kLanes>& a, Vector<T, kLanes>& b) {
  merge<T, kLanes>(even, odd, a, b, std::make_integer_sequence<int, kLanes>());
}

// Integers are widened and narrowed by a factor of two at a time: what compilers have instructions for.
template <class Place, int kLanes, class From>
inline Vector<Place, kLanes> convert_places(Vector<From, kLanes> s) {
  if constexpr (sizeof(From) == sizeof(Place)) {
    return (Vector<Place, kLanes>)s;
  } else {
    constexpr int kNext = sizeof(From) < sizeof(Place) ? sizeof(From) * 2 : sizeof(From) / 2;
    using Next = std::make_unsigned_t<typename IntegerOf<kNext>::type>;
    return convert_places<Place, kLanes, Next>(__builtin_convertvector(s, Vector<Next, kLanes>));
  }
}

// Reading several rows at a time hides from the processor what comes next: a page ahead, it is told.
inline void prefetch(const void* from) {
  const char* ahead = static_cast<const char*>(from) + 4096;
  __builtin_prefetch(ahead);
  __builtin_prefetch(ahead + 64);
}

// The same for vector `which` of some that lie side by side, once for each line of memory.
template <int kLanes, class T>
inline void prefetch_line(const T* from, int which) {
  constexpr int kLine = 64;
  if (which * kLanes * sizeof(T) % kLine == 0) {
    __builtin_prefetch(reinterpret_cast<const char*>(from + which * kLanes) + 4096);
  }
}

template <class Place, int kLanes>
inline Vector<Place, kLanes> load_switches(const uint8_t* s) {
  return convert_places<Place, kLanes, uint8_t>(load_vector<Vector<uint8_t, kLanes>>(s));
}

template <class T>
constexpr int kWidest = SP_BYTES / sizeof(T);

template <int kLanes>
struct Lanes {
  static constexpr int value = kLanes;
};

// Calls run(Lanes, j) so that j to j + lanes cover 0 to n, which is at least 4, or none; the last vector overlaps the one
// before. Too few for the widest vectors: narrower ones.
template <int kLanes, class Run>
inline void for_vectors(int64_t n, const Run& run) {
  if constexpr (kLanes >= 4) {
    if (n < kLanes) return for_vectors<kLanes / 2>(n, run);
    for (int64_t j = 0; j + kLanes <= n; j += kLanes) run(Lanes<kLanes>(), j);
    if (n % kLanes) run(Lanes<kLanes>(), n - kLanes);
  }
}

template <int kVectors>
struct Many {
  static constexpr int value = kVectors;
};

template <int kLanes, class Run>
inline void for_few_channels(int64_t n, const Run& run) {
  if constexpr (kLanes == 1) {
    for (int64_t j = 0; j < n; ++j) run(Lanes<1>(), Many<1>(), j);
  } else {
    if (n < kLanes) return for_few_channels<(kLanes > 4 ? 4 : 1)>(n, run);
    for (int64_t j = 0; j + kLanes <= n; j += kLanes) run(Lanes<kLanes>(), Many<1>(), j);
    if (n % kLanes) run(Lanes<kLanes>(), Many<1>(), n - kLanes);
  }
}

// Calls run(Lanes, Many, j) so that j to j + lanes * many cover 0 to n, in any order, some twice: kMost of the widest vectors
// at a time, then fewer and narrower ones.
template <int kLanes, int kMost = 4, class Run>
inline void for_channels(int64_t n, const Run& run) {
  int64_t j = 0;
  for (; kMost > 4 && j + kMost * kLanes <= n; j += kMost * kLanes) run(Lanes<kLanes>(), Many<kMost>(), j);
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) run(Lanes<kLanes>(), Many<4>(), j);
  if (j + 2 * kLanes <= n) run(Lanes<kLanes>(), Many<2>(), j), j += 2 * kLanes;
  if (j == n) return;
  if (j > 0 && n - j < kLanes) return run(Lanes<kLanes>(), Many<1>(), n - kLanes);
  for_few_channels<kLanes>(n - j, [&](auto lanes, auto many, int64_t i) SP_LAMBDA { run(lanes, many, j + i); });
}

// ---- Turning a matrix --------------------------------------------------------------------------------------------------

template <class T>
constexpr int kTurned = SP_BYTES / sizeof(T) < 16 ? SP_BYTES / sizeof(T) : 16;

// What is read or written after a matrix, so many elements further on: as many short streams as a matrix has rows are more than
// the processor follows, so it is told in time.
struct Ahead {
  int64_t read = 0, write = 0;
};

// to[c * to_pitch + r] = from[r * from_pitch + c] for a square: rows i and i + half, interleaved log2 times.
template <class T, int kSide>
inline void turn_square(const T* from, int64_t from_pitch, T* to, int64_t to_pitch, Ahead ahead) {
  using V = Vector<T, kSide>;
  V rows[kSide], next[kSide];
  if (ahead.read) {
    for (int i = 0; i < kSide; ++i) __builtin_prefetch(from + i * from_pitch + ahead.read);
  }
  if (ahead.write) {
    for (int i = 0; i < kSide; ++i) __builtin_prefetch(to + i * to_pitch + ahead.write, 1);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) rows[i] = load_vector<V>(from + i * from_pitch);
#pragma GCC unroll 4
  for (int done = 1; done < kSide; done *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kSide / 2; ++i) merge<T, kSide>(rows[i], rows[i + kSide / 2], next[2 * i], next[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) std::memcpy(to + i * to_pitch, &rows[i], sizeof(V));
}

// The same for a matrix of any size: squares, the last ones overlapping those before.
template <class T>
inline void turn(const T* from, int64_t from_pitch, int64_t rows, int64_t cols, T* to, int64_t to_pitch, Ahead ahead) {
  constexpr int kSide = kTurned<T>;
  if (rows < kSide || cols < kSide) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) to[c * to_pitch + r] = from[r * from_pitch + c];
    }
    return;
  }
  for (int64_t r = 0; r < rows; r += kSide) {
    r = std::min<int64_t>(r, rows - kSide);
    for (int64_t c = 0; c < cols; c += kSide) {
      c = std::min<int64_t>(c, cols - kSide);
      turn_square<T, kSide>(from + r * from_pitch + c, from_pitch, to + c * to_pitch + r, to_pitch, ahead);
    }
  }
}

// ---- Types: Bits is what memory holds, Acc what sums are made in, Key what maxima compare ------------------------------

// Functions of X or K take one element or a vector of them.
template <class F>
struct Native {
  using Bits = F;
  using Acc = F;
  using Key = F;
  static constexpr Key kLowest = -FLT_MAX;
  template <int kLanes>
  static Vector<Acc, kLanes> widen(Vector<Key, kLanes> x) {
    return x;
  }
  template <int kLanes>
  static Vector<Key, kLanes> narrow(Vector<Acc, kLanes> x) {
    return x;
  }
  static Acc load(Bits x) { return x; }
  static Bits store(Acc x) { return x; }
  template <bool kRelu, class X>
  static X key(X x) {
    return kRelu ? (x < 0 ? X{} : x) : x;
  }
  template <class K>
  static K value(K key) {
    return key;
  }
  template <class X>
  static auto closed(X gate) {
    return gate <= 0;
  }
};

using Float = Native<float>;
using Double = Native<double>;

// A 16-bit float orders like the integer of its magnitude and sign, so that maxima need no conversion. NaN becomes the
// smallest integer, -0 and 0 are one.
template <int kInfinity>
struct Narrow {
  using Bits = uint16_t;
  using Acc = float;
  using Key = int16_t;
  static constexpr Key kLowest = -(kInfinity - 1), kNan = -0x8000;
  template <bool kRelu, class X>
  static X key(X x) {
    const X magnitude = X(x & Key(0x7fff));
    const X ordered = x < 0 ? (kRelu ? X{} : X(-magnitude)) : magnitude;
    return magnitude > Key(kInfinity) ? X(X{} + kNan) : ordered;
  }
  template <class K>
  static K value(K key) {
    return key < 0 ? K(-key | kNan) : key;
  }
  template <class X>
  static auto closed(X gate) {
    const X ordered = key<false>(gate);
    return (ordered <= 0) & (ordered != kNan);
  }
};

struct Half : Narrow<0x7c00> {
  static float load(Bits x) { return c10::detail::fp16_ieee_to_fp32_value(x); }
  static Bits store(float x) { return c10::detail::fp16_ieee_from_fp32_value(x); }
  // As the scalar does it: a normal number by moving its exponent, a denormal by subtracting one.
  template <int kLanes>
  static Vector<float, kLanes> widen(Vector<Key, kLanes> x) {
    using U = Vector<uint32_t, kLanes>;
    using F = Vector<float, kLanes>;
    const U bits = __builtin_convertvector((Vector<uint16_t, kLanes>)x, U) << 16, twice = bits + bits;
    const F normal = (F)((twice >> 4) + (0xe0u << 23)) * 0x1p-112f;
    const F denormal = (F)((twice >> 17) | 0x3f000000u) - 0.5f;
    return (F)((bits & 0x80000000u) | (twice < (1u << 27) ? (U)denormal : (U)normal));
  }
  template <int kLanes>
  static Vector<Key, kLanes> narrow(Vector<float, kLanes> x) {
    using U = Vector<uint32_t, kLanes>;
    using F = Vector<float, kLanes>;
    const U bits = (U)x, twice = bits + bits;
    const U exponent = (twice & 0xff000000u) < 0x71000000u ? U{} + 0x71000000u : (twice & 0xff000000u);
    // Adding a power of two that stands where the last bit kept shall be makes the processor round.
    const F scaled = (F)(bits & 0x7fffffffu) * 0x1p+112f * 0x1p-110f;
    const U rounded = (U)((F)((exponent >> 1) + 0x07800000u) + scaled);
    const U magnitude = ((rounded >> 13) & 0x7c00u) + (rounded & 0xfffu);
    const U result = ((bits & 0x80000000u) >> 16) | (twice > 0xff000000u ? U{} + 0x7e00u : magnitude);
    return (Vector<Key, kLanes>)__builtin_convertvector(result, Vector<uint16_t, kLanes>);
  }
};

struct BFloat16 : Narrow<0x7f80> {
  static float load(Bits x) { return c10::detail::f32_from_bits(x); }
  static Bits store(float x) { return c10::detail::round_to_nearest_even(x); }
  template <int kLanes>
  static Vector<float, kLanes> widen(Vector<Key, kLanes> x) {
    using U = Vector<uint32_t, kLanes>;
    return (Vector<float, kLanes>)(__builtin_convertvector((Vector<uint16_t, kLanes>)x, U) << 16);
  }
  template <int kLanes>
  static Vector<Key, kLanes> narrow(Vector<float, kLanes> x) {
    using U = Vector<uint32_t, kLanes>;
    const U bits = (U)x, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const U result = (bits & 0x7fffffffu) > 0x7f800000u ? U{} + 0x7fc0u : rounded;
    return (Vector<Key, kLanes>)__builtin_convertvector(result, Vector<uint16_t, kLanes>);
  }
};

template <class D>
inline bool is_closed(typename D::Bits gate) {
  return D::closed(static_cast<typename D::Key>(gate));
}

}  // namespace SP_ISA
}  // namespace switch_pool
