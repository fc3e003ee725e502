// Row kernels over raw pointers. cpu.cpp includes this file once for each instruction set, inside a region that makes the
// compiler target it; SP_ISA is the namespace, SP_BYTES the width of its vectors, SP_STREAM whether it writes past the
// caches. Hot loops are written so that compilers vectorise them: constant strides, selects instead of branches, no
// aliasing. Where neighbours have to change lanes, GNU vectors say so. SP_LAMBDA gives lambdas the target, which they do not
// inherit from the region.

#include "cpu_vectors.h"

namespace switch_pool {
namespace SP_ISA {

// ---- Output ------------------------------------------------------------------------------------------------------------

// Writes a range from front to back. Streaming goes through a buffer in the nearest cache and past the others: a line that
// will be overwritten whole is then never read.
template <class T>
class Sink {
 public:
  Sink(T* begin, size_t most, bool stream) : next_(begin) {
    if (stream && SP_STREAM) {
      buffer_.resize(std::max<size_t>(most + 64, 16384 / sizeof(T)));
    }
  }
  ~Sink() {
    if (!buffer_.empty()) {
      std::memcpy(next_, buffer_.data(), used_ * sizeof(T));
#if SP_STREAM
      _mm_sfence();
#endif
    }
  }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // Room for the next n elements, to be filled before the next call.
  T* reserve(size_t n) {
    if (buffer_.empty()) {
      T* room = next_;
      next_ += n;
      return room;
    }
    if (used_ + n > buffer_.size()) flush();
    T* room = buffer_.data() + used_;
    used_ += n;
    return room;
  }

 private:
  void flush() {
    constexpr size_t kLine = 64 / sizeof(T);
    const T* from = buffer_.data();
    const size_t head = std::min(used_, (0 - reinterpret_cast<uintptr_t>(next_)) % 64 / sizeof(T));
    std::memcpy(next_, from, head * sizeof(T));
    next_ += head;
    from += head;
    const size_t lines = (used_ - head) / kLine;
    for (size_t i = 0; i < lines; ++i, next_ += kLine, from += kLine) {
#if SP_STREAM && SP_BYTES == 64
      _mm512_stream_si512(reinterpret_cast<__m512i*>(next_), _mm512_loadu_si512(from));
#elif SP_STREAM && SP_BYTES == 32
      for (int k = 0; k < 2; ++k) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(next_) + k,
                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + k));
      }
#endif
    }
    used_ = (used_ - head) - lines * kLine;
    std::memmove(buffer_.data(), from, used_ * sizeof(T));
  }

  T* next_;
  size_t used_ = 0;
  std::vector<T> buffer_;
};

// ---- Where windows and planes meet -------------------------------------------------------------------------------------

struct Span {
  int begin, end;
};

// The part of a window that is inside the plane, along one axis, counted from the window's start.
inline Span inside(int start, int kernel, int size) {
  return {std::max(0, -start), std::min(kernel, size - start)};
}

// The windows that cover a place, along one axis.
inline Span covering(int place, int kernel, int stride, int pad, int count) {
  const int first = place + pad - kernel;  // the last start that is too early
  return {first < 0 ? 0 : first / stride + 1, place + pad < 0 ? 0 : std::min(count, (place + pad) / stride + 1)};
}

// The windows that lie whole inside the plane, along one axis.
inline Span whole(int size, int kernel, int stride, int pad, int count) {
  const int begin = pad > 0 ? (pad + stride - 1) / stride : 0;
  const int room = size + pad - kernel;
  const int end = room < 0 ? 0 : std::min(count, room / stride + 1);
  return {std::min(begin, count), std::max(std::min(begin, count), end)};
}

// What an average divides by, along one axis: the window clipped to the plane and its padding.
inline int divisor(int start, int kernel, int size, int pad) {
  return std::min(start + kernel, size + pad) - start;
}

// The windows that cover each row and each column of a plane, and those whole along a row: what every row asks again.
struct Cover {
  std::vector<Span> rows, cols;
  Span full;

  explicit Cover(const Geometry& g) : full(whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols)) {
    for (int h = 0; h < g.height; ++h) rows.push_back(covering(h, g.kernel_h, g.stride_h, g.pad_h, g.rows));
    for (int w = 0; w < g.width; ++w) cols.push_back(covering(w, g.kernel_w, g.stride_w, g.pad_w, g.cols));
  }
};

inline bool is_square(const Geometry& g, int kernel, int stride) {
  return g.kernel_h == kernel && g.kernel_w == kernel && g.stride_h == stride && g.stride_w == stride;
}

// Whether no place is covered twice.
inline bool is_disjoint(const Geometry& g) { return g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w; }

inline bool all_in_window(const uint8_t* __restrict s, int64_t n, int places) {
  uint8_t stray = 0;
  const uint8_t last = static_cast<uint8_t>(places - 1);
  for (int64_t i = 0; i < n; ++i) stray |= uint8_t(s[i] > last) & uint8_t(s[i] != kNone);
  return stray == 0;
}

// Whether the switches of a row of windows (`step` of them side by side: the channels) point into window and plane. `full`:
// the windows that are whole along the row.
inline bool row_is_valid(const Geometry& g, Span full, const uint8_t* s, int row, int64_t step) {
  const Span high = inside(row * g.stride_h - g.pad_h, g.kernel_h, g.height);
  const bool clipped = high.begin > 0 || high.end < g.kernel_h;
  bool valid = all_in_window(s, g.cols * step, g.kernel_h * g.kernel_w);
  for (int col = 0; col < g.cols; ++col) {
    if (!clipped && col == full.begin) col = full.end;
    if (col >= g.cols) break;
    const Span wide = inside(col * g.stride_w - g.pad_w, g.kernel_w, g.width);
    for (int64_t i = col * step; i < (col + 1) * step; ++i) {
      const int h = s[i] / g.kernel_w, w = s[i] % g.kernel_w;
      valid &= s[i] == kNone || (h >= high.begin && h < high.end && w >= wide.begin && w < wide.end);
    }
  }
  return valid;
}

