// 2x2 and 3x3 windows of stride 2 along the rows of one plane (NCHW), where a row is long enough for vectors: see has_rows. Part
// of kernels.h: included as often. Neighbours have to change lanes, so GNU vectors say how.

namespace switch_pool {
namespace SP_ISA {

// Whether the windows of a row are enough for vectors, and for less work than turning the planes.
inline bool has_rows(const Geometry& g) {
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  const int count = full.end - full.begin;
  return (is_square(g, 2, 2) && count >= 8) || (is_square(g, 3, 2) && count >= 16);
}

// ---- Reading windows ---------------------------------------------------------------------------------------------------

// One line of kLanes windows side by side: calls take(values, place) for each of their kSide places.
template <class T, int kSide, int kLanes, class Take>
inline void read_line(const T* line, int place, const Take& take) {
  Vector<T, kLanes> first, second, third;
  prefetch(line);
  load_split<T, kLanes>(line, first, second);
  take(first, place);
  // From one element on, so that no load reaches past the last window.
  if (kSide == 3) load_split<T, kLanes>(line + 1, second, third);
  take(second, place + 1);
  if (kSide == 3) take(third, place + 2);
}

template <class D, class Op, int kSide>
class RowReducer {
 public:
  using Bits = typename D::Bits;

  explicit RowReducer(const Geometry& g)
      : g_(g), full_(whole(g.width, kSide, 2, g.pad_w, g.cols)), clipped_(full_.end - full_.begin < g.cols), tables_(g, 1) {}

  // A row of windows. x is the plane's; y, s and gate the row's.
  void row(const Bits* x, const Bits* gate, int row, Bits* y, uint8_t* s) {
    const int h = row * 2 - g_.pad_h, size_h = divisor(h, kSide, g_.height, g_.pad_h);
    const Span high = inside(h, kSide, g_.height);
    const Bits* from = x + static_cast<int64_t>(h) * g_.width + full_.begin * 2 - g_.pad_w;
    for_vectors<Op::kMostLanes>(full_.end - full_.begin, [&](auto lanes, int64_t j) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      typename Op::template State<kLanes> state;
      const auto take = [&](Vector<typename D::Key, kLanes> value, int place) SP_LAMBDA { state.take(value, place); };
      const auto line = [&](int i) SP_LAMBDA {
        const auto* keys = reinterpret_cast<const typename D::Key*>(from + static_cast<int64_t>(i) * g_.width + 2 * j);
        read_line<typename D::Key, kSide, kLanes>(keys, i * kSide, take);
      };
      if (high.end - high.begin == kSide) {
        for (int i = 0; i < kSide; ++i) line(i);
      } else {
        for (int i = high.begin; i < high.end; ++i) line(i);
      }
      const int64_t col = full_.begin + j;
      state.finish(y + col, Op::kHasPlace ? s + col : s, size_h * kSide);
    });
    if (clipped_) tables_.start(row, [&](int i) SP_LAMBDA { return static_cast<int64_t>(i) * g_.width; });
    for (int col = 0; clipped_ && col < g_.cols; ++col) {
      if (col == full_.begin) col = full_.end;
      if (col >= g_.cols) break;
      const int size = size_h * divisor(col * 2 - g_.pad_w, kSide, g_.width, g_.pad_w);
      const Table& table = tables_.at(col);
      reduce_places<D, Op, 1, 1>(x + tables_.origin(col), table, size, y + col, Op::kHasPlace ? s + col : s);
    }
    if (gate) close_gates<D>(gate, y, g_.cols);
  }

