// Pooling and unpooling of one image whose channels lie side by side (channels_last), for every window, stride and pad. Part
// of kernels.h: included as often. Addresses are those of row 0 of the plane, or of the windows; what is never used
// need not be there.

namespace switch_pool {
namespace SP_ISA {

// Where the places of windows lie, from where a window begins, and which of its places they are.
struct Table {
  std::vector<int64_t> offset;
  std::vector<int> place;

  void clear() { offset.clear(), place.clear(); }
  void add(int64_t at, int which) { offset.push_back(at), place.push_back(which); }
  int count() const { return static_cast<int>(offset.size()); }
};

// The tables of a row of windows: one for all that are whole along the row, one for each of the others.
class Tables {
 public:
  explicit Tables(const Geometry& g, int64_t pixel)
      : g_(g), pixel_(pixel), full_(whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols)) {}

  // row_at(h): how far row h of the plane is from row 0.
  template <class RowAt>
  void start(int row, const RowAt& row_at) {
    const int h = row * g_.stride_h - g_.pad_h;
    const Span high = inside(h, g_.kernel_h, g_.height);
    lines_.clear();
    for (int i = high.begin; i < high.end; ++i) lines_.add(row_at(h + i), i * g_.kernel_w);
    fill(whole_, {0, g_.kernel_w});
  }
  // Of window `col`, which begins at `origin(col)`.
  const Table& at(int col) {
    if (col >= full_.begin && col < full_.end) return whole_;
    fill(clipped_, inside(col * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width));
    return clipped_;
  }
  int64_t origin(int col) const { return (static_cast<int64_t>(col) * g_.stride_w - g_.pad_w) * pixel_; }

 private:
  void fill(Table& table, Span wide) const {
    table.clear();
    for (int i = 0; i < lines_.count(); ++i) {
      for (int j = wide.begin; j < wide.end; ++j) table.add(lines_.offset[i] + j * pixel_, lines_.place[i] + j);
    }
  }

  const Geometry& g_;
  const int64_t pixel_;
  const Span full_;
  Table lines_, whole_, clipped_;
};

template <class D>
inline void close_gates(const typename D::Bits* __restrict gate, typename D::Bits* __restrict y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = is_closed<D>(gate[j]) ? typename D::Bits(0) : y[j];
}

// ---- Reductions: what becomes of the places of a window ----------------------------------------------------------------

template <class D, bool kRelu>
struct Maximum {
  using Key = typename D::Key;
  static constexpr bool kHasPlace = true;
  static constexpr int kVectors = 4;
  static constexpr int kMostLanes = kWidest<Key>;

  template <int kLanes>
  struct State {
    using V = Vector<Key, kLanes>;
    using P = Vector<PlaceOf<Key>, kLanes>;
    V best = V{} + D::kLowest;
    P at = P{} + PlaceOf<Key>(kNone);

    void take(V x, int place) {
      const V key = D::template key<kRelu>(x);
      at = key > best ? P{} + PlaceOf<Key>(place) : at;
      best = key > best ? key : best;
    }
    void finish(typename D::Bits* y, uint8_t* s, int) const {
      const V value = D::value(best);
      const auto place = convert_places<uint8_t, kLanes, PlaceOf<Key>>(at);
      std::memcpy(y, &value, sizeof(value));
      std::memcpy(s, &place, sizeof(place));
    }
  };
};

template <class D, bool kAverages>
struct Total {
  using Key = typename D::Key;
  using Acc = typename D::Acc;
  static constexpr bool kHasPlace = false;
  static constexpr int kVectors = 8;  // side by side: a place is one load and one addition
  static constexpr int kMostLanes = kWidest<Acc>;

  template <int kLanes>
  struct State {
    Vector<Acc, kLanes> sum{};