// ---- Reductions over windows: maximum with its place, sum --------------------------------------------------------------

template <class D, bool kRelu>
struct Maximum {
  using Value = typename D::Key;
  using Place = PlaceOf<Value>;
  static constexpr bool kHasPlace = true;
  static constexpr Value kStart = D::kLowest;
  static void step(Value& best, Place& at, typename D::Bits x, int place) { step_any(best, at, Value(x), Place(place)); }
  static typename D::Bits finish(Value best, int) { return static_cast<typename D::Bits>(D::value(best)); }

  // V, P: Value and Place, or vectors of them.
  template <class V, class P>
  static void step_any(V& best, P& at, V x, P place) {
    const V key = D::template key<kRelu>(x);
    at = key > best ? place : at;
    best = key > best ? key : best;
  }

  // kLanes windows of kSide x kSide, stride 2, side by side; rows point to the first of them.
  template <int kSide, int kLanes>
  static void square(const typename D::Bits* const* rows, typename D::Bits* y, uint8_t* s) {
    using V = Vector<Value, kLanes>;
    using P = Vector<Place, kLanes>;
    V best = V{} + kStart;
    P at = P{} + Place(kNone);
    for (int i = 0; i < kSide; ++i) {
      V first, second, third;
      prefetch(rows[i * kSide]);
      load_split<Value, kLanes>(rows[i * kSide], first, second);
      step_any(best, at, first, P{} + Place(i * kSide));
      // From one element on, so that no load reaches past the last window.
      if (kSide == 3) load_split<Value, kLanes>(rows[i * kSide] + 1, second, third);
      step_any(best, at, second, P{} + Place(i * kSide + 1));
      if (kSide == 3) step_any(best, at, third, P{} + Place(i * kSide + 2));
    }
    const V value = D::value(best);
    const auto place = convert_places<uint8_t, kLanes, Place>(at);
    std::memcpy(y, &value, sizeof(value));
    std::memcpy(s, &place, sizeof(place));
  }
};

template <class D, bool kAverages>
struct Total {
  using Value = typename D::Acc;
  using Place = PlaceOf<Value>;
  static constexpr bool kHasPlace = false;
  static constexpr Value kStart = 0;
  static void step(Value& sum, Place&, typename D::Bits x, int) { sum += D::load(x); }
  static typename D::Bits finish(Value sum, int size) { return D::store(kAverages ? sum / Value(size) : sum); }
};

constexpr int kBlock = 256;  // elements whose running state stays in the nearest cache

// n windows side by side (NCHW: along the row; channels_last: along the channels) over the same k places: place i of
// window j is at from[i][j * kStep].
template <class Op, class Bits, int kPlaces, int kStep>
inline void reduce_unrolled(const Bits* const* from, Bits* __restrict y, uint8_t* __restrict s, int64_t n, int size) {
  const Bits* p[kPlaces];
  for (int i = 0; i < kPlaces; ++i) p[i] = from[i];
  for (int64_t j = 0; j < n; ++j) {
    typename Op::Value value = Op::kStart;
    typename Op::Place at = kNone;
#pragma GCC unroll 16
    for (int i = 0; i < kPlaces; ++i) Op::step(value, at, p[i][j * kStep], i);
    y[j] = Op::finish(value, size);
    if (Op::kHasPlace) s[j] = static_cast<uint8_t>(at);
  }
}

template <class Op, class Bits, int kStep>  // kStep 0: `step`
inline void reduce_block(const Bits* const* from, const int* place, int count, int step, Bits* __restrict y,
                         uint8_t* __restrict s, int n, int size) {
  typename Op::Value value[kBlock];
  typename Op::Place at[kBlock];
  for (int j = 0; j < n; ++j) value[j] = Op::kStart, at[j] = kNone;
  for (int i = 0; i < count; ++i) {
    const Bits* __restrict p = from[i];
    const int which = place[i];
    for (int64_t j = 0; j < n; ++j) Op::step(value[j], at[j], p[j * (kStep ? kStep : step)], which);
  }
  for (int j = 0; j < n; ++j) {
    y[j] = Op::finish(value[j], size);
    if (Op::kHasPlace) s[j] = static_cast<uint8_t>(at[j]);
  }
}

// The places of one window that are inside the plane: their addresses and their positions in the window.
template <class Bits>
struct Places {
  std::vector<const Bits*> from;
  std::vector<int> place;

  explicit Places(const Geometry& g) {
    from.reserve(static_cast<size_t>(g.kernel_h) * g.kernel_w);
    place.reserve(from.capacity());
  }
  // row_at(h) is the address of row h of the plane; `pixel` elements lie from one place to the next.
  template <class RowAt>
  void find(const Geometry& g, const RowAt& row_at, int64_t pixel, int row, int col) {
    const int h = row * g.stride_h - g.pad_h, w = col * g.stride_w - g.pad_w;
    const Span high = inside(h, g.kernel_h, g.height), wide = inside(w, g.kernel_w, g.width);
    from.clear();
    place.clear();
    for (int i = high.begin; i < high.end; ++i) {
      const Bits* line = row_at(h + i);
      for (int j = wide.begin; j < wide.end; ++j) {
        from.push_back(line + (w + j) * pixel);
        place.push_back(i * g.kernel_w + j);
      }
    }
  }
  int count() const { return static_cast<int>(from.size()); }
};