 private:
  const Geometry& g_;
  const Span full_;
  const bool clipped_;
  Tables tables_;
};

// ---- Spreading ---------------------------------------------------------------------------------------------------------

// One row of a plane under 3x3 windows, stride 2, NCHW: even places meet two windows of each row of windows, odd places
// one. v and gate may be null as kValues says, x if kFinish does not need it.
template <class D, Values kValues, Finish kFinish>
inline void three_two(const Geometry& g, Span rows, const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s,
               int h, const typename D::Bits* x, typename D::Bits* out) {
  using Acc = typename D::Acc;
  const int n = g.cols;
  const auto line = [&](int row) SP_LAMBDA { return (h - row * 2 + g.pad_h) * 3; };
  // Window j meets places 2j and 2j + 1 of the padded row, window j - 1 place 2j.
  for_vectors<kWidest<Acc>>(n - 1, [&](auto lanes, int64_t j) SP_LAMBDA {
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
}

// A row of 2x2/2 windows side by side onto one of their two rows.
template <class D>
inline void move_pairs(const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s, int line,
                       typename D::Bits* out, int64_t n) {
  using Key = typename D::Key;
  for_vectors<kWidest<Key>>(n, [&](auto lanes, int64_t j) SP_LAMBDA {
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
}

// Whether RowSpreader does this.
template <class D>
inline bool has_row_spreader(const Geometry& g, Mode mode, What what, bool has_switches) {
  if (mode != kSwitch || kWidest<typename D::Acc> < 4 || g.cols < 16) return false;
  const bool pairs = is_square(g, 2, 2) && g.pad_h == 0 && g.pad_w == 0 && (what == kSums || what == kNormalized);
  return pairs || (is_square(g, 3, 2) && has_switches && g.width + g.pad_w >= 2 * g.cols);
}

template <class D>
class RowSpreader {
 public:
  using Bits = typename D::Bits;

  RowSpreader(const Geometry& g, Mode, What what, bool same_switch)
      : g_(g), what_(what), same_switch_(same_switch), cover_(g) {}

  // A row of the plane. v, gate (may be null) and s are those of the plane's first window, x (for kScaled) and out the row's.
  void row(const Bits* v, const Bits* gate, const uint8_t* s, int h, const Bits* x, Bits* out) const {
    if (g_.kernel_h == 2) return pairs(v, gate, s, h, out);
    const Span rows = cover_.rows[h];
    if (what_ == kCounts) return three_two<D, kOnes, kPlain>(g_, rows, v, gate, s, h, x, out);
    if (what_ == kScaled) return three_two<D, kOnes, kInputOverCount>(g_, rows, v, gate, s, h, x, out);
    if (what_ == kNormalized) {
      return gate ? three_two<D, kGated, kSumOverCount>(g_, rows, v, gate, s, h, x, out)
                  : three_two<D, kOpen, kSumOverCount>(g_, rows, v, gate, s, h, x, out);
    }
    return gate ? three_two<D, kGated, kPlain>(g_, rows, v, gate, s, h, x, out)
                : three_two<D, kOpen, kPlain>(g_, rows, v, gate, s, h, x, out);
  }

  void forget() {}
  const Cover& cover() const { return cover_; }

 private:
  void pairs(const Bits* v, const Bits* gate, const uint8_t* s, int h, Bits* out) const {
    const int row = h / 2, n = row < g_.rows ? std::min(g_.cols, g_.width / 2) : 0, line = h % 2 * 2;
    const int64_t at = static_cast<int64_t>(row) * g_.cols;
    const uint8_t* place = s + (same_switch_ ? 0 : at);
    move_pairs<D>(v + at, gate ? gate + at : gate, place, line, out, n);
    std::fill(out + 2 * n, out + g_.width, Bits(0));
    if (n < g_.cols && row < g_.rows && 2 * n < g_.width && place[n] == line) {
      out[2 * n] = gate && is_closed<D>(gate[at + n]) ? Bits(0) : v[at + n];
    }
  }

  const Geometry& g_;
  const What what_;
  const bool same_switch_;
  const Cover cover_;
};

// ---- Reading at switches -----------------------------------------------------------------------------------------------

// Whether RowSelector does this.
template <class D>
inline bool has_row_selector(const Geometry& g, bool normalized) {
  return has_rows(g) && kWidest<typename D::Acc> >= 4 &&
         (!normalized || is_disjoint(g) || has_row_spreader<D>(g, kSwitch, kScaled, true));
}

template <class D, int kSide>
class RowSelector {
 public:
  using Bits = typename D::Bits;

  RowSelector(const Geometry& g, bool normalized, bool same_switch)
      : g_(g),
        same_switch_(same_switch),
        full_(whole(g.width, kSide, 2, g.pad_w, g.cols)),
        clipped_(full_.end - full_.begin < g.cols),
        tables_(g, 1) {
    if (normalized && !is_disjoint(g)) scaled_.reset(new ScaledRows<D, RowSpreader<D>>(g, g.width, same_switch));
  }

  // A row of windows. x and s are the plane's, gate (may be null) and y the row's.
  void row(const Bits* x, const uint8_t* s, const Bits* gate, int row, Bits* y) {
    using Lane = PlaceOf<Bits>;
    const int h = row * 2 - g_.pad_h;
    const Span high = inside(h, kSide, g_.height);
    int64_t lines[kSide];
    for (int i = high.begin; i < high.end; ++i) lines[i] = scaled_ ? scaled_->at(x, s, h + i) : int64_t(h + i) * g_.width;
    if (scaled_) x = scaled_->data();
    const uint8_t* at = s + (same_switch_ ? 0 : static_cast<int64_t>(row) * g_.cols);
    for_vectors<kWidest<Bits>>(full_.end - full_.begin, [&](auto lanes, int64_t j) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      using V = Vector<Lane, kLanes>;
      const V place = load_switches<Lane, kLanes>(at + full_.begin + j);
      V value{};
      const auto take = [&](V x, int here) SP_LAMBDA { value = place == Lane(here) ? x : value; };
      const auto line = [&](int i) SP_LAMBDA {
        const Bits* from = x + lines[i] + (full_.begin + j) * 2 - g_.pad_w;
        read_line<Lane, kSide, kLanes>(reinterpret_cast<const Lane*>(from), i * kSide, take);
      };
      if (high.end - high.begin == kSide) {
        for (int i = 0; i < kSide; ++i) line(i);
      } else {
        for (int i = high.begin; i < high.end; ++i) line(i);
      }
      std::memcpy(y + full_.begin + j, &value, sizeof(value));
    });
    if (clipped_) tables_.start(row, [&](int i) SP_LAMBDA { return lines[i - h]; });
    for (int col = 0; clipped_ && col < g_.cols; ++col) {
      if (col == full_.begin) col = full_.end;
      if (col >= g_.cols) break;
      const Table& table = tables_.at(col);
      select_places<Bits, 1, 1>(x + tables_.origin(col), table, at + col, y + col);
    }
    if (gate) close_gates<D>(gate, y, g_.cols);
  }

  // To be called between planes.
  void forget() {
    if (scaled_) scaled_->forget();
  }

 private:
  const Geometry& g_;
  const bool same_switch_;
  const Span full_;
  const bool clipped_;
  Tables tables_;
  std::unique_ptr<ScaledRows<D, RowSpreader<D>>> scaled_;
};

}  // namespace SP_ISA
}  // namespace switch_pool
