// The CPU kernels over raw pointers. dispatch.cpp includes this file once for each instruction set, inside a region that makes
// the compiler target it; SP_ISA is the namespace, SP_BYTES the width of its vectors, SP_LAMBDA what gives lambdas the target,
// which they do not inherit from the region.
//
// The files below hold the ways through one image or plane. Here are the loops over them, one for each Path.

#include "vectors.h"
#include "windows.h"
#include "channels.h"
#include "pairs.h"
#include "planes.h"

namespace switch_pool {
namespace SP_ISA {

// ---- Path::kRows: channels_last, units are rows of the result ----------------------------------------------------------

template <class D, class Op>
void reduce_rows(const Geometry& g, const void* x, const void* gate_, void* y, uint8_t* s, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, true);
  const auto* gate = static_cast<const Bits*>(gate_);
  Reducer<D, Op> rows(g);
  for (int64_t unit = begin; unit < end; ++unit) {
    rows.row(static_cast<const Bits*>(x) + unit / g.rows * e.plane, gate ? gate + unit * e.out : gate,
             static_cast<int>(unit % g.rows), static_cast<Bits*>(y) + unit * e.out, s ? s + unit * e.out : s);
  }
}

// Rows: a Spreader, or a ChannelSpreader, which looks at the switches itself.
template <class D, class Rows>
bool spread_rows(Rows rows, const Geometry& g, Mode mode, const void* v_, const void* gate_, const uint8_t* s_, int fixed,
                 void* out, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, true);
  const Switches switches(s_, fixed, e.out);
  const auto* v = static_cast<const Bits*>(v_);
  const auto* gate = static_cast<const Bits*>(gate_);
  const Cover& cover = rows.cover();
  bool valid = true;
  for (int64_t unit = begin, last = -1; unit < end; ++unit) {
    const int h = static_cast<int>(unit % g.height);
    const int64_t image = unit / g.height, at = image * g.rows * e.out;
    const uint8_t* s = switches.at(at);
    if (image != last) rows.forget();
    last = image;
    if (!Rows::kChecks && s_ && mode == kSwitch) valid &= first_reads_are_valid(g, cover, s, h, e);
    rows.row(v ? v + at : v, gate ? gate + at : gate, s, h, nullptr, static_cast<Bits*>(out) + unit * e.pitch);
  }
  if constexpr (Rows::kChecks) valid &= rows.valid();
  return valid;
}

template <class D>
bool select_rows(const Geometry& g, bool normalized, const void* x, const uint8_t* s_, int fixed, const void* gate_, void* y,
                 int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const Extents e(g, true);
  const Switches switches(s_, fixed, e.out);
  const auto* gate = static_cast<const Bits*>(gate_);
  const Span full = whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols);
  Selector<D> rows(g, normalized, !s_);
  bool valid = true;
  for (int64_t unit = begin, last = -1; unit < end; ++unit) {
    const int row = static_cast<int>(unit % g.rows);
    const int64_t image = unit / g.rows;
    const uint8_t* s = switches.at(image * g.rows * e.out);
    if (image != last) rows.forget();
    last = image;
    if (s_) valid &= rows_are_valid(g, full, s + row * e.out, {row, row + 1}, e.pixel);
    rows.row(static_cast<const Bits*>(x) + image * e.plane, s, gate ? gate + unit * e.out : gate, row,
             static_cast<Bits*>(y) + unit * e.out);
  }
  return valid;
}

// ---- Path::kTurned: planes turned into channels, units are bands of rows of a group of planes ---------------------------

// Rows of some planes side by side, as the walk over channels sees them.
template <class T>
class Turned {
 public:
  // rows, cols: of a whole plane; most: rows held at once.
  Turned(const Layout& layout, int64_t rows, int64_t cols, int64_t most, T unused)
      : group_(layout.group),
        plane_(rows * cols),
        cols_(cols),
        whole_(layout.bands == 1),
        unused_(unused),
        buffer_(most * cols * group_, unused) {}