    void take(Vector<Key, kLanes> x, int) { sum += D::template widen<kLanes>(x); }
    void finish(typename D::Bits* y, uint8_t*, int size) const {
      const auto value = D::template narrow<kLanes>(kAverages ? sum / Acc(size) : sum);
      std::memcpy(y, &value, sizeof(value));
    }
  };
};

// The places of a table for kVectors vectors of windows or channels that lie side by side in x.
template <class D, class Op, int kLanes, int kVectors>
inline void reduce_places(const typename D::Bits* x, const Table& t, int size, typename D::Bits* y, uint8_t* s) {
  typename Op::template State<kLanes> state[kVectors];
  for (int i = 0; i < t.count(); ++i) {
    const auto* from = x + t.offset[i];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      prefetch_line<kLanes>(from, v);
      state[v].take(load_vector<Vector<typename D::Key, kLanes>>(from + v * kLanes), t.place[i]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) state[v].finish(y + v * kLanes, Op::kHasPlace ? s + v * kLanes : s, size);
}

template <class D, class Op>
class Reducer {
 public:
  using Bits = typename D::Bits;

  explicit Reducer(const Geometry& g) : g_(g), e_(g, true), tables_(g, g.channels) {}

  // A row of windows. y, s and gate are that row's; s only if Op has places, gate may be null.
  void row(const Bits* x, const Bits* gate, int row, Bits* y, uint8_t* s) {
    tables_.start(row, [&](int h) SP_LAMBDA { return h * e_.pitch; });
    const int size_h = divisor(row * g_.stride_h - g_.pad_h, g_.kernel_h, g_.height, g_.pad_h);
    for (int col = 0; col < g_.cols; ++col) {
      const Table& table = tables_.at(col);
      const int64_t from = tables_.origin(col), to = col * e_.pixel;
      const int size = size_h * divisor(col * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width, g_.pad_w);
      for_channels<Op::kMostLanes, Op::kVectors>(e_.pixel, [&](auto lanes, auto many, int64_t c) SP_LAMBDA {
        reduce_places<D, Op, decltype(lanes)::value, decltype(many)::value>(x + from + c, table, size, y + to + c,
                                                                            Op::kHasPlace ? s + to + c : s);
      });
    }
    if (gate) close_gates<D>(gate, y, e_.out);
  }

 private:
  const Geometry& g_;
  const Extents e_;
  Tables tables_;
};

// ---- Spreading: what becomes of the windows of a place -----------------------------------------------------------------

template <class D>
inline typename D::Acc inverse(typename D::Acc count) {
  using Acc = typename D::Acc;
  return D::load(D::store(count == 0 ? Acc(0) : Acc(1) / count));
}

// Where values come from: 1 each, memory, memory behind gates; or sums in the making, of type Acc.
enum Values { kOnes, kOpen, kGated, kReady };

template <class D, Values kValues, int kLanes>
inline Vector<typename D::Acc, kLanes> load_values(const void* values, const typename D::Bits* gate, int64_t at) {
  using K = Vector<typename D::Key, kLanes>;
  using A = Vector<typename D::Acc, kLanes>;
  if constexpr (kValues == kOnes) {
    return A{} + 1;
  } else if constexpr (kValues == kReady) {
    return load_vector<A>(static_cast<const typename D::Acc*>(values) + at);
  } else {
    K value = load_vector<K>(static_cast<const typename D::Bits*>(values) + at);
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

// The values of one window at `count` places of one row: out[j * n + c] = v[c] where s[c] is `here` + j and the gate is open, else
// 0. Bits are moved, never computed with.
template <class D>
inline void move_switched(const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s, int here, int count,
                          typename D::Bits* out, int64_t n) {
  using Key = typename D::Key;
  for_channels<kWidest<Key>>(n, [&](auto lanes, auto many, int64_t c) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(many)::value;
    using K = Vector<Key, kLanes>;
    using P = Vector<PlaceOf<Key>, kLanes>;
    K value[kVectors], none{};
    P place[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      value[i] = load_vector<K>(v + c + i * kLanes);
      if (gate) value[i] = D::closed(load_vector<K>(gate + c + i * kLanes)) ? none : value[i];
      place[i] = load_switches<PlaceOf<Key>, kLanes>(s + c + i * kLanes);
    }
    for (int j = 0; j < count; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        const K moved = place[i] == PlaceOf<Key>(here + j) ? value[i] : none;
        std::memcpy(out + j * n + c + i * kLanes, &moved, sizeof(moved));
      }
    }
  });
}

template <class D>
class Spreader {
 public:
  using Bits = typename D::Bits;
  static constexpr bool kChecks = false;
  using Acc = typename D::Acc;

  // same_switch: s is one pixel's switches, for every window.
  Spreader(const Geometry& g, Mode mode, What what, bool same_switch)
      : g_(g), e_(g, true), mode_(mode), what_(what), same_switch_(same_switch), cover_(g) {
    moves_ = is_disjoint(g) && mode == kSwitch && (what == kSums || what == kNormalized);
    int most = 0;
    for (const Span rows : cover_.rows) most = std::max(most, rows.end - rows.begin);
    if (mode == kAverage) ready_.resize(most * e_.out), held_.assign(most, -1);
    for (const Span cols : cover_.cols) most_ = std::max(most_, most * (cols.end - cols.begin));
    at_.resize(most_), here_.resize(most_);
  }

  // A row of the plane. v, gate (may be null) and s are those of the image's first window, x (for kScaled) and out the row's.
  void row(const Bits* v, const Bits* gate, const uint8_t* s, int h, const Bits* x, Bits* out) {
    if (moves_) return move(v, gate, s, h, out);
    if (mode_ == kAverage) {
      for (int row = cover_.rows[h].begin; row < cover_.rows[h].end; ++row) divide(v, gate, row);
      return places<false, kReady, kPlain>(ready_.data(), nullptr, nullptr, h, x, out);
    }
    if (mode_ == kSum) {
      return gate ? places<false, kGated, kPlain>(v, gate, s, h, x, out) : places<false, kOpen, kPlain>(v, gate, s, h, x, out);
    }
    if (what_ == kCounts) return places<true, kOnes, kPlain>(v, gate, s, h, x, out);
    if (what_ == kScaled) return places<true, kOnes, kInputOverCount>(v, gate, s, h, x, out);
    if (what_ == kNormalized) {
      return gate ? places<true, kGated, kSumOverCount>(v, gate, s, h, x, out)
                  : places<true, kOpen, kSumOverCount>(v, gate, s, h, x, out);
    }
    return gate ? places<true, kGated, kPlain>(v, gate, s, h, x, out) : places<true, kOpen, kPlain>(v, gate, s, h, x, out);
  }

  // To be called between images.
  void forget() { std::fill(held_.begin(), held_.end(), -1); }

  const Cover& cover() const { return cover_; }

 private:
  // One row of windows, each value over its window's size; kept while places need it.
  void divide(const Bits* v, const Bits* gate, int row) {
    const int slot = row % static_cast<int>(held_.size());
    if (held_[slot] == row) return;
    held_[slot] = row;
    const int size_h = divisor(row * g_.stride_h - g_.pad_h, g_.kernel_h, g_.height, g_.pad_h);
    for (int col = 0; col < g_.cols; ++col) {
      const Acc size = Acc(size_h * divisor(col * g_.stride_w - g_.pad_w, g_.kernel_w, g_.width, g_.pad_w));
      const int64_t at = row * e_.out + col * e_.pixel;
      Acc* to = ready_.data() + slot * e_.out + col * e_.pixel;
      for_channels<kWidest<Acc>>(e_.pixel, [&](auto lanes, auto many, int64_t c) SP_LAMBDA {
        constexpr int kLanes = decltype(lanes)::value;
        for (int i = 0; i < decltype(many)::value; ++i, c += kLanes) {
          const auto value = (gate ? load_values<D, kGated, kLanes>(v, gate, at + c)
                                   : load_values<D, kOpen, kLanes>(v, gate, at + c)) / size;
          std::memcpy(to + c, &value, sizeof(value));
        }
      });
    }
  }

  // Where no place is covered twice: window by window.
  void move(const Bits* v, const Bits* gate, const uint8_t* s, int h, Bits* out) const {
    const Span rows = cover_.rows[h];
    if (rows.end <= rows.begin) return std::fill_n(out, e_.pitch, Bits(0)), void();
    const int high = (h - rows.begin * g_.stride_h + g_.pad_h) * g_.kernel_w;
    for (int w = 0; w < g_.width;) {
      const Span cols = cover_.cols[w];
      if (cols.end <= cols.begin) {
        std::fill_n(out + w++ * e_.pixel, e_.pixel, Bits(0));
        continue;
      }
      const int first = w - cols.begin * g_.stride_w + g_.pad_w, count = std::min(g_.kernel_w - first, g_.width - w);
      const int64_t at = rows.begin * e_.out + cols.begin * e_.pixel;
      const uint8_t* place = s + (same_switch_ ? 0 : at);
      move_switched<D>(v + at, gate ? gate + at : gate, place, high + first, count, out + w * e_.pixel, e_.pixel);
      w += count;
    }
  }

  template <bool kSwitched, Values kValues, Finish kFinish>
  void places(const void* v, const Bits* gate, const uint8_t* s, int h, const Bits* x, Bits* out) {
    const Span rows = cover_.rows[h];
    for (int w = 0; w < g_.width; ++w, out += e_.pixel) {
      const Span cols = cover_.cols[w];
      int count = 0;
      for (int row = rows.begin; row < rows.end; ++row) {
        const int64_t line = (kValues == kReady ? row % static_cast<int>(held_.size()) : row) * e_.out;
        const int high = (h - row * g_.stride_h + g_.pad_h) * g_.kernel_w;
        for (int col = cols.begin; col < cols.end; ++col, ++count) {
          at_[count] = line + col * e_.pixel;
          here_[count] = high + w - col * g_.stride_w + g_.pad_w;
        }
      }
      if (count == 0) {
        std::fill(out, out + e_.pixel, Bits(0));
      } else {
        const int64_t pixel = w * e_.pixel;
        for_channels<kWidest<Acc>>(e_.pixel, [&](auto lanes, auto many, int64_t c) SP_LAMBDA {
          meet<kSwitched, kValues, kFinish, decltype(lanes)::value, decltype(many)::value>(v, gate, s, count, c,
                                                                                          x + pixel + c, out + c);
        });
      }
    }
  }

  template <bool kSwitched, Values kValues, Finish kFinish, int kLanes, int kVectors>
  void meet(const void* v, const Bits* gate, const uint8_t* s, int count, int64_t c, const Bits* x, Bits* out) const {
    using A = Vector<Acc, kLanes>;
    A sum[kVectors] = {}, number[kVectors] = {}, none{}, one = none + 1;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) prefetch_line<kLanes>(out, i);
    for (int k = 0; k < count; ++k) {
      const int64_t at = at_[k] + c;
      const uint8_t* place = s + (same_switch_ ? c : at);
      const PlaceOf<Acc> here = here_[k];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        const A value = load_values<D, kValues, kLanes>(v, gate, at + i * kLanes);
        if constexpr (kSwitched) {
          const auto hit = load_switches<PlaceOf<Acc>, kLanes>(place + i * kLanes) == here;
          if (kFinish != kInputOverCount) sum[i] += hit ? value : none;
          if (kFinish != kPlain) number[i] += hit ? one : none;
        } else {
          sum[i] += value;
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) finish<D, kFinish, kLanes>(sum[i], number[i], x + i * kLanes, out + i * kLanes);
  }

  const Geometry& g_;
  const Extents e_;
  const Mode mode_;
  const What what_;
  const bool same_switch_;
  const Cover cover_;
  bool moves_;
  int most_ = 0;
  std::vector<int64_t> at_;
  std::vector<int> here_;
  std::vector<Acc> ready_;
  std::vector<int> held_;
};

// ---- Reading at switches -----------------------------------------------------------------------------------------------

// The last kernel_h rows of a plane, each place over the number of windows that name it. Counter: a spreader.
template <class D, class Counter>
class ScaledRows {
 public:
  using Bits = typename D::Bits;

  ScaledRows(const Geometry& g, int64_t pitch, bool same_switch)
      : counter_(g, kSwitch, kScaled, same_switch), pitch_(pitch), rows_(g.kernel_h * pitch), held_(g.kernel_h, -1) {}

  // Where in data() row h of the plane is. x and s are the image's.
  int64_t at(const Bits* x, const uint8_t* s, int h) {
    const int slot = h % static_cast<int>(held_.size());
    if (held_[slot] != h) counter_.row(nullptr, nullptr, s, h, x + h * pitch_, rows_.data() + slot * pitch_);
    held_[slot] = h;
    return slot * pitch_;
  }
  const Bits* data() const { return rows_.data(); }

  // To be called between images.
  void forget() { std::fill(held_.begin(), held_.end(), -1); }

 private:
  Counter counter_;
  const int64_t pitch_;
  std::vector<Bits> rows_;
  std::vector<int> held_;
};

// x at the switches of kVectors vectors of windows or channels that lie side by side. Bits are moved, never computed with.
template <class Bits, int kLanes, int kVectors>
inline void select_places(const Bits* x, const Table& t, const uint8_t* s, Bits* y) {
  using Lane = PlaceOf<Bits>;
  using V = Vector<Lane, kLanes>;
  V value[kVectors] = {}, place[kVectors];
  for (int v = 0; v < kVectors; ++v) place[v] = load_switches<Lane, kLanes>(s + v * kLanes);
  for (int i = 0; i < t.count(); ++i) {
    const Bits* from = x + t.offset[i];
    const Lane here = t.place[i];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      prefetch_line<kLanes>(from, v);
      value[v] = place[v] == here ? load_vector<V>(from + v * kLanes) : value[v];
    }
  }
  std::memcpy(y, value, sizeof(value));
}

template <class D>
class Selector {
 public:
  using Bits = typename D::Bits;