// Calls run(first column, number of windows times channels, step in x) for the windows of a row: in NCHW those that are
// whole along the row go together; channels_last goes window by window.
template <class Run>
inline void for_each_run(const Geometry& g, Span full, bool channels_last, const Run& run) {
  for (int col = 0; col < g.cols;) {
    const bool together = !channels_last && col == full.begin && full.end > full.begin;
    const int count = together ? full.end - full.begin : 1;
    run(col, channels_last ? g.channels : count, channels_last ? 1 : g.stride_w);
    col += count;
  }
}

// Runs n windows of kSide x kSide, stride 2, side by side by Op::square; false where there are too few for a vector.
template <class Op, int kSide, class Bits>
inline bool reduce_squares(const Bits* const* from, Bits* y, uint8_t* s, int64_t n) {
  return for_vectors<kWidest<Bits>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
    const Bits* rows[kSide * kSide];
    for (int i = 0; i < kSide; ++i) rows[i * kSide] = from[i * kSide] + 2 * j;
    Op::template square<kSide, decltype(lanes)::value>(rows, y + j, s + j);
  });
}

template <class Op, class Bits>
inline void reduce_run(const Geometry& g, const Places<Bits>& p, int step, Bits* y, uint8_t* s, int64_t n, int size) {
  const Bits* const* from = p.from.data();
  const bool full = p.count() == g.kernel_h * g.kernel_w;
  if constexpr (Op::kHasPlace) {
    const bool square = full && step == 2 && g.kernel_h == g.kernel_w;
    if (square && p.count() == 4 && reduce_squares<Op, 2>(from, y, s, n)) return;
    if (square && p.count() == 9 && reduce_squares<Op, 3>(from, y, s, n)) return;
  }
  if (full && step == 1 && p.count() == 4) return reduce_unrolled<Op, Bits, 4, 1>(from, y, s, n, size);
  if (full && step == 1 && p.count() == 9) return reduce_unrolled<Op, Bits, 9, 1>(from, y, s, n, size);
  if (full && step == 2 && p.count() == 4) return reduce_unrolled<Op, Bits, 4, 2>(from, y, s, n, size);
  if (full && step == 2 && p.count() == 9) return reduce_unrolled<Op, Bits, 9, 2>(from, y, s, n, size);
  std::vector<const Bits*> shifted(p.from);
  for (int64_t j = 0; j < n; j += kBlock) {
    const int m = static_cast<int>(std::min<int64_t>(kBlock, n - j));
    const auto run = step == 1 ? reduce_block<Op, Bits, 1> : step == 2 ? reduce_block<Op, Bits, 2> : reduce_block<Op, Bits, 0>;
    run(shifted.data(), p.place.data(), p.count(), step, y + j, s ? s + j : s, m, size);
    for (auto& q : shifted) q += static_cast<int64_t>(m) * step;
  }
}

template <class D>
inline void close_gates(const typename D::Bits* __restrict gate, typename D::Bits* __restrict y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = is_closed<D>(gate[j]) ? typename D::Bits(0) : y[j];
}

// Sizes of the two sides, in elements: a row of a plane, a plane, a row of windows.
struct Extents {
  int64_t pixel, pitch, plane, out;
  Extents(const Geometry& g, bool channels_last)
      : pixel(channels_last ? g.channels : 1), pitch(pixel * g.width), plane(pitch * g.height), out(pixel * g.cols) {}
};

// Units are rows of windows.
template <class D, class Op>
void reduce(const Geometry& g, bool channels_last, const void* x_, const void* gate_, void* y_, uint8_t* s, bool stream,
            int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const auto* gate = static_cast<const Bits*>(gate_);
  Sink<Bits> y_sink(static_cast<Bits*>(y_) + begin * e.out, e.out, stream);
  Sink<uint8_t> s_sink(s ? s + begin * e.out : s, e.out, stream && s);
  Places<Bits> places(g);
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const Bits* x = static_cast<const Bits*>(x_) + unit / g.rows * e.plane;
    Bits* y = y_sink.reserve(e.out);
    uint8_t* at = s ? s_sink.reserve(e.out) : s;
    const int size_h = divisor(row * g.stride_h - g.pad_h, g.kernel_h, g.height, g.pad_h);
    for_each_run(g, full, channels_last, [&](int col, int64_t n, int step) SP_LAMBDA {
      places.find(g, [&](int h) SP_LAMBDA { return x + h * e.pitch; }, e.pixel, row, col);
      const int size = size_h * divisor(col * g.stride_w - g.pad_w, g.kernel_w, g.width, g.pad_w);
      reduce_run<Op, Bits>(g, places, step, y + col * e.pixel, s ? at + col * e.pixel : s, n, size);
    });
    if (gate) close_gates<D>(gate + unit * e.out, y, e.out);
  }
}

// ---- Spreading values over planes: the sums of a row -------------------------------------------------------------------

// The switches from `index` on; where every window has the same switch there is one row of it.
struct Switches {
  const uint8_t* s;
  std::vector<uint8_t> same;
  Switches(const uint8_t* switches, int fixed, int64_t row) : s(switches), same(switches ? 0 : row, fixed) {}
  const uint8_t* at(int64_t index) const { return s ? s + index : same.data(); }
};

template <class D>
inline typename D::Acc inverse(typename D::Acc count) {
  using Acc = typename D::Acc;
  return D::load(D::store(count == 0 ? Acc(0) : Acc(1) / count));
}

// Where values come from: 1 each, memory, memory behind gates.
enum Values { kOnes, kOpen, kGated };

template <class D, Values kValues, int kLanes>
inline Vector<typename D::Acc, kLanes> load_values(const typename D::Bits* v, const typename D::Bits* gate, int64_t at) {
  using K = Vector<typename D::Key, kLanes>;
  using A = Vector<typename D::Acc, kLanes>;
  if constexpr (kValues == kOnes) {
    return A{} + 1;
  } else {
    K value = load_vector<K>(v + at);
    if constexpr (kValues == kGated) value = D::closed(load_vector<K>(gate + at)) ? K{} : value;
    return D::template widen<kLanes>(value);
  }
}

