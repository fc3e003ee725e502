// The CPU kernels over raw pointers. dispatch.cpp includes this file once for each instruction set, inside a region that makes the
// compiler target it; SP_ISA is the namespace, SP_BYTES the width of its vectors, SP_STREAM whether it writes past the
// caches, SP_LAMBDA what gives lambdas the target, which they do not inherit from the region.
//
// There are two ways to walk: channel by channel side by side (channels.h), for every window, and along the rows of a plane
// (rows.h), for the windows that are worth it. NCHW under other windows is turned, some planes at a time, so that
// the planes lie side by side as channels do.

#include "vectors.h"
#include "windows.h"
#include "output.h"
#include "channels.h"
#include "rows.h"

namespace switch_pool {
namespace SP_ISA {

// ---- Row after row: units are rows of the result -----------------------------------------------------------------------

template <class D, class Rows>
void reduce_rows(Rows rows, const Geometry& g, bool channels_last, const void* x_, const void* gate_, void* y_, uint8_t* s,
                 bool stream, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const auto* gate = static_cast<const Bits*>(gate_);
  Sink<Bits> y_sink(static_cast<Bits*>(y_) + begin * e.out, e.out, stream);
  Sink<uint8_t> s_sink(s ? s + begin * e.out : s, e.out, stream && s);
  for (int64_t unit = begin; unit < end; ++unit) {
    const Bits* x = static_cast<const Bits*>(x_) + unit / g.rows * e.plane;
    Bits* y = y_sink.reserve(e.out);
    rows.row(x, gate ? gate + unit * e.out : gate, static_cast<int>(unit % g.rows), y, s ? s_sink.reserve(e.out) : s);
  }
}

template <class D, class Rows>
bool spread_rows(Rows rows, const Geometry& g, Mode mode, bool channels_last, const void* v_, const void* gate_,
                 const uint8_t* s_, int fixed, void* out, bool stream, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const Switches switches(s_, fixed, e.out);
  const auto* v = static_cast<const Bits*>(v_);
  const auto* gate = static_cast<const Bits*>(gate_);
  Sink<Bits> sink(static_cast<Bits*>(out) + begin * e.pitch, e.pitch, stream);
  const Cover& cover = rows.cover();
  bool valid = true;
  for (int64_t unit = begin, last = -1; unit < end; ++unit) {
    const int h = static_cast<int>(unit % g.height);
    const int64_t image = unit / g.height, at = image * g.rows * e.out;
    const uint8_t* s = switches.at(at);
    if (image != last) rows.forget();
    last = image;
    if (s_ && mode == kSwitch) valid &= first_reads_are_valid(g, cover, s, h, e);
    rows.row(v ? v + at : v, gate ? gate + at : gate, s, h, nullptr, sink.reserve(e.pitch));
  }
  return valid;
}

template <class D, class Rows>
bool select_rows(Rows rows, const Geometry& g, bool channels_last, const void* x, const uint8_t* s_, int fixed,
                 const void* gate_, void* y, bool stream, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, channels_last);
  const Switches switches(s_, fixed, e.out);
  const auto* gate = static_cast<const Bits*>(gate_);
  Sink<Bits> sink(static_cast<Bits*>(y) + begin * e.out, e.out, stream);
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  bool valid = true;
  for (int64_t unit = begin, last = -1; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const int64_t image = unit / g.rows;
    const uint8_t* s = switches.at(image * g.rows * e.out);
    if (image != last) rows.forget();
    last = image;
    if (s_) valid &= row_is_valid(g, full, s + row * e.out, row, e.pixel);
    rows.row(static_cast<const Bits*>(x) + image * e.plane, s, gate ? gate + unit * e.out : gate, row, sink.reserve(e.out));
  }
  return valid;
}

// ---- Planes turned into channels: units are bands of rows of a group of planes -----------------------------------------

// Rows of some planes side by side, as the walk over channels sees them.
template <class T>
class Turned {
 public:
  // rows, cols: of a whole plane; most: rows held at once.
  Turned(const Layout& layout, int64_t rows, int64_t cols, int64_t most, T unused)
      : group_(layout.group), plane_(rows * cols), cols_(cols), unused_(unused), buffer_(most * cols * group_, unused) {}

  // Rows of `planes` planes, the first at `from`; the rest of the group is unused.
  void load(const T* from, int64_t planes, Span rows) {
    first_ = rows.begin;
    if (planes < group_) std::fill(buffer_.begin(), buffer_.end(), unused_);
    turn(from + rows.begin * cols_, plane_, planes, (rows.end - rows.begin) * cols_, buffer_.data(), group_);
  }
  void place(Span rows) { first_ = rows.begin; }
  void store(T* to, int64_t planes, Span rows) const {
    turn(buffer_.data(), group_, (rows.end - rows.begin) * cols_, planes, to + rows.begin * cols_, plane_);
  }
  // Row `row` of the planes; row 0 may lie before the buffer.
  T* row(int64_t row) { return buffer_.data() + (row - first_) * cols_ * group_; }