  // Rows of `planes` planes, the first at `from`; the rest of the group is unused.
  void load(const T* from, int64_t planes, Span rows) {
    first_ = rows.begin;
    if (planes < group_) std::fill(buffer_.begin(), buffer_.end(), unused_);
    turn(from + rows.begin * cols_, plane_, planes, (rows.end - rows.begin) * cols_, buffer_.data(), group_, {to_next(rows), 0});
  }
  void place(Span rows) { first_ = rows.begin; }
  void store(T* to, int64_t planes, Span rows) const {
    turn(buffer_.data(), group_, (rows.end - rows.begin) * cols_, planes, to + rows.begin * cols_, plane_, {0, to_next(rows)});
  }
  // Row `row` of the planes; row 0 may lie before the buffer.
  T* row(int64_t row) { return buffer_.data() + (row - first_) * cols_ * group_; }

 private:
  // How far the next unit's rows are from these.
  int64_t to_next(Span rows) const { return whole_ ? group_ * plane_ : (rows.end - rows.begin) * cols_; }

  const int64_t group_, plane_, cols_;
  const bool whole_;  // bands are whole planes
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
      if (s_) valid &= rows_are_valid(group, cover.full, at + row * e.out, {row, row + 1}, e.pixel);
      rows.row(x.row(0), at, gate_ ? gate.row(row) : nullptr, row, y.row(row));
    }
    y.store(static_cast<Bits*>(y_) + first, unit.planes, unit.rows);
  }
  return valid;
}

// ---- Path::kPairs: units are bands of rows of windows of a few planes ---------------------------------------------------

// Calls run(plane, rows) for the planes and rows of windows of some units.
template <class Run>
inline void for_bands(const Geometry& g, const Layout& layout, int64_t begin, int64_t end, const Run& run) {
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.rows, i);
    for (int64_t plane = unit.plane; plane < unit.plane + unit.planes; ++plane) run(plane, unit.rows);
  }
}

template <class D, class Op>
void reduce_bands(const Geometry& g, const Layout& layout, const void* x, const void* gate_, void* y, uint8_t* s,
                  int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const int64_t size = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  const auto* gate = static_cast<const Bits*>(gate_);
  for_bands(g, layout, begin, end, [&](int64_t plane, Span rows) SP_LAMBDA {
    const int64_t first = plane * windows + rows.begin * static_cast<int64_t>(g.cols);
    reduce_pairs<D, Op>(g, static_cast<const Bits*>(x) + plane * size, gate ? gate + first : gate, rows,
                        static_cast<Bits*>(y) + first, s ? s + first : s);
  });
}

template <class D>
bool spread_bands(const Geometry& g, const Layout& layout, const void* v, const void* gate_, const uint8_t* s, int fixed,
                  void* out, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const int64_t size = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  const auto* gate = static_cast<const Bits*>(gate_);
  const Span full = whole(g.width, 2, 2, 0, g.cols);
  const Switches switches(s, fixed, g.cols);
  bool valid = true;
  for_bands(g, layout, begin, end, [&](int64_t plane, Span rows) SP_LAMBDA {
    const int64_t first = plane * windows + rows.begin * static_cast<int64_t>(g.cols);
    const uint8_t* at = switches.at(first);
    if (s) valid &= rows_are_valid(g, full, at, rows, 1);
    spread_pairs<D>(g, static_cast<const Bits*>(v) + first, gate ? gate + first : gate, at, !s, rows,
                    static_cast<Bits*>(out) + plane * size);
  });
  return valid;
}

template <class D>
bool select_bands(const Geometry& g, const Layout& layout, const void* x, const uint8_t* s, int fixed, const void* gate_,
                  void* y, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const int64_t size = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  const auto* gate = static_cast<const Bits*>(gate_);
  const Span full = whole(g.width, 2, 2, 0, g.cols);
  const Switches switches(s, fixed, g.cols);
  bool valid = true;
  for_bands(g, layout, begin, end, [&](int64_t plane, Span rows) SP_LAMBDA {
    const int64_t first = plane * windows + rows.begin * static_cast<int64_t>(g.cols);
    const uint8_t* at = switches.at(first);
    if (s) valid &= rows_are_valid(g, full, at, rows, 1);
    select_pairs<D>(g, static_cast<const Bits*>(x) + plane * size, gate ? gate + first : gate, at, !s, rows,
                    static_cast<Bits*>(y) + first);
  });
  return valid;
}

// ---- Path::kWindows: units are bands of rows of a few planes -----------------------------------------------------------