// What becomes of the sum and the number of the values that meet at a place: the sum; the sum over the number, bit for bit
// what SafeInv and Eltwise PROD make of it; x over the number.
enum Finish { kPlain, kSumOverCount, kInputOverCount };

template <class D, int kLanes>
inline Vector<typename D::Acc, kLanes> rounded(Vector<typename D::Acc, kLanes> value) {
  return D::template widen<kLanes>(D::template narrow<kLanes>(value));
}

template <class D, Finish kFinish, int kLanes>
inline void finish(Vector<typename D::Acc, kLanes> sum, Vector<typename D::Acc, kLanes> count, const typename D::Bits* x,
                   typename D::Bits* out) {
  using A = Vector<typename D::Acc, kLanes>;
  using K = Vector<typename D::Key, kLanes>;
  if constexpr (kFinish != kPlain) {
    const A inverse = rounded<D, kLanes>(count == 0 ? A{} : 1 / count);
    const A value = kFinish == kInputOverCount ? D::template widen<kLanes>(load_vector<K>(x)) : rounded<D, kLanes>(sum);
    sum = value * inverse;
  }
  const K result = D::template narrow<kLanes>(sum);
  std::memcpy(out, &result, sizeof(result));
}

template <class D, Finish kFinish>
inline void finish(typename D::Acc sum, typename D::Acc count, const typename D::Bits* x, typename D::Bits* out) {
  if (kFinish != kPlain) {
    const auto value = kFinish == kInputOverCount ? D::load(*x) : D::load(D::store(sum));
    sum = value * inverse<D>(count);
  }
  *out = D::store(sum);
}

// One row of a plane under 3x3 windows, stride 2, NCHW: even places meet two windows of each row of windows, odd places
// one. v and gate may be null as kValues says, x if kFinish does not need it. False where the windows are too few for
// vectors, or end too far outside.
template <class D, Values kValues, Finish kFinish>
bool three_two(const Geometry& g, Span rows, const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s,
               int h, const typename D::Bits* x, typename D::Bits* out) {
  using Acc = typename D::Acc;
  const int n = g.cols;
  if (n < 2 || g.width + g.pad_w < 2 * n) return false;
  const auto line = [&](int row) SP_LAMBDA { return (h - row * 2 + g.pad_h) * 3; };
  // Window j meets places 2j and 2j + 1 of the padded row, window j - 1 place 2j.
  const bool vectors = for_vectors<kWidest<Acc>>(n - 1, [&](auto lanes, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using A = Vector<Acc, kLanes>;
    using P = Vector<PlaceOf<Acc>, kLanes>;
    A even{}, odd{}, even_count{}, odd_count{}, none{}, one = none + 1;
    for (int row = rows.begin; row < rows.end; ++row) {
      const int64_t at = static_cast<int64_t>(row) * n + j;
      const uint8_t* place = s + at;
      const PlaceOf<Acc> first = line(row);
      const P right = load_switches<PlaceOf<Acc>, kLanes>(place + 1);
      const auto third = load_switches<PlaceOf<Acc>, kLanes>(place) == first + 2;
      const A before = load_values<D, kValues, kLanes>(v, gate, at), here = load_values<D, kValues, kLanes>(v, gate, at + 1);
      even += third ? before : none;
      even += right == first ? here : none;
      odd += right == first + 1 ? here : none;
      if (kFinish != kPlain) {
        even_count += (third ? one : none) + (right == first ? one : none);
        odd_count += right == first + 1 ? one : none;
      }
    }
    A a, b, a_count{}, b_count{};
    merge<Acc, kLanes>(even, odd, a, b);
    if (kFinish != kPlain) merge<Acc, kLanes>(even_count, odd_count, a_count, b_count);
    const int64_t w = 2 * j + 2 - g.pad_w;
    finish<D, kFinish, kLanes>(a, a_count, x + w, out + w);
    finish<D, kFinish, kLanes>(b, b_count, x + w + kLanes, out + w + kLanes);
  });
  if (!vectors) return false;
  // Places 0 and 1 have the first window alone, place 2n the last, and those after it none. What a window gives goes to the
  // slot of its switch: no branch that a processor could guess wrong.
  Acc sums[2][4] = {}, counts[2][4] = {};
  for (int row = rows.begin; row < rows.end; ++row) {
    for (int last = 0; last < 2; ++last) {
      const int64_t at = static_cast<int64_t>(row) * n + (last ? n - 1 : 0);
      const unsigned place = static_cast<unsigned>(s[at] - line(row));
      const unsigned slot = s[at] != kNone && place < 3 ? place : 3;
      const Acc value = kValues == kOnes ? Acc(1) : D::load(v[at]);
      sums[last][slot] += kValues == kGated && is_closed<D>(gate[at]) ? Acc(0) : value;
      counts[last][slot] += 1;
    }
  }
  const auto edge = [&](int place, Acc sum, Acc count) SP_LAMBDA {
    const int w = place - g.pad_w;
    if (w >= 0 && w < g.width) finish<D, kFinish>(sum, count, x + w, out + w);
  };
  edge(0, sums[0][0], counts[0][0]);
  edge(1, sums[0][1], counts[0][1]);
  edge(2 * n, sums[1][2], counts[1][2]);
  for (int place = 2 * n + 1; place < g.width + g.pad_w; ++place) edge(place, Acc(0), Acc(0));
  return true;
}

// Sums of one row of one plane (NCHW), in the coordinates of the padded row: place w is at w + pad_w + lead.
template <class D>
class RowSums {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  RowSums(const Geometry& g, const Cover& cover, Mode mode)
      : g_(g),
        cover_(cover),
        mode_(mode),
        lead_(std::max(0, -g.pad_w)),
        sums_(lead_ + std::max((g.cols - 1) * g.stride_w + g.kernel_w + 1, g.pad_w + g.width)),
        values_(g.cols) {}

