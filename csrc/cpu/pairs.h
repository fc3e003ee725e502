// 2x2 windows of stride 2 without padding, along the rows of one plane (NCHW). Part of kernels.h: included as often. Neighbours have
// to change lanes, so GNU vectors say how.

namespace switch_pool {
namespace SP_ISA {

// One band of rows of windows. The last window of a row and the last row of windows may be cut off after their first place.
struct Pairs {
  const int64_t width, cols, full;  // full: windows that are whole along a row
  const int height;

  explicit Pairs(const Geometry& g)
      : width(g.width), cols(g.cols), full(std::min(g.cols, g.width / 2)), height(g.height) {}
  bool has_second_line(int row) const { return 2 * row + 1 < height; }
};

// The places 2j to 2j + 2 * kLanes of a line: calls take(values, place) for the left places and the right ones.
template <class T, int kLanes, class Take>
inline void take_line(const T* line, int place, const Take& take) {
  Vector<T, kLanes> left, right;
  prefetch(line);
  load_split<T, kLanes>(line, left, right);
  take(left, place);
  take(right, place + 1);
}

// x is the plane; gate, y and s are the windows of the first of the rows.
template <class D, class Op>
inline void reduce_pairs(const Geometry& g, const typename D::Bits* x, const typename D::Bits* gate, Span rows,
                         typename D::Bits* y, uint8_t* s) {
  using Key = typename D::Key;
  const Pairs pairs(g);
  const int64_t n = (rows.end - rows.begin) * pairs.cols;
  for (int row = rows.begin; row < rows.end; ++row) {
    const Key* line = reinterpret_cast<const Key*>(x) + 2 * row * pairs.width;
    typename D::Bits* to = y + (row - rows.begin) * pairs.cols;
    uint8_t* at = Op::kHasPlace ? s + (row - rows.begin) * pairs.cols : s;
    const bool second = pairs.has_second_line(row);
    for_vectors<Op::kMostLanes>(pairs.full, [&](auto lanes, int64_t j) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      typename Op::template State<kLanes> state;
      const auto take = [&](Vector<Key, kLanes> value, int place) SP_LAMBDA { state.take(value, place); };
      take_line<Key, kLanes>(line + 2 * j, 0, take);
      if (second) take_line<Key, kLanes>(line + pairs.width + 2 * j, 2, take);
      state.finish(to + j, Op::kHasPlace ? at + j : at, second ? 4 : 2);
    });
    if (pairs.full < pairs.cols) {
      const int64_t j = pairs.full;
      typename Op::template State<1> state;
      state.take(load_vector<Vector<Key, 1>>(line + 2 * j), 0);
      if (second) state.take(load_vector<Vector<Key, 1>>(line + pairs.width + 2 * j), 2);
      state.finish(to + j, Op::kHasPlace ? at + j : at, second ? 2 : 1);
    }
  }
  if (gate) close_gates<D>(gate, y, n);
}

// v and gate (may be null) are the windows of the first of the rows, s too unless same_switch: then it is one row's. out is the
// plane. After the last row of windows the plane is filled with 0.
template <class D>
inline void spread_pairs(const Geometry& g, const typename D::Bits* v, const typename D::Bits* gate, const uint8_t* s,
                         bool same_switch, Span rows, typename D::Bits* out) {
  using Bits = typename D::Bits;
  using Key = typename D::Key;
  const Pairs pairs(g);
  for (int row = rows.begin; row < rows.end; ++row) {
    Bits* first = out + 2 * row * pairs.width;
    Bits* second = pairs.has_second_line(row) ? first + pairs.width : nullptr;
    for_vectors<kWidest<Key>>(pairs.full, [&](auto lanes, int64_t j) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      using K = Vector<Key, kLanes>;
      using Place = PlaceOf<Key>;
      K value = load_vector<K>(v + j), none{}, a, b;
      if (gate) value = D::closed(load_vector<K>(gate + j)) ? none : value;
      const auto place = load_switches<Place, kLanes>(s + j);
      const auto store = [&](Bits* line, Place left) SP_LAMBDA {
        merge<Key, kLanes>(place == left ? value : none, place == Place(left + 1) ? value : none, a, b);
        std::memcpy(line + 2 * j, &a, sizeof(a));
        std::memcpy(line + 2 * j + kLanes, &b, sizeof(b));
      };
      store(first, 0);
      if (second) store(second, 2);
    });
    const int64_t j = pairs.full;
    std::fill(first + 2 * j, first + pairs.width, Bits(0));
    if (second) std::fill(second + 2 * j, second + pairs.width, Bits(0));
    if (j < pairs.cols) {
      const Bits value = gate && is_closed<D>(gate[j]) ? Bits(0) : v[j];
      if (s[j] == 0) first[2 * j] = value;
      if (s[j] == 2 && second) second[2 * j] = value;
    }
    v += pairs.cols;
    if (gate) gate += pairs.cols;
    if (!same_switch) s += pairs.cols;
  }
  if (rows.end == g.rows) {
    const int64_t from = std::min(g.height, 2 * g.rows) * pairs.width;
    std::fill(out + from, out + g.height * pairs.width, Bits(0));
  }
}

// x is the plane; gate (may be null) and y are the windows of the first of the rows, s too unless same_switch. Where the switch
// names a place outside the plane the result is 0.
template <class D>
inline void select_pairs(const Geometry& g, const typename D::Bits* x, const typename D::Bits* gate, const uint8_t* s,
                         bool same_switch, Span rows, typename D::Bits* y) {
  using Bits = typename D::Bits;
  using Lane = PlaceOf<Bits>;
  const Pairs pairs(g);
  Bits* to = y;
  for (int row = rows.begin; row < rows.end; ++row) {
    const Bits* line = x + 2 * row * pairs.width;
    const bool second = pairs.has_second_line(row);
    for_vectors<kWidest<Bits>>(pairs.full, [&](auto lanes, int64_t j) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      using V = Vector<Lane, kLanes>;
      const V place = load_switches<Lane, kLanes>(s + j);
      V value{};
      const auto take = [&](V read, int here) SP_LAMBDA { value = place == Lane(here) ? read : value; };
      take_line<Lane, kLanes>(reinterpret_cast<const Lane*>(line + 2 * j), 0, take);
      if (second) take_line<Lane, kLanes>(reinterpret_cast<const Lane*>(line + pairs.width + 2 * j), 2, take);
      std::memcpy(to + j, &value, sizeof(value));
    });
    if (pairs.full < pairs.cols) {
      const int64_t j = pairs.full;
      to[j] = s[j] == 0 ? line[2 * j] : s[j] == 2 && second ? line[pairs.width + 2 * j] : Bits(0);
    }
    to += pairs.cols;
    if (!same_switch) s += pairs.cols;
  }
  if (gate) close_gates<D>(gate, y, to - y);
}

}  // namespace SP_ISA
}  // namespace switch_pool
