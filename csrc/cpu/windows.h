// Where the CPU kernels' windows and planes meet. Part of kernels.h: included as often.

namespace switch_pool {
namespace SP_ISA {

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

// Sizes of the two sides, in elements: a pixel, a row of a plane, a plane, a row of windows.
struct Extents {
  int64_t pixel, pitch, plane, out;
  Extents(const Geometry& g, bool channels_last)
      : pixel(channels_last ? g.channels : 1), pitch(pixel * g.width), plane(pitch * g.height), out(pixel * g.cols) {}
};

inline bool is_square(const Geometry& g, int kernel, int stride) {
  return g.kernel_h == kernel && g.kernel_w == kernel && g.stride_h == stride && g.stride_w == stride;
}

// Whether no place is covered twice.
inline bool is_disjoint(const Geometry& g) { return g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w; }

// Whether n switches are from begin to end, or none.
inline bool all_within(const uint8_t* __restrict s, int64_t n, int begin, int end) {
  uint8_t stray = 0;
  const uint8_t first = static_cast<uint8_t>(begin), last = static_cast<uint8_t>(end - 1 - begin);
  for (int64_t i = 0; i < n; ++i) stray |= uint8_t(uint8_t(s[i] - first) > last) & uint8_t(s[i] != kNone);
  return stray == 0;
}

// Whether the switches of some rows of windows (`step` of them side by side: the channels) point into window and plane. `full`:
// the windows that are whole along the row. Rows of places of a window are ranges of switches; columns are not, but few
// windows are cut off there.
inline bool rows_are_valid(const Geometry& g, Span full, const uint8_t* s, Span rows, int64_t step) {
  const int64_t n = g.cols * step;
  bool valid = all_within(s, (rows.end - rows.begin) * n, 0, g.kernel_h * g.kernel_w);
  for (int row = rows.begin; row < rows.end; ++row) {
    const Span high = inside(row * g.stride_h - g.pad_h, g.kernel_h, g.height);
    if (high.begin == 0 && high.end == g.kernel_h) continue;
    valid &= all_within(s + (row - rows.begin) * n, n, high.begin * g.kernel_w, high.end * g.kernel_w);
  }
  for (int col = 0; col < g.cols; ++col) {
    if (col == full.begin) col = full.end;
    if (col >= g.cols) break;
    const Span wide = inside(col * g.stride_w - g.pad_w, g.kernel_w, g.width);
    bool outside[256] = {};
    for (int place = 0; place < g.kernel_h * g.kernel_w; ++place) {
      const int w = place % g.kernel_w;
      outside[place] = w < wide.begin || w >= wide.end;
    }
    for (int64_t i = col * step; i < (rows.end - rows.begin) * n; i += n) {
      for (int64_t c = 0; c < step; ++c) valid &= !outside[s[i + c]];
    }
  }
  return valid;
}

// The same of the rows of windows whose first row of the plane is h: where one is read first.
inline bool first_reads_are_valid(const Geometry& g, const Cover& cover, const uint8_t* s, int h, const Extents& e) {
  bool valid = true;
  for (int row = cover.rows[h].begin; row < cover.rows[h].end; ++row) {
    if (h == std::max(0, row * g.stride_h - g.pad_h)) valid &= rows_are_valid(g, cover.full, s + row * e.out, {row, row + 1}, e.pixel);
  }
  return valid;
}

// The switches from `index` on; where every window has the same switch there is one row of it.
struct Switches {
  const uint8_t* s;
  std::vector<uint8_t> same;
  Switches(const uint8_t* switches, int fixed, int64_t row) : s(switches), same(switches ? 0 : row, fixed) {}
  const uint8_t* at(int64_t index) const { return s ? s + index : same.data(); }
};

}  // namespace SP_ISA
}  // namespace switch_pool