  // v and gate may be null: every value is 1, every gate is open. They and s point to the plane's first window.
  const Acc* compute(const Bits* v, const Bits* gate, const uint8_t* s, int64_t s_pitch, int h) {
    const Span rows = cover_.rows[h];
    std::fill(sums_.begin(), sums_.end(), Acc(0));
    for (int row = rows.begin; row < rows.end; ++row) {
      const int64_t at = static_cast<int64_t>(row) * g_.cols;
      fetch(v ? v + at : v, gate ? gate + at : gate, row);
      if (mode_ == kSwitch) {
        add_switched(s + row * s_pitch, (h - row * g_.stride_h + g_.pad_h) * g_.kernel_w);
      } else {
        add_everywhere();
      }
    }
    return sums_.data() + lead_ + g_.pad_w;
  }

 private:
  static Acc open_value(const Bits* v, const Bits* gate, int j) {
    const Acc value = v ? D::load(v[j]) : Acc(1);
    return gate && is_closed<D>(gate[j]) ? Acc(0) : value;
  }

  void fetch(const Bits* __restrict v, const Bits* __restrict gate, int row) {
    for (int j = 0; j < g_.cols; ++j) values_[j] = open_value(v, gate, j);
    if (mode_ != kAverage) return;
    const int size_h = divisor(row * g_.stride_h - g_.pad_h, g_.kernel_h, g_.height, g_.pad_h);
    for (int j = 0; j < g_.cols; ++j) {
      values_[j] /= Acc(size_h * divisor(j * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width, g_.pad_w));
    }
  }

  // From the last place of the windows to the first, so that every place meets its windows from left to right.
  void add_everywhere() {
    const Acc* __restrict value = values_.data();
    for (int c = g_.kernel_w - 1; c >= 0; --c) {
      Acc* __restrict to = sums_.data() + lead_ + c;
      for (int j = 0; j < g_.cols; ++j) to[static_cast<int64_t>(j) * g_.stride_w] += value[j];
    }
  }

  void add_switched(const uint8_t* s, int line) {
    Acc* to = sums_.data() + lead_;
    for (int j = 0; j < g_.cols; ++j, to += g_.stride_w) {
      const unsigned c = s[j] - line;
      if (s[j] != kNone && c < static_cast<unsigned>(g_.kernel_w)) to[c] += values_[j];
    }
  }

  const Geometry& g_;
  const Cover& cover_;
  const Mode mode_;
  const int lead_;
  std::vector<Acc> sums_, values_;
};

// Sums of one place of all channels (channels_last), kBlock channels at a time.
template <class D>
class PixelSums {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  PixelSums(const Geometry& g, const Cover& cover, Mode mode) : g_(g), cover_(cover), mode_(mode) {}

  void place(int h, int w) {
    h_ = h, w_ = w;
    rows_ = cover_.rows[h], cols_ = cover_.cols[w];
  }
  bool single() const { return rows_.end - rows_.begin == 1 && cols_.end - cols_.begin == 1; }
  bool none() const { return rows_.end <= rows_.begin || cols_.end <= cols_.begin; }
  // Of the only window: its index, and where in it the place is.
  int64_t window() const { return static_cast<int64_t>(rows_.begin) * g_.cols + cols_.begin; }
  int position() const { return position(rows_.begin, cols_.begin); }

  // All channels of the place, where few windows meet: straight into `out`. v, gate and s are those of the image's first
  // window, x those of the place. False where there are too many windows or too few channels.
  template <Values kValues, Finish kFinish>
  bool gather(const Bits* v, const Bits* gate, const uint8_t* s, bool same_switch, const Bits* x, Bits* out) const {
    const int count = (rows_.end - rows_.begin) * (cols_.end - cols_.begin);
    if (mode_ != kSwitch || g_.channels < 4) return false;
    switch (count) {
      case 1:
        return gather<kValues, kFinish, 1>(v, gate, s, same_switch, x, out);
      case 2:
        return gather<kValues, kFinish, 2>(v, gate, s, same_switch, x, out);
      case 4:
        return gather<kValues, kFinish, 4>(v, gate, s, same_switch, x, out);
      default:
        return false;
    }
  }

  // The sums of n channels from the one that v, gate and s (of the image's first window) point to.
  const Acc* compute(const Bits* v, const Bits* gate, const uint8_t* s, bool same_switch, int n) {
    std::fill(sums_, sums_ + n, Acc(0));
    for (int row = rows_.begin; row < rows_.end; ++row) {
      for (int col = cols_.begin; col < cols_.end; ++col) {
        const int64_t at = (static_cast<int64_t>(row) * g_.cols + col) * g_.channels;
        const int size = mode_ != kAverage
                             ? 1
                             : divisor(row * g_.stride_h - g_.pad_h, g_.kernel_h, g_.height, g_.pad_h) *
                                   divisor(col * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width, g_.pad_w);
        add(v ? v + at : v, gate ? gate + at : gate, s && !same_switch ? s + at : s, position(row, col), size, n);
      }
    }
    return sums_;
  }

 private:
  int position(int row, int col) const {
    return (h_ - row * g_.stride_h + g_.pad_h) * g_.kernel_w + w_ - col * g_.stride_w + g_.pad_w;
  }