 private:
  const int64_t group_, plane_, cols_;
  const T unused_;
  int64_t first_ = 0;
  std::vector<T> buffer_;
};

// What one unit does.
struct Unit {
  int64_t plane, planes;  // the first, and how many
  Span rows;              // of the result

  Unit(const Geometry& g, const Layout& layout, int height, int64_t unit)
      : plane(unit / layout.bands * layout.group),
        planes(std::min<int64_t>(layout.group, g.batch * g.channels - plane)),
        rows{static_cast<int>(unit % layout.bands) * layout.band, 0} {
    rows.end = std::min(height, rows.begin + layout.band);
  }
};

inline Geometry group_geometry(const Geometry& g, const Layout& layout) {
  Geometry group = g;
  group.batch = 1, group.channels = layout.group;
  return group;
}

// The rows of the plane under some rows of windows.
inline Span rows_under(const Geometry& g, Span windows) {
  const int begin = std::max(0, windows.begin * g.stride_h - g.pad_h);
  const int end = std::min(g.height, (windows.end - 1) * g.stride_h - g.pad_h + g.kernel_h);
  return {begin, std::max(begin, end)};
}

// The rows of windows over some rows of the plane.
inline Span rows_over(const Cover& cover, Span rows) {
  const int begin = cover.rows[rows.begin].begin;
  return {begin, std::max(begin, cover.rows[rows.end - 1].end)};
}

template <class D, class Op>
void reduce_turned(const Geometry& g, const Layout& layout, const void* x_, const void* gate_, void* y_, uint8_t* s,
                   int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Geometry group = group_geometry(g, layout);
  const int64_t plane = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  Turned<Bits> x(layout, g.height, g.width, std::min<int64_t>(g.height, layout.band * g.stride_h + g.kernel_h), 0);
  Turned<Bits> y(layout, g.rows, g.cols, layout.band, 0), gate(layout, g.rows, g.cols, gate_ ? layout.band : 0, 0);
  Turned<uint8_t> at(layout, g.rows, g.cols, s ? layout.band : 0, kNone);
  Reducer<D, Op> rows(group);
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.rows, i);
    const int64_t first = unit.plane * windows;
    x.load(static_cast<const Bits*>(x_) + unit.plane * plane, unit.planes, rows_under(g, unit.rows));
    if (gate_) gate.load(static_cast<const Bits*>(gate_) + first, unit.planes, unit.rows);
    y.place(unit.rows), at.place(unit.rows);
    for (int row = unit.rows.begin; row < unit.rows.end; ++row) {
      rows.row(x.row(0), gate_ ? gate.row(row) : nullptr, row, y.row(row), s ? at.row(row) : nullptr);
    }
    y.store(static_cast<Bits*>(y_) + first, unit.planes, unit.rows);
    if (s) at.store(s + first, unit.planes, unit.rows);
  }
}

template <class D>
bool spread_turned(const Geometry& g, Mode mode, What what, const Layout& layout, const void* v_, const void* gate_,
                   const uint8_t* s_, int fixed, void* out_, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Geometry group = group_geometry(g, layout);
  const Extents e(group, true);
  const int64_t plane = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  const int64_t most = std::min<int64_t>(g.rows, (layout.band + g.kernel_h) / g.stride_h + 2);
  Turned<Bits> v(layout, g.rows, g.cols, v_ ? most : 0, 0), gate(layout, g.rows, g.cols, gate_ ? most : 0, 0);
  Turned<uint8_t> s(layout, g.rows, g.cols, s_ ? most : 0, kNone);
  Turned<Bits> out(layout, g.height, g.width, layout.band, 0);
  const Switches same(s_, fixed, e.pixel);
  Spreader<D> rows(group, mode, what, !s_);
  bool valid = true;
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.height, i);
    const Span over = rows_over(rows.cover(), unit.rows);
    const int64_t first = unit.plane * windows;
    if (v_) v.load(static_cast<const Bits*>(v_) + first, unit.planes, over);
    if (gate_) gate.load(static_cast<const Bits*>(gate_) + first, unit.planes, over);
    if (s_) s.load(s_ + first, unit.planes, over);
    out.place(unit.rows);
    rows.forget();
    for (int h = unit.rows.begin; h < unit.rows.end; ++h) {
      const uint8_t* at = s_ ? s.row(0) : same.at(0);
      if (s_ && mode == kSwitch) valid &= first_reads_are_valid(group, rows.cover(), at, h, e);
      rows.row(v_ ? v.row(0) : nullptr, gate_ ? gate.row(0) : nullptr, at, h, nullptr, out.row(h));
    }
    out.store(static_cast<Bits*>(out_) + unit.plane * plane, unit.planes, unit.rows);
  }
  return valid;
}

