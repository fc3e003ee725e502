// Row kernels over raw pointers. cpu.cpp includes this file once for each instruction set, inside a region that makes the
// compiler target it; SP_ISA is the namespace, SP_BYTES the vector width (0: no streaming stores). Hot loops are written so
// that compilers vectorise them: constant strides, selects instead of branches, no aliasing.

namespace switch_pool {
namespace SP_ISA {

// ---- Types: Bits is what memory holds, Acc what sums are made in, Key what maxima compare ------------------------------

template <class F>
struct Native {
  using Bits = F;
  using Acc = F;
  using Key = F;
  static constexpr Key kLowest = -FLT_MAX;
  static Acc load(Bits x) { return x; }
  static Bits store(Acc x) { return x; }
  static Bits value(Key key) { return key; }
  static bool closed(Bits gate) { return gate <= 0; }
  template <bool kRelu>
  static Key key(Bits x) {
    return kRelu && x < 0 ? Key(0) : x;
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
  static constexpr Key kLowest = -(kInfinity - 1);
  static Bits value(Key key) { return key < 0 ? Bits(0x8000 | -key) : Bits(key); }
  static bool closed(Bits gate) { return gate == 0 || Bits(gate - 0x8000) <= kInfinity; }
  template <bool kRelu>
  static Key key(Bits x) {
    const Key magnitude = Key(x & 0x7fff);
    Key signed_key = Key(x) < 0 ? Key(kRelu ? 0 : -magnitude) : magnitude;
    return magnitude > kInfinity ? Key(-0x8000) : signed_key;
  }
};

struct Half : Narrow<0x7c00> {
  static float load(Bits x) { return c10::detail::fp16_ieee_to_fp32_value(x); }
  static Bits store(float x) { return c10::detail::fp16_ieee_from_fp32_value(x); }
};

struct BFloat16 : Narrow<0x7f80> {
  static float load(Bits x) { return c10::detail::f32_from_bits(x); }
  static Bits store(float x) { return c10::detail::round_to_nearest_even(x); }
};

template <int kSize>
struct IntegerOf;
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

// ---- Output ------------------------------------------------------------------------------------------------------------

// Writes a range from front to back. Streaming goes through a buffer in the nearest cache and past the others: a line that
// will be overwritten whole is then never read.
template <class T>
class Sink {
 public:
  Sink(T* begin, size_t most, bool stream) : next_(begin) {
    if (stream && SP_BYTES != 0) {
      buffer_.resize(std::max<size_t>(most + 64, 16384 / sizeof(T)));
    }
  }
  ~Sink() {
    if (!buffer_.empty()) {
      std::memcpy(next_, buffer_.data(), used_ * sizeof(T));
#if SP_BYTES
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
#if SP_BYTES == 64
      _mm512_stream_si512(reinterpret_cast<__m512i*>(next_), _mm512_loadu_si512(from));
#elif SP_BYTES == 32
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

inline bool is_square(const Geometry& g, int kernel, int stride) {
  return g.kernel_h == kernel && g.kernel_w == kernel && g.stride_h == stride && g.stride_w == stride;
}

// Whether no place is covered twice.
inline bool is_disjoint(const Geometry& g) { return g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w; }

inline bool all_in_window(const uint8_t* __restrict s, int64_t n, int places) {
  unsigned worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    const unsigned place = s[i] == kNone ? 0 : s[i];
    worst = place > worst ? place : worst;
  }
  return static_cast<int>(worst) < places;
}

// Whether the switches of a row of windows (`step` of them side by side: the channels) point into window and plane.
inline bool row_is_valid(const Geometry& g, const uint8_t* s, int row, int64_t step) {
  const int start = row * g.stride_h - g.pad_h;
  const Span high = inside(start, g.kernel_h, g.height);
  const Span w = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  bool valid = all_in_window(s, g.cols * step, g.kernel_h * g.kernel_w);
  const bool clipped = high.begin > 0 || high.end < g.kernel_h;
  for (int c = 0; c < g.cols; ++c) {
    if (!clipped && c >= w.begin && c < w.end) continue;
    const Span wide = inside(c * g.stride_w - g.pad_w, g.kernel_w, g.width);
    for (int64_t i = 0; i < step; ++i) {
      const int place = s[c * step + i], h = place / g.kernel_w, v = place % g.kernel_w;
      valid &= place == kNone || (h >= high.begin && h < high.end && v >= wide.begin && v < wide.end);
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
  static void step(Value& best, Place& at, typename D::Bits x, int place) {
    const Value key = D::template key<kRelu>(x);
    const bool larger = key > best;
    best = larger ? key : best;
    at = larger ? static_cast<Place>(place) : at;
  }
  static typename D::Bits finish(Value best, int) { return D::value(best); }
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
inline void for_each_run(const Geometry& g, bool channels_last, const Run& run) {
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  for (int col = 0; col < g.cols;) {
    const bool together = !channels_last && col == full.begin && full.end > full.begin;
    const int count = together ? full.end - full.begin : 1;
    run(col, channels_last ? g.channels : count, channels_last ? 1 : g.stride_w);
    col += count;
  }
}

template <class Op, class Bits>
inline void reduce_run(const Geometry& g, const Places<Bits>& p, int step, Bits* y, uint8_t* s, int64_t n, int size) {
  const Bits* const* from = p.from.data();
  const bool full = p.count() == g.kernel_h * g.kernel_w;
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
  for (int64_t j = 0; j < n; ++j) y[j] = D::closed(gate[j]) ? typename D::Bits(0) : y[j];
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
  for (int64_t unit = begin; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const Bits* x = static_cast<const Bits*>(x_) + unit / g.rows * e.plane;
    Bits* y = y_sink.reserve(e.out);
    uint8_t* at = s ? s_sink.reserve(e.out) : s;
    const int size_h = divisor(row * g.stride_h - g.pad_h, g.kernel_h, g.height, g.pad_h);
    for_each_run(g, channels_last, [&](int col, int64_t n, int step) {
      places.find(g, [&](int h) { return x + h * e.pitch; }, e.pixel, row, col);
      const int size = size_h * divisor(col * g.stride_w - g.pad_w, g.kernel_w, g.width, g.pad_w);
      reduce_run<Op, Bits>(g, places, step, y + col * e.pixel, s ? at + col * e.pixel : s, n, size);
    });
    if (gate) close_gates<D>(gate + unit * e.out, y, e.out);
  }
}

// ---- Spreading values over planes: the sums of a row -------------------------------------------------------------------

// The row of switches (`step` to a window) at `index`; where every window has the same switch there is one row of it.
struct Switches {
  const uint8_t* s;
  std::vector<uint8_t> same;
  Switches(const uint8_t* switches, int fixed, int64_t row) : s(switches), same(switches ? 0 : row, fixed) {}
  const uint8_t* at(int64_t index) const { return s ? s + index : same.data(); }
};

// Sums of one row of one plane (NCHW), in the coordinates of the padded row: place w is at w + pad_w + lead.
template <class D>
class RowSums {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  RowSums(const Geometry& g, Mode mode)
      : g_(g),
        mode_(mode),
        lead_(std::max(0, -g.pad_w)),
        sums_(lead_ + std::max((g.cols - 1) * g.stride_w + g.kernel_w + 1, g.pad_w + g.width)),
        values_(g.cols + 2),
        places_(g.cols + 2, kNone) {}

  // v and gate may be null: every value is 1, every gate is open. They and s point to the plane's first window.
  const Acc* compute(const Bits* v, const Bits* gate, const uint8_t* s, int64_t s_pitch, int h) {
    std::fill(sums_.begin(), sums_.end(), Acc(0));
    const Span rows = covering(h, g_.kernel_h, g_.stride_h, g_.pad_h, g_.rows);
    for (int row = rows.begin; row < rows.end; ++row) {
      const int64_t at = static_cast<int64_t>(row) * g_.cols;
      fetch(v ? v + at : v, gate ? gate + at : gate, row);
      const int line = (h - row * g_.stride_h + g_.pad_h) * g_.kernel_w;
      if (mode_ != kSwitch) {
        add_everywhere();
      } else if (g_.kernel_w == 3 && g_.stride_w == 2) {
        std::memcpy(places_.data() + 1, s + row * s_pitch, g_.cols);
        add_switched_3_2(line);
      } else {
        add_switched(s + row * s_pitch, line);
      }
    }
    return sums_.data() + lead_ + g_.pad_w;
  }

 private:
  void fetch(const Bits* __restrict v, const Bits* __restrict gate, int row) {
    Acc* __restrict to = values_.data() + 1;
    if (!v) {
      std::fill(to, to + g_.cols, Acc(1));
    } else if (!gate) {
      for (int j = 0; j < g_.cols; ++j) to[j] = D::load(v[j]);
    } else {
      for (int j = 0; j < g_.cols; ++j) to[j] = D::closed(gate[j]) ? Acc(0) : D::load(v[j]);
    }
    if (mode_ != kAverage) return;
    const int size_h = divisor(row * g_.stride_h - g_.pad_h, g_.kernel_h, g_.height, g_.pad_h);
    for (int j = 0; j < g_.cols; ++j) {
      to[j] /= Acc(size_h * divisor(j * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width, g_.pad_w));
    }
  }

  // From the last place of the windows to the first, so that every place meets its windows from left to right.
  void add_everywhere() {
    const Acc* __restrict value = values_.data() + 1;
    for (int c = g_.kernel_w - 1; c >= 0; --c) {
      Acc* __restrict to = sums_.data() + lead_ + c;
      for (int j = 0; j < g_.cols; ++j) to[static_cast<int64_t>(j) * g_.stride_w] += value[j];
    }
  }

  void add_switched(const uint8_t* s, int line) {
    Acc* to = sums_.data() + lead_;
    for (int j = 0; j < g_.cols; ++j, to += g_.stride_w) {
      const unsigned c = s[j] - line;
      if (s[j] != kNone && c < static_cast<unsigned>(g_.kernel_w)) to[c] += values_[j + 1];
    }
  }

  // Even places meet two windows, odd places one; beyond both ends stand windows without a switch.
  void add_switched_3_2(int line) {
    Acc* __restrict to = sums_.data() + lead_;
    const Acc* __restrict value = values_.data();
    const uint8_t* __restrict place = places_.data();
    const int first = line, second = line + 1, third = line + 2;
    for (int j = 0; j <= g_.cols; ++j) {
      const Acc left = place[j] == third ? value[j] : Acc(0);
      const Acc right = place[j + 1] == first ? value[j + 1] : Acc(0);
      const Acc middle = place[j + 1] == second ? value[j + 1] : Acc(0);
      to[2 * j] = to[2 * j] + left + right;
      to[2 * j + 1] += middle;
    }
  }

  const Geometry& g_;
  const Mode mode_;
  const int lead_;
  std::vector<Acc> sums_, values_;
  std::vector<uint8_t> places_;
};

// Sums of one place of all channels (channels_last), kBlock channels at a time.
template <class D>
class PixelSums {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  PixelSums(const Geometry& g, Mode mode) : g_(g), mode_(mode) {}

  void place(int h, int w) {
    h_ = h, w_ = w;
    rows_ = covering(h, g_.kernel_h, g_.stride_h, g_.pad_h, g_.rows);
    cols_ = covering(w, g_.kernel_w, g_.stride_w, g_.pad_w, g_.cols);
  }
  bool single() const { return rows_.end - rows_.begin == 1 && cols_.end - cols_.begin == 1; }
  bool none() const { return rows_.end <= rows_.begin || cols_.end <= cols_.begin; }
  // Of the only window: its index, and where in it the place is.
  int64_t window() const { return static_cast<int64_t>(rows_.begin) * g_.cols + cols_.begin; }
  int position() const { return position(rows_.begin, cols_.begin); }

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

  void add(const Bits* __restrict v, const Bits* __restrict gate, const uint8_t* __restrict s, int here, int size, int n) {
    Acc* __restrict sums = sums_;
    Acc* __restrict value = values_;
    if (!v) {
      std::fill(value, value + n, Acc(1));
    } else if (!gate) {
      for (int j = 0; j < n; ++j) value[j] = D::load(v[j]);
    } else {
      for (int j = 0; j < n; ++j) value[j] = D::closed(gate[j]) ? Acc(0) : D::load(v[j]);
    }
    if (mode_ == kSwitch) {
      for (int j = 0; j < n; ++j) sums[j] += s[j] == here ? value[j] : Acc(0);
    } else {
      for (int j = 0; j < n; ++j) sums[j] += mode_ == kAverage ? value[j] / Acc(size) : value[j];
    }
  }

  const Geometry& g_;
  const Mode mode_;
  int h_ = 0, w_ = 0;
  Span rows_{0, 0}, cols_{0, 0};
  Acc sums_[kBlock], values_[kBlock];
};

template <class D>
inline typename D::Acc inverse(typename D::Acc count) {
  using Acc = typename D::Acc;
  return D::load(D::store(count == 0 ? Acc(0) : Acc(1) / count));
}

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

// out[j * kStep] = v[j] where s[j] is `here` and the gate is open, else 0.
template <class D>
inline void move_switched(const typename D::Bits* __restrict v, const typename D::Bits* __restrict gate,
                          const uint8_t* __restrict s, int here, typename D::Bits* __restrict out, int64_t n) {
  using Bits = typename D::Bits;
  if (gate) {
    for (int64_t j = 0; j < n; ++j) out[j] = s[j] == here && !D::closed(gate[j]) ? v[j] : Bits(0);
  } else {
    for (int64_t j = 0; j < n; ++j) out[j] = s[j] == here ? v[j] : Bits(0);
  }
}

// A row of 2x2/2 windows side by side onto one of their two rows.
template <class D, bool kGated>
inline void move_pairs(const typename D::Bits* __restrict v, const typename D::Bits* __restrict gate,
                       const uint8_t* __restrict s, int line, typename D::Bits* __restrict out, int n) {
  using Bits = typename D::Bits;
  const uint8_t left = static_cast<uint8_t>(line), right = static_cast<uint8_t>(line + 1);
  for (int j = 0; j < n; ++j) {
    const Bits value = kGated && D::closed(gate[j]) ? Bits(0) : v[j];
    out[2 * j] = s[j] == left ? value : Bits(0);
    out[2 * j + 1] = s[j] == right ? value : Bits(0);
  }
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
  Sink<Bits> sink(static_cast<Bits*>(out_) + begin * e.pitch, e.pitch, stream);
  RowSums<D> sums(g, mode), counts(g, mode);
  PixelSums<D> pixel_sums(g, mode), pixel_counts(g, mode);
  bool valid = true;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int h = static_cast<int>(unit % g.height);
    const int64_t image = unit / g.height * g.rows * e.out;
    const Bits* v = values ? values + image : values;
    const Bits* gate = gates ? gates + image : gates;
    const uint8_t* s = s_ ? s_ + image : switches.same.data();
    Bits* out = sink.reserve(e.pitch);
    if (s_ && mode == kSwitch) {  // by the first of the rows that read them
      const Span rows = covering(h, g.kernel_h, g.stride_h, g.pad_h, g.rows);
      for (int row = rows.begin; row < rows.end; ++row) {
        if (h == std::max(0, row * g.stride_h - g.pad_h)) valid &= row_is_valid(g, s + row * e.out, row, e.pixel);
      }
    }
    if (pairs) {
      const int row = h / 2, n = row < g.rows ? std::min(g.cols, g.width / 2) : 0, line = h % 2 * 2;
      const int64_t at = row * e.out;
      const uint8_t* place = s_ ? s + at : s;
      if (gate) {
        move_pairs<D, true>(v + at, gate + at, place, line, out, n);
      } else {
        move_pairs<D, false>(v + at, nullptr, place, line, out, n);
      }
      std::fill(out + 2 * n, out + g.width, Bits(0));
      if (n < g.cols && row < g.rows && 2 * n < g.width && place[n] == line) {
        out[2 * n] = gate && D::closed(gate[at + n]) ? Bits(0) : v[at + n];
      }
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
        pixel_counts.place(h, w);
        if (pixel_sums.none()) {
          std::fill(out, out + e.pixel, Bits(0));
        } else if (moves) {
          const int64_t at = pixel_sums.window() * e.pixel;
          move_switched<D>(v + at, gate ? gate + at : gate, s_ ? s + at : s, pixel_sums.position(), out, e.pixel);
        } else {
          for (int64_t c = 0; c < e.pixel; c += kBlock) {
            const int n = static_cast<int>(std::min<int64_t>(kBlock, e.pixel - c));
            const uint8_t* place = mode == kSwitch ? s + c : nullptr;
            const auto* sum =
                pixel_sums.compute(what == kCounts ? nullptr : v + c, gate ? gate + c : gate, place, !s_, n);
            if (what == kNormalized) {
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

template <class Bits, int kPlaces, int kStep>
inline void select_unrolled(const Bits* const* from, const uint8_t* __restrict s, Bits* __restrict y, int64_t n) {
  const Bits* p[kPlaces];
  for (int i = 0; i < kPlaces; ++i) p[i] = from[i];
  for (int64_t j = 0; j < n; ++j) {
    Bits value = 0;
#pragma GCC unroll 16
    for (int i = 0; i < kPlaces; ++i) value = s[j] == i ? p[i][j * kStep] : value;
    y[j] = value;
  }
}

template <class Bits>
inline void select_run(const Geometry& g, const Places<Bits>& p, int step, const uint8_t* __restrict s,
                       Bits* __restrict y, int64_t n) {
  const Bits* const* from = p.from.data();
  const bool full = p.count() == g.kernel_h * g.kernel_w;
  if (full && step == 1 && p.count() == 4) return select_unrolled<Bits, 4, 1>(from, s, y, n);
  if (full && step == 1 && p.count() == 9) return select_unrolled<Bits, 9, 1>(from, s, y, n);
  if (full && step == 2 && p.count() == 4) return select_unrolled<Bits, 4, 2>(from, s, y, n);
  if (full && step == 2 && p.count() == 9) return select_unrolled<Bits, 9, 2>(from, s, y, n);
  std::fill(y, y + n, Bits(0));
  for (int i = 0; i < p.count(); ++i) {
    const Bits* __restrict x = from[i];
    const int here = p.place[i];
    for (int64_t j = 0; j < n; ++j) y[j] = s[j] == here ? x[j * step] : y[j];
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
        row_counts_(g, kSwitch),
        pixel_counts_(g, kSwitch),
        rows_(static_cast<size_t>(g.kernel_h) * e_.pitch),
        held_(g.kernel_h, -1) {}

  const Bits* get(const Bits* x, const uint8_t* s, int64_t image, int h) {
    Bits* row = rows_.data() + h % g_.kernel_h * e_.pitch;
    const int64_t tag = image * g_.height + h;
    if (held_[h % g_.kernel_h] == tag) return row;
    held_[h % g_.kernel_h] = tag;
    x += h * e_.pitch;
    if (!channels_last_) {
      scale(x, row_counts_.compute(nullptr, nullptr, s, e_.out, h), row, g_.width);
      return row;
    }
    for (int w = 0; w < g_.width; ++w) {
      pixel_counts_.place(h, w);
      for (int64_t c = 0; c < e_.pixel; c += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, e_.pixel - c));
        const int64_t at = w * e_.pixel + c;
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
  bool valid = true;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const int64_t image = unit / g.rows;
    const Bits* x = static_cast<const Bits*>(x_) + image * e.plane;
    const uint8_t* s = switches.at(unit * e.out);
    Bits* y = sink.reserve(e.out);
    if (s_) valid &= row_is_valid(g, s, row, e.pixel);
    for_each_run(g, channels_last, [&](int col, int64_t n, int step) {
      const auto row_at = [&](int h) {
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