  template <Values kValues, Finish kFinish, int kCount>
  bool gather(const Bits* v, const Bits* gate, const uint8_t* s, bool same_switch, const Bits* x, Bits* out) const {
    int64_t at[kCount] = {};
    PlaceOf<Acc> here[kCount] = {};
    int i = 0;
    for (int row = rows_.begin; row < rows_.end; ++row) {
      for (int col = cols_.begin; col < cols_.end; ++col, ++i) {
        at[i] = (static_cast<int64_t>(row) * g_.cols + col) * g_.channels;
        here[i] = position(row, col);
      }
    }
    return for_vectors<kWidest<Acc>>(g_.channels, [&](auto lanes, int64_t c) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      using A = Vector<Acc, kLanes>;
      A sum{}, number{}, none{}, one = none + 1;
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const auto hit = load_switches<PlaceOf<Acc>, kLanes>(s + (same_switch ? c : at[k] + c)) == here[k];
        const A value = load_values<D, kValues, kLanes>(v, gate, at[k] + c);
        sum += hit ? value : none;
        if (kFinish != kPlain) number += hit ? one : none;
      }
      finish<D, kFinish, kLanes>(sum, number, x + c, out + c);
    });
  }

  void add(const Bits* __restrict v, const Bits* __restrict gate, const uint8_t* __restrict s, int here, int size, int n) {
    Acc* __restrict sums = sums_;
    const auto run = [&](auto value) SP_LAMBDA {
      if (mode_ == kSwitch) {
        for (int j = 0; j < n; ++j) {
          const Acc here_value = value(j);
          sums[j] += s[j] == here ? here_value : Acc(0);
        }
      } else if (mode_ == kSum) {
        for (int j = 0; j < n; ++j) sums[j] += value(j);
      } else {
        for (int j = 0; j < n; ++j) sums[j] += value(j) / Acc(size);
      }
    };
    if (!v) {
      run([](int) SP_LAMBDA { return Acc(1); });
    } else if (!gate) {
      run([&](int j) SP_LAMBDA { return D::load(v[j]); });
    } else {
      run([&](int j) SP_LAMBDA {
        const Acc value = D::load(v[j]);
        return is_closed<D>(gate[j]) ? Acc(0) : value;
      });
    }
  }

  const Geometry& g_;
  const Cover& cover_;
  const Mode mode_;
  int h_ = 0, w_ = 0;
  Span rows_{0, 0}, cols_{0, 0};
  Acc sums_[kBlock];
};

// One side of a product of two rounded factors: bit for bit what SafeInv and Eltwise PROD give.
template <class D>
inline void store_scaled(const typename D::Acc* __restrict value, const typename D::Acc* __restrict count,
                         typename D::Bits* __restrict to, int n) {
  for (int j = 0; j < n; ++j) to[j] = D::store(D::load(D::store(value[j])) * inverse<D>(count[j]));
}

template <class D>
inline void store_all(const typename D::Acc* __restrict value, typename D::Bits* __restrict to, int n) {
  for (int j = 0; j < n; ++j) to[j] = D::store(value[j]);
}

// out[j] = v[j] where s[j] is `here` and the gate is open, else 0.
template <class D>
inline void move_switched(const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s, int here,
                          typename D::Bits* out, int64_t n) {
  using Key = typename D::Key;
  const bool vectors = for_vectors<kWidest<Key>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using K = Vector<Key, kLanes>;
    K value = load_vector<K>(v + j), none{};
    if (gate) value = D::closed(load_vector<K>(gate + j)) ? none : value;
    value = load_switches<PlaceOf<Key>, kLanes>(s + j) == PlaceOf<Key>(here) ? value : none;
    std::memcpy(out + j, &value, sizeof(value));
  });
  for (int64_t j = 0; j < n && !vectors; ++j) {
    out[j] = s[j] == here && !(gate && is_closed<D>(gate[j])) ? v[j] : typename D::Bits(0);
  }
}

// A row of 2x2/2 windows side by side onto one of their two rows.
template <class D>
inline void move_pairs(const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s, int line,
                       typename D::Bits* out, int64_t n) {
  using Key = typename D::Key;
  const bool vectors = for_vectors<kWidest<Key>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using K = Vector<Key, kLanes>;
    K value = load_vector<K>(v + j), none{};
    if (gate) value = D::closed(load_vector<K>(gate + j)) ? none : value;
    const auto place = load_switches<PlaceOf<Key>, kLanes>(s + j);
    const PlaceOf<Key> left = line, right = line + 1;
    K a, b;
    merge<Key, kLanes>(place == left ? value : none, place == right ? value : none, a, b);
    std::memcpy(out + 2 * j, &a, sizeof(a));
    std::memcpy(out + 2 * j + kLanes, &b, sizeof(b));
  });
  for (int64_t j = 0; j < n && !vectors; ++j) {
    const auto value = gate && is_closed<D>(gate[j]) ? typename D::Bits(0) : v[j];
    out[2 * j] = s[j] == line ? value : typename D::Bits(0);
    out[2 * j + 1] = s[j] == line + 1 ? value : typename D::Bits(0);
  }
}

// The fast ways: a row (NCHW), a place (channels_last). False where there is none.
template <class D, Finish kFinish>
inline bool fast_row(const Geometry& g, Span rows, const typename D::Bits* v, const typename D::Bits* gate,
                     const uint8_t* s, int h, typename D::Bits* out) {
  return gate ? three_two<D, kGated, kFinish>(g, rows, v, gate, s, h, nullptr, out)
              : three_two<D, kOpen, kFinish>(g, rows, v, gate, s, h, nullptr, out);
}

template <class D, Finish kFinish>
inline bool fast_place(const PixelSums<D>& sums, const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s,
                       bool same_switch, typename D::Bits* out) {
  return gate ? sums.template gather<kGated, kFinish>(v, gate, s, same_switch, nullptr, out)
              : sums.template gather<kOpen, kFinish>(v, gate, s, same_switch, nullptr, out);
}