  Selector(const Geometry& g, bool normalized, bool same_switch)
      : g_(g), e_(g, true), same_switch_(same_switch), tables_(g, g.channels) {
    // Where no place is covered twice, a place that is read was named once.
    if (normalized && !is_disjoint(g)) scaled_.reset(new ScaledRows<D, Spreader<D>>(g, e_.pitch, same_switch));
  }

  // A row of windows. x and s are the image's, gate (may be null) and y the row's.
  void row(const Bits* x, const uint8_t* s, const Bits* gate, int row, Bits* y) {
    tables_.start(row, [&](int h) SP_LAMBDA { return scaled_ ? scaled_->at(x, s, h) : h * e_.pitch; });
    if (scaled_) x = scaled_->data();
    const uint8_t* at = s + (same_switch_ ? 0 : row * e_.out);
    for (int col = 0; col < g_.cols; ++col) {
      const Table& table = tables_.at(col);
      const int64_t from = tables_.origin(col), to = col * e_.pixel;
      const uint8_t* place = at + (same_switch_ ? 0 : to);
      for_channels<kWidest<Bits>>(e_.pixel, [&](auto lanes, auto many, int64_t c) SP_LAMBDA {
        select_places<Bits, decltype(lanes)::value, decltype(many)::value>(x + from + c, table, place + c, y + to + c);
      });
    }
    if (gate) close_gates<D>(gate, y, e_.out);
  }

  // To be called between images.
  void forget() {
    if (scaled_) scaled_->forget();
  }

 private:
  const Geometry& g_;
  const Extents e_;
  const bool same_switch_;
  Tables tables_;
  std::unique_ptr<ScaledRows<D, Spreader<D>>> scaled_;
};

}  // namespace SP_ISA
}  // namespace switch_pool