template <class D>
bool select_turned(const Geometry& g, bool normalized, const Layout& layout, const void* x_, const uint8_t* s_, int fixed,
                   const void* gate_, void* y_, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Geometry group = group_geometry(g, layout);
  const Extents e(group, true);
  const Cover cover(g);
  const int64_t plane = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  const int64_t under = std::min<int64_t>(g.height, layout.band * g.stride_h + g.kernel_h);
  // Normalized: also the windows that share places with those of the band.
  const int64_t over = std::min<int64_t>(g.rows, (under + g.kernel_h) / g.stride_h + 2);
  Turned<Bits> x(layout, g.height, g.width, under, 0), y(layout, g.rows, g.cols, layout.band, 0);
  Turned<Bits> gate(layout, g.rows, g.cols, gate_ ? layout.band : 0, 0);
  Turned<uint8_t> s(layout, g.rows, g.cols, s_ ? over : 0, kNone);
  const Switches same(s_, fixed, e.pixel);
  Selector<D> rows(group, normalized, !s_);
  bool valid = true;
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.rows, i);
    const Span below = rows_under(g, unit.rows);
    Span above = unit.rows;
    if (normalized && below.end > below.begin) {
      const Span shared = rows_over(cover, below);
      above = {std::min(above.begin, shared.begin), std::max(above.end, shared.end)};
    }
    const int64_t first = unit.plane * windows;
    x.load(static_cast<const Bits*>(x_) + unit.plane * plane, unit.planes, below);
    if (gate_) gate.load(static_cast<const Bits*>(gate_) + first, unit.planes, unit.rows);
    if (s_) s.load(s_ + first, unit.planes, above);
    y.place(unit.rows);
    rows.forget();
    for (int row = unit.rows.begin; row < unit.rows.end; ++row) {
      const uint8_t* at = s_ ? s.row(0) : same.at(0);
      if (s_) valid &= row_is_valid(group, cover.full, at + row * e.out, row, e.pixel);
      rows.row(x.row(0), at, gate_ ? gate.row(row) : nullptr, row, y.row(row));
    }
    y.store(static_cast<Bits*>(y_) + first, unit.planes, unit.rows);
  }
  return valid;
}

// ---- The table of this instruction set ---------------------------------------------------------------------------------

template <class D, class Op>
void reduce(const Geometry& g, const Layout& layout, const void* x, const void* gate, void* y, uint8_t* s, bool stream,
            int64_t begin, int64_t end) {
  if (layout.group) return reduce_turned<D, Op>(g, layout, x, gate, y, s, begin, end);
  if (layout.channels_last) return reduce_rows<D>(Reducer<D, Op>(g), g, true, x, gate, y, s, stream, begin, end);
  if (g.kernel_h == 2) return reduce_rows<D>(RowReducer<D, Op, 2>(g), g, false, x, gate, y, s, stream, begin, end);
  reduce_rows<D>(RowReducer<D, Op, 3>(g), g, false, x, gate, y, s, stream, begin, end);
}

template <class D>
bool spread(const Geometry& g, Mode mode, What what, const Layout& layout, const void* v, const void* gate, const uint8_t* s,
            int fixed, void* out, bool stream, int64_t begin, int64_t end) {
  if (layout.group) return spread_turned<D>(g, mode, what, layout, v, gate, s, fixed, out, begin, end);
  if (layout.channels_last) {
    return spread_rows<D>(Spreader<D>(g, mode, what, !s), g, mode, true, v, gate, s, fixed, out, stream, begin, end);
  }
  return spread_rows<D>(RowSpreader<D>(g, mode, what, !s), g, mode, false, v, gate, s, fixed, out, stream, begin, end);
}

template <class D>
bool select(const Geometry& g, bool normalized, const Layout& layout, const void* x, const uint8_t* s, int fixed,
            const void* gate, void* y, bool stream, int64_t begin, int64_t end) {
  if (layout.group) return select_turned<D>(g, normalized, layout, x, s, fixed, gate, y, begin, end);
  if (layout.channels_last) {
    return select_rows<D>(Selector<D>(g, normalized, !s), g, true, x, s, fixed, gate, y, stream, begin, end);
  }
  if (g.kernel_h == 2) {
    return select_rows<D>(RowSelector<D, 2>(g, normalized, !s), g, false, x, s, fixed, gate, y, stream, begin, end);
  }
  return select_rows<D>(RowSelector<D, 3>(g, normalized, !s), g, false, x, s, fixed, gate, y, stream, begin, end);
}

template <class D>
bool reduces_rows(const Geometry& g) {
  return has_rows(g) && kWidest<typename D::Acc> >= 4;
}

template <class D>
Kernels kernels_of() {
  return {{reduce<D, Maximum<D, false>>, reduce<D, Maximum<D, true>>, reduce<D, Total<D, false>>, reduce<D, Total<D, true>>},
          spread<D>,
          select<D>,
          reduces_rows<D>,
          has_row_spreader<D>,
          has_row_selector<D>};
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