// Units are rows of the plane. Returns whether all switches were valid.
template <class D>
bool spread(const Geometry& g, Mode mode, What what, bool channels_last, const void* v_, const void* gate_,
            const uint8_t* s_, int fixed, void* out_, bool stream, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const Switches switches(s_, fixed, e.out);
  const auto* values = static_cast<const Bits*>(v_);
  const auto* gates = static_cast<const Bits*>(gate_);
  const bool moves = is_disjoint(g) && what != kCounts && mode == kSwitch;
  const bool pairs = moves && !channels_last && is_square(g, 2, 2) && g.pad_h == 0 && g.pad_w == 0;
  const bool three = mode == kSwitch && !channels_last && is_square(g, 3, 2) && s_;
  Sink<Bits> sink(static_cast<Bits*>(out_) + begin * e.pitch, e.pitch, stream);
  const Cover cover(g);
  RowSums<D> sums(g, cover, mode), counts(g, cover, mode);
  PixelSums<D> pixel_sums(g, cover, mode), pixel_counts(g, cover, mode);
  bool valid = true;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int h = static_cast<int>(unit % g.height);
    const int64_t image = unit / g.height * g.rows * e.out;
    const Bits* v = values ? values + image : values;
    const Bits* gate = gates ? gates + image : gates;
    const uint8_t* s = s_ ? s_ + image : switches.same.data();
    Bits* out = sink.reserve(e.pitch);
    const Span rows = cover.rows[h];
    for (int row = rows.begin; s_ && mode == kSwitch && row < rows.end; ++row) {  // by the first row that reads them
      if (h == std::max(0, row * g.stride_h - g.pad_h)) valid &= row_is_valid(g, cover.full, s + row * e.out, row, e.pixel);
    }
    if (pairs) {
      const int row = h / 2, n = row < g.rows ? std::min(g.cols, g.width / 2) : 0, line = h % 2 * 2;
      const int64_t at = row * e.out;
      const uint8_t* place = s_ ? s + at : s;
      move_pairs<D>(v + at, gate ? gate + at : gate, place, line, out, n);
      std::fill(out + 2 * n, out + g.width, Bits(0));
      if (n < g.cols && row < g.rows && 2 * n < g.width && place[n] == line) {
        out[2 * n] = gate && is_closed<D>(gate[at + n]) ? Bits(0) : v[at + n];
      }
    } else if (three && ((what == kSums && fast_row<D, kPlain>(g, rows, v, gate, s, h, out)) ||
                         (what == kNormalized && fast_row<D, kSumOverCount>(g, rows, v, gate, s, h, out)))) {
      continue;
    } else if (!channels_last) {
      const auto* sum = sums.compute(what == kCounts ? nullptr : v, gate, s, s_ ? e.out : 0, h);
      if (what == kNormalized) {
        store_scaled<D>(sum, counts.compute(nullptr, nullptr, s, s_ ? e.out : 0, h), out, g.width);
      } else {
        store_all<D>(sum, out, g.width);
      }
    } else {
      for (int w = 0; w < g.width; ++w, out += e.pixel) {
        pixel_sums.place(h, w);
        if (pixel_sums.none()) {
          std::fill(out, out + e.pixel, Bits(0));
        } else if (moves) {
          const int64_t at = pixel_sums.window() * e.pixel;
          move_switched<D>(v + at, gate ? gate + at : gate, s_ ? s + at : s, pixel_sums.position(), out, e.pixel);
        } else if ((what == kSums && fast_place<D, kPlain>(pixel_sums, v, gate, s, !s_, out)) ||
                   (what == kNormalized && fast_place<D, kSumOverCount>(pixel_sums, v, gate, s, !s_, out))) {
          continue;
        } else {
          for (int64_t c = 0; c < e.pixel; c += kBlock) {
            const int n = static_cast<int>(std::min<int64_t>(kBlock, e.pixel - c));
            const uint8_t* place = mode == kSwitch ? s + c : nullptr;
            const auto* sum =
                pixel_sums.compute(what == kCounts ? nullptr : v + c, gate ? gate + c : gate, place, !s_, n);
            if (what == kNormalized) {
              pixel_counts.place(h, w);
              store_scaled<D>(sum, pixel_counts.compute(nullptr, nullptr, place, !s_, n), out + c, n);
            } else {
              store_all<D>(sum, out + c, n);
            }
          }
        }
      }
    }
  }
  return valid;
}

// ---- Reading at switches -----------------------------------------------------------------------------------------------

// n windows side by side over kPlaces places each, one apart in x: place i of window j is at from[i] + j. Bits are moved, never
// computed with. False where there are too few for a vector.
template <class Bits, int kPlaces>
inline bool select_contiguous(const Bits* const* from, const uint8_t* s, Bits* y, int64_t n) {
  return for_vectors<kWidest<Bits>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using V = Vector<PlaceOf<Bits>, kLanes>;
    const V place = load_switches<PlaceOf<Bits>, kLanes>(s + j);
    V value{};
    for (int i = 0; i < kPlaces; ++i) value = place == PlaceOf<Bits>(i) ? load_vector<V>(from[i] + j) : value;
    std::memcpy(y + j, &value, sizeof(value));
  });
}

// The same for windows of kSide x kSide, stride 2, along a row.
template <class Bits, int kSide>
inline bool select_squares(const Bits* const* from, const uint8_t* s, Bits* y, int64_t n) {
  using Lane = PlaceOf<Bits>;
  return for_vectors<kWidest<Bits>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using V = Vector<Lane, kLanes>;
    const V place = load_switches<Lane, kLanes>(s + j);
    V value{};
    for (int i = 0; i < kSide; ++i) {
      const Bits* row = from[i * kSide] + 2 * j;
      V first, second, third;
      prefetch(row);
      load_split<Lane, kLanes>(row, first, second);
      if (kSide == 3) load_split<Lane, kLanes>(row + 1, second, third);
      value = place == Lane(i * kSide) ? first : value;
      value = place == Lane(i * kSide + 1) ? second : value;
      if (kSide == 3) value = place == Lane(i * kSide + 2) ? third : value;
    }
    std::memcpy(y + j, &value, sizeof(value));
  });
}