template <class D>
bool spread_windows(const Geometry& g, What what, const Layout& layout, const void* v_, const void* gate_, const uint8_t* s,
                    void* out, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const int64_t plane = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  PlaneSpreader<D> planes(g, what, layout.group, layout.band, layout.bands == 1);
  const auto* v = static_cast<const Bits*>(v_);
  const auto* gate = static_cast<const Bits*>(gate_);
  bool valid = true;
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.height, i);
    const int64_t first = unit.plane * windows;
    valid &= planes.unit(v ? v + first : v, gate ? gate + first : gate, s + first, static_cast<int>(unit.planes),
                         rows_over(planes.cover(), unit.rows), unit.rows, static_cast<Bits*>(out) + unit.plane * plane);
  }
  return valid;
}

template <class D>
bool select_windows(const Geometry& g, bool normalized, const Layout& layout, const void* x, const uint8_t* s, const void* gate_,
                    void* y, int64_t begin, int64_t end) {
  using Bits = typename D::Bits;
  const int64_t size = static_cast<int64_t>(g.height) * g.width, windows = static_cast<int64_t>(g.rows) * g.cols;
  PlaneSelector<D> planes(g, normalized, layout.group, layout.band);
  const auto* gate = static_cast<const Bits*>(gate_);
  bool valid = true;
  for (int64_t i = begin; i < end; ++i) {
    const Unit unit(g, layout, g.rows, i);
    for (int64_t plane = unit.plane, last = unit.plane + unit.planes; plane < last; plane += planes.together()) {
      const int64_t first = plane * windows, count = std::min<int64_t>(planes.together(), last - plane);
      valid &= planes.unit(static_cast<const Bits*>(x) + plane * size, gate ? gate + first : gate, s + first,
                           static_cast<int>(count), unit.rows, static_cast<Bits*>(y) + first);
    }
  }
  return valid;
}

// ---- The table of this instruction set ---------------------------------------------------------------------------------

template <class D, class Op>
void reduce(const Geometry& g, const Layout& layout, const void* x, const void* gate, void* y, uint8_t* s, int64_t begin,
            int64_t end) {
  switch (layout.path) {
    case Path::kPairs:
      return reduce_bands<D, Op>(g, layout, x, gate, y, s, begin, end);
    case Path::kTurned:
      return reduce_turned<D, Op>(g, layout, x, gate, y, s, begin, end);
    default:
      return reduce_rows<D, Op>(g, x, gate, y, s, begin, end);
  }
}

template <class D>
bool spread(const Geometry& g, Mode mode, What what, const Layout& layout, const void* v, const void* gate, const uint8_t* s,
            int fixed, void* out, int64_t begin, int64_t end) {
  switch (layout.path) {
    case Path::kPairs:
      return spread_bands<D>(g, layout, v, gate, s, fixed, out, begin, end);
    case Path::kTurned:
      return spread_turned<D>(g, mode, what, layout, v, gate, s, fixed, out, begin, end);
    case Path::kWindows:
      if (layout.channels_last) {
        return spread_rows<D>(ChannelSpreader<D>(g, what), g, mode, v, gate, s, fixed, out, begin, end);
      }
      return spread_windows<D>(g, what, layout, v, gate, s, out, begin, end);
    default:
      return spread_rows<D>(Spreader<D>(g, mode, what, !s), g, mode, v, gate, s, fixed, out, begin, end);
  }
}

template <class D>
bool select(const Geometry& g, bool normalized, const Layout& layout, const void* x, const uint8_t* s, int fixed,
            const void* gate, void* y, int64_t begin, int64_t end) {
  switch (layout.path) {
    case Path::kPairs:
      return select_bands<D>(g, layout, x, s, fixed, gate, y, begin, end);
    case Path::kTurned:
      return select_turned<D>(g, normalized, layout, x, s, fixed, gate, y, begin, end);
    case Path::kWindows:
      return select_windows<D>(g, normalized, layout, x, s, gate, y, begin, end);
    default:
      return select_rows<D>(g, normalized, x, s, fixed, gate, y, begin, end);
  }
}

template <class D>
Kernels kernels_of() {
  return {{reduce<D, Maximum<D, false>>, reduce<D, Maximum<D, true>>, reduce<D, Total<D, false>>, reduce<D, Total<D, true>>},
          spread<D>,
          select<D>,
          kWidest<typename D::Acc> >= 4};
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