template <class Bits>
inline void select_run(const Geometry& g, const Places<Bits>& p, int step, const uint8_t* __restrict s,
                       Bits* __restrict y, int64_t n) {
  const Bits* const* from = p.from.data();
  const bool full = p.count() == g.kernel_h * g.kernel_w, square = full && step == 2 && g.kernel_h == g.kernel_w;
  if (square && p.count() == 4 && select_squares<Bits, 2>(from, s, y, n)) return;
  if (square && p.count() == 9 && select_squares<Bits, 3>(from, s, y, n)) return;
  if (full && step == 1 && p.count() == 4 && select_contiguous<Bits, 4>(from, s, y, n)) return;
  if (full && step == 1 && p.count() == 9 && select_contiguous<Bits, 9>(from, s, y, n)) return;
  std::fill(y, y + n, Bits(0));
  for (int i = 0; i < p.count(); ++i) {
    const Bits* __restrict x = from[i];
    const int here = p.place[i];
    for (int64_t j = 0; j < n; ++j) {
      const Bits value = x[j * step];
      y[j] = s[j] == here ? value : y[j];
    }
  }
}

// The last kernel_h rows of one plane, each place times one over the number of windows that name it.
template <class D>
class ScaledRows {
 public:
  using Bits = typename D::Bits;

  ScaledRows(const Geometry& g, bool channels_last)
      : g_(g),
        e_(g, channels_last),
        channels_last_(channels_last),
        cover_(g),
        row_counts_(g, cover_, kSwitch),
        pixel_counts_(g, cover_, kSwitch),
        rows_(static_cast<size_t>(g.kernel_h) * e_.pitch),
        held_(g.kernel_h, -1) {}

  const Bits* get(const Bits* x, const uint8_t* s, int64_t image, int h) {
    Bits* row = rows_.data() + h % g_.kernel_h * e_.pitch;
    const int64_t tag = image * g_.height + h;
    if (held_[h % g_.kernel_h] == tag) return row;
    held_[h % g_.kernel_h] = tag;
    x += h * e_.pitch;
    if (!channels_last_ && is_square(g_, 3, 2) &&
        three_two<D, kOnes, kInputOverCount>(g_, cover_.rows[h], nullptr, nullptr, s, h, x, row)) {
      return row;
    }
    if (!channels_last_) {
      scale(x, row_counts_.compute(nullptr, nullptr, s, e_.out, h), row, g_.width);
      return row;
    }
    for (int w = 0; w < g_.width; ++w) {
      pixel_counts_.place(h, w);
      const int64_t first = w * e_.pixel;
      if (pixel_counts_.template gather<kOnes, kInputOverCount>(nullptr, nullptr, s, false, x + first, row + first)) continue;
      for (int64_t c = 0; c < e_.pixel; c += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, e_.pixel - c));
        const int64_t at = first + c;
        scale(x + at, pixel_counts_.compute(nullptr, nullptr, s + c, false, n), row + at, n);
      }
    }
    return row;
  }

 private:
  static void scale(const Bits* __restrict x, const typename D::Acc* __restrict count, Bits* __restrict to, int n) {
    for (int j = 0; j < n; ++j) to[j] = D::store(D::load(x[j]) * inverse<D>(count[j]));
  }

  const Geometry& g_;
  const Extents e_;
  const bool channels_last_;
  const Cover cover_;
  RowSums<D> row_counts_;
  PixelSums<D> pixel_counts_;
  std::vector<Bits> rows_;
  std::vector<int64_t> held_;
};

// Units are rows of windows. Returns whether all switches were valid.
template <class D>
bool select(const Geometry& g, bool normalized, bool channels_last, const void* x_, const uint8_t* s_, int fixed,
            const void* gate_, void* y_, bool stream, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const Switches switches(s_, fixed, e.out);
  const auto* gate = static_cast<const Bits*>(gate_);
  Sink<Bits> sink(static_cast<Bits*>(y_) + begin * e.out, e.out, stream);
  Places<Bits> places(g);
  std::unique_ptr<ScaledRows<D>> scaled;
  // Where no place is covered twice, a place that is read was named once.
  if (normalized && !is_disjoint(g)) scaled.reset(new ScaledRows<D>(g, channels_last));
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  bool valid = true;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const int64_t image = unit / g.rows;
    const Bits* x = static_cast<const Bits*>(x_) + image * e.plane;
    const uint8_t* s = switches.at(unit * e.out);
    Bits* y = sink.reserve(e.out);
    if (s_) valid &= row_is_valid(g, full, s, row, e.pixel);
    for_each_run(g, full, channels_last, [&](int col, int64_t n, int step) SP_LAMBDA {
      const auto row_at = [&](int h) SP_LAMBDA {
        return scaled ? scaled->get(x, s_ + image * g.rows * e.out, image, h) : x + h * e.pitch;
      };
      places.find(g, row_at, e.pixel, row, col);
      select_run<Bits>(g, places, step, s + col * e.pixel, y + col * e.pixel, n);
    });
    if (gate) close_gates<D>(gate + unit * e.out, y, e.out);
  }
  return valid;
}

// ---- The table of this instruction set ---------------------------------------------------------------------------------

template <class D>
Kernels kernels_of() {
  return {{reduce<D, Maximum<D, false>>, reduce<D, Maximum<D, true>>, reduce<D, Total<D, false>>, reduce<D, Total<D, true>>},
          spread<D>,
          select<D>};
}

inline Kernels kernels(Type type) {
  switch (type) {
    case kFloat:
      return kernels_of<Float>();
    case kDouble:
      return kernels_of<Double>();
    case kHalf:
      return kernels_of<Half>();
    default:
      return kernels_of<BFloat16>();
  }
}

}  // namespace SP_ISA
}  // namespace switch_pool
