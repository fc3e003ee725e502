// Pooling and unpooling at switches, window by window, one value at a time: a switch says where the value goes, so that nothing
// else is looked at. For NCHW, and for overlapping windows in channels_last. Part of kernels.h: included as often.
//
// A window without a winner adds 0 to a place, which changes no sum: sums start at 0, so none is -0.

namespace switch_pool {
namespace SP_ISA {

// The values of n windows, as they are added, and the number of values that each is; 0 where there is no winner, and where the
// gate is closed the value is 0 but counts. numbers may be null, values too if kValues is kOnes.
template <class D, Values kValues>
inline void prepare(const void* v, const typename D::Bits* gate, const uint8_t* s, int64_t n, typename D::Acc* values,
                    typename D::Acc* numbers) {
  using Acc = typename D::Acc;
  for_channels<kWidest<Acc>>(n, [&](auto lanes, auto many, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using A = Vector<Acc, kLanes>;
    const A none{}, one = none + 1;
    for (int i = 0; i < decltype(many)::value; ++i, j += kLanes) {
      const auto wins = load_switches<PlaceOf<Acc>, kLanes>(s + j) != PlaceOf<Acc>(kNone);
      const A value = wins ? load_values<D, kValues, kLanes>(v, gate, j) : none;
      std::memcpy(values + j, &value, sizeof(value));
      if (numbers) {
        const A number = wins ? one : none;
        std::memcpy(numbers + j, &number, sizeof(number));
      }
    }
  });
}

// n places of sums, and of numbers if kFinish needs them, to results.
template <class D, Finish kFinish>
inline void finish_places(const typename D::Acc* sums, const typename D::Acc* numbers, int64_t n, typename D::Bits* out) {
  using Acc = typename D::Acc;
  for_channels<kWidest<Acc>>(n, [&](auto lanes, auto many, int64_t j) SP_LAMBDA {
    constexpr int kLanes = decltype(lanes)::value;
    using A = Vector<Acc, kLanes>;
    for (int i = 0; i < decltype(many)::value; ++i, j += kLanes) {
      const A number = kFinish == kPlain ? A{} : load_vector<A>(numbers + j);
      finish<D, kFinish, kLanes>(load_vector<A>(sums + j), number, nullptr, out + j);
    }
  });
}

// The windows of a band of rows of a plane (NCHW), numbered row-major, and where their places are, counted from that where the
// first window starts, which may be outside the plane.
class Places {
 public:
  // most: rows of windows at once; of several planes, if those are all that a plane has.
  Places(const Geometry& g, int most, int planes = 1) : g_(g) {
    for (int plane = 0; plane < planes; ++plane) {
      for (int row = 0; row < most; ++row) {
        for (int col = 0; col < g.cols; ++col) {
          base_.push_back((plane * g.height + row * g.stride_h) * g.width + col * g.stride_w);
        }
      }
    }
  }

  int64_t windows(Span rows) const { return static_cast<int64_t>(rows.end - rows.begin) * g_.cols; }
  // Where the band's first window starts, counted from the plane's first place.
  int64_t origin(Span rows) const { return (static_cast<int64_t>(rows.begin) * g_.stride_h - g_.pad_h) * g_.width - g_.pad_w; }
  // How far the places under the windows of a band reach.
  int64_t reach(Span rows) const {
    return (static_cast<int64_t>(rows.end - rows.begin - 1) * g_.stride_h + g_.kernel_h) * g_.width + g_.pad_w;
  }

  // Where the switches of the band's windows point, `shift` added; without a winner to the plane's place that the first window
  // reaches first.
  void locate(const uint8_t* s, Span rows, int planes, int32_t shift, int32_t* to) const {
    const int32_t reciprocal = 65536 / g_.kernel_w + 1, line = g_.width - g_.kernel_w;  // exact for what a switch can be
    const int32_t none = shift + std::max(0, g_.pad_h - rows.begin * g_.stride_h) * g_.width + g_.pad_w;
    for_channels<kWidest<int32_t>>(planes * windows(rows), [&](auto lanes, auto many, int64_t i) SP_LAMBDA {
      constexpr int kLanes = decltype(lanes)::value;
      using P = Vector<int32_t, kLanes>;
      for (int k = 0; k < decltype(many)::value; ++k, i += kLanes) {
        const P place = load_switches<int32_t, kLanes>(s + i);
        const P at = load_vector<P>(base_.data() + i) + shift + place + ((place * reciprocal) >> 16) * line;
        const P found = place == int32_t(kNone) ? P{} + none : at;
        std::memcpy(to + i, &found, sizeof(found));
      }
    });
  }

 private:
  const Geometry& g_;
  std::vector<int32_t> base_;
};

// The values of n windows of kPlanes planes at once: where neighbours name the same place, one waits for the other.
template <class Acc, int kPlanes>
inline void scatter(const int32_t* places, const Acc* values, int64_t n, Acc* sums) {
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 8
    for (int p = 0; p < kPlanes; ++p) sums[places[p * n + i]] += values[p * n + i];
  }
}

template <class Acc>
inline void scatter(const int32_t* places, const Acc* values, int64_t n, int planes, Acc* sums) {
  if (planes == 8) return scatter<Acc, 8>(places, values, n, sums);
  for (; planes >= 4; planes -= 4, places += 4 * n, values += 4 * n) scatter<Acc, 4>(places, values, n, sums);
  for (; planes > 0; --planes, places += n, values += n) scatter<Acc, 1>(places, values, n, sums);
}

// Unpooling of NCHW at switches, by units of some planes and a band of rows; no row between windows is uncovered.
template <class D>
class PlaneSpreader {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  // in_place: the result, of whole planes, is where sums are made.
  PlaneSpreader(const Geometry& g, What what, int planes, int band, bool in_place)
      : g_(g),
        what_(what),
        in_place_(in_place && std::is_same_v<Bits, Acc> && what != kNormalized),
        most_(static_cast<int>(std::min<int64_t>(g.rows, (band + g.kernel_h) / g.stride_h + 2))),
        places_(g, most_),
        cover_(g),
        room_(places_.reach({0, most_})),
        found_(places_.windows({0, most_}) * planes),
        values_(found_.size()),
        sums_(in_place_ ? 0 : room_ * planes) {
    if (what == kNormalized) numbers_.resize(values_.size()), counts_.resize(sums_.size());
  }

  const Cover& cover() const { return cover_; }

  // v, gate and s are those of the first plane, out is the plane; `windows` are those over the rows. Returns whether the switches
  // are valid.
  bool unit(const Bits* v, const Bits* gate, const uint8_t* s, int planes, Span windows, Span rows, Bits* out) {
    const int64_t size = static_cast<int64_t>(g_.height) * g_.width, from = rows.begin * static_cast<int64_t>(g_.width);
    const int64_t count = (rows.end - rows.begin) * static_cast<int64_t>(g_.width);
    if (in_place_ || windows.end <= windows.begin) {
      for (int p = 0; p < planes; ++p) std::fill_n(out + p * size + from, count, Bits(0));
      if (windows.end <= windows.begin) return true;
    }
    if constexpr (std::is_same_v<Bits, Acc>) {
      if (in_place_) return add(v, gate, s, planes, windows, size, out + places_.origin(windows), nullptr);
    }
    if (!add(v, gate, s, planes, windows)) return false;
    const int64_t at = from - places_.origin(windows), end = (windows.end - 1) * g_.stride_h - g_.pad_h + g_.kernel_h;
    const int64_t covered = std::min(count, (end - rows.begin) * g_.width);
    for (int p = 0; p < planes; ++p) {
      Bits* to = out + p * size + from;
      if (what_ == kNormalized) {
        finish_places<D, kSumOverCount>(sums_.data() + p * room_ + at, counts_.data() + p * room_ + at, covered, to);
      } else {
        finish_places<D, kPlain>(sums_.data() + p * room_ + at, nullptr, covered, to);
      }
      std::fill(to + covered, to + count, Bits(0));
    }
    return true;
  }

  // The sums at the windows' places; sums() begins where the first window starts.
  bool add(const Bits* v, const Bits* gate, const uint8_t* s, int planes, Span windows) {
    std::fill(sums_.begin(), sums_.end(), Acc(0)), std::fill(counts_.begin(), counts_.end(), Acc(0));
    return add(v, gate, s, planes, windows, room_, sums_.data(), counts_.data());
  }
  const Acc* sums() const { return sums_.data(); }

 private:
  // room: from the sums of one plane to those of the next.
  bool add(const Bits* v, const Bits* gate, const uint8_t* s, int planes, Span windows, int64_t room, Acc* sums, Acc* counts) {
    const int64_t step = static_cast<int64_t>(g_.rows) * g_.cols, first = windows.begin * static_cast<int64_t>(g_.cols);
    const int64_t n = places_.windows(windows);
    const bool whole = n == step;  // then the windows of all planes lie side by side
    const bool ready = std::is_same_v<Bits, Acc> && what_ == kSums && !gate && whole && !std::memchr(s, kNone, planes * n);
    for (int p = 0; p < planes; ++p) {
      const uint8_t* at = s + p * step + first;
      if (!rows_are_valid(g_, cover_.full, at, windows, 1)) return false;
      places_.locate(at, windows, 1, static_cast<int32_t>(p * room), found_.data() + p * n);
      const Bits* value = v ? v + p * step + first : v;
      Acc* numbers = what_ == kNormalized ? numbers_.data() + p * n : nullptr;
      if (ready) {
        continue;
      } else if (what_ == kCounts) {
        prepare<D, kOnes>(nullptr, nullptr, at, n, values_.data() + p * n, nullptr);
      } else if (gate) {
        prepare<D, kGated>(value, gate + p * step + first, at, n, values_.data() + p * n, numbers);
      } else {
        prepare<D, kOpen>(value, nullptr, at, n, values_.data() + p * n, numbers);
      }
    }
    scatter(found_.data(), ready ? reinterpret_cast<const Acc*>(v) : values_.data(), n, planes, sums);
    if (what_ == kNormalized) scatter(found_.data(), numbers_.data(), n, planes, counts);
    return true;
  }

  const Geometry& g_;
  const What what_;
  const bool in_place_;
  const int most_;
  const Places places_;
  const Cover cover_;
  const int64_t room_;
  std::vector<int32_t> found_;
  std::vector<Acc> values_, numbers_, sums_, counts_;
};

// Pooling of NCHW at switches, by units of a band of rows of windows, of several planes at once where that is all of them:
// what is done for each unit is too much for one small plane.
template <class D>
class PlaneSelector {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;

  PlaneSelector(const Geometry& g, bool normalized, int planes, int band)
      : g_(g),
        counts_(normalized && !is_disjoint(g)),  // else a place that is read was named once
        together_(counts_ || band < g.rows ? 1 : planes),
        full_(whole(g.width, g.kernel_w, g.stride_w, g.pad_w, g.cols)),
        places_(g, band, together_),
        found_(static_cast<int64_t>(band) * g.cols * together_) {
    const Span high = whole(g.height, g.kernel_h, g.stride_h, g.pad_h, g.rows);
    all_whole_ = full_.end - full_.begin == g.cols && high.end - high.begin == g.rows;
    if (!counts_) return;
    const int64_t under = std::min<int64_t>(g.height, static_cast<int64_t>(band) * g.stride_h + g.kernel_h);
    counter_.reset(new PlaneSpreader<D>(g, kCounts, 1, static_cast<int>(under), false));
    for (int count = 0; count < 256; ++count) inverse_[count] = inverse<D>(Acc(count));
  }

  // How many planes a unit may have.
  int together() const { return together_; }

  // x, gate, s and y are the first plane's; rows: of windows. Returns whether the switches are valid.
  bool unit(const Bits* x, const Bits* gate, const uint8_t* s, int planes, Span rows, Bits* y) {
    const int64_t first = static_cast<int64_t>(rows.begin) * g_.cols, n = planes * places_.windows(rows);
    const int64_t origin = places_.origin(rows);
    const Bits* from = x + origin;
    const uint8_t* at = s + first;
    y += first;
    if (!are_valid(at, planes, rows)) return false;
    places_.locate(at, rows, planes, 0, found_.data());
    if (counter_) {
      const Span over = rows_over(counter_->cover(), rows_under(g_, rows));
      if (!counter_->add(nullptr, nullptr, s, 1, over)) return false;
      const Acc* counts = counter_->sums() + origin - places_.origin(over);
      for (int64_t i = 0; i < n; ++i) {
        y[i] = D::store(D::load(from[found_[i]]) * inverse_[static_cast<int>(counts[found_[i]])]);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = from[found_[i]];
    }
    for (int64_t i = 0; i < n; ++i) y[i] = at[i] == kNone ? Bits(0) : y[i];
    if (gate) close_gates<D>(gate + first, y, n);
    return true;
  }

 private:
  bool are_valid(const uint8_t* s, int planes, Span rows) const {
    const int64_t n = places_.windows(rows);
    if (all_whole_) return all_within(s, planes * n, 0, g_.kernel_h * g_.kernel_w);
    bool valid = true;
    for (int p = 0; p < planes; ++p) valid &= rows_are_valid(g_, full_, s + p * n, rows, 1);
    return valid;
  }

  const Geometry& g_;
  const bool counts_;
  const int together_;
  const Span full_;
  const Places places_;
  bool all_whole_;  // no window is cut off
  std::vector<int32_t> found_;
  std::unique_ptr<PlaneSpreader<D>> counter_;
  Acc inverse_[256];
};

// Unpooling of channels_last at switches, row by row from the top: rows of windows are added to the rows of the plane under
// them, of which as many are kept as a window is high.
template <class D>
class ChannelSpreader {
 public:
  using Bits = typename D::Bits;
  using Acc = typename D::Acc;
  static constexpr bool kChecks = true;

  ChannelSpreader(const Geometry& g, What what)
      : g_(g), e_(g, true), what_(what), cover_(g), values_(e_.pixel), sums_((g.kernel_h + 1) * e_.pitch + g.pad_w * e_.pixel) {
    if (what == kNormalized) numbers_.resize(values_.size()), counts_.resize(sums_.size());
  }

  const Cover& cover() const { return cover_; }
  bool valid() const { return valid_; }
  // To be called between images.
  void forget() { next_ = -1; }

  void row(const Bits* v, const Bits* gate, const uint8_t* s, int h, const Bits*, Bits* out) {
    if (next_ < 0) {
      next_ = cover_.rows[h].begin;
      std::fill(sums_.begin(), sums_.end(), Acc(0)), std::fill(counts_.begin(), counts_.end(), Acc(0));
    }
    for (next_ = std::max(next_, cover_.rows[h].begin); next_ < cover_.rows[h].end; ++next_) {
      const int64_t at = next_ * e_.out;
      if (what_ == kCounts) {
        add<kOnes>(nullptr, nullptr, s + at, h);
      } else if (gate) {
        add<kGated>(v + at, gate + at, s + at, h);
      } else {
        add<kOpen>(v + at, nullptr, s + at, h);
      }
    }
    Acc* sums = sums_.data() + slot(h, h);
    if (what_ == kNormalized) {
      Acc* counts = counts_.data() + slot(h, h);
      finish_places<D, kSumOverCount>(sums, counts, e_.pitch, out);
      std::fill_n(counts, e_.pitch, Acc(0));
    } else {
      finish_places<D, kPlain>(sums, nullptr, e_.pitch, out);
    }
    std::fill_n(sums, e_.pitch, Acc(0));
  }

 private:
  // Where row `row` is kept while row h is due; those above h are kept apart, and never used.
  int64_t slot(int row, int h) const {
    return g_.pad_w * e_.pixel + (row < h ? 0 : 1 + row % g_.kernel_h) * e_.pitch;
  }

  // One row of windows.
  template <Values kValues>
  void add(const Bits* v, const Bits* gate, const uint8_t* s, int h) {
    const int top = next_ * g_.stride_h - g_.pad_h;
    for (int i = 0, place = 0; i < g_.kernel_h; ++i) {
      for (int j = 0; j < g_.kernel_w; ++j) offset_[place++] = slot(top + i, h) + j * e_.pixel;
    }
    offset_[kNone] = offset_[0];
    if (!rows_are_valid(g_, cover_.full, s, {next_, next_ + 1}, e_.pixel)) return valid_ = false, void();
    Acc* numbers = what_ == kNormalized ? numbers_.data() : nullptr;
    const int64_t n = e_.pixel;
    for (int col = 0; col < g_.cols; ++col, s += n) {
      prepare<D, kValues>(v, gate, s, n, values_.data(), numbers);
      const int64_t base = (static_cast<int64_t>(col) * g_.stride_w - g_.pad_w) * n;
      Acc* sums = sums_.data() + base;
      for (int64_t c = 0; c < n; ++c) sums[offset_[s[c]] + c] += values_[c];
      if (numbers) {
        Acc* counts = counts_.data() + base;
        for (int64_t c = 0; c < n; ++c) counts[offset_[s[c]] + c] += numbers[c];
      }
      if (v) v += n;
      if (gate) gate += n;
    }
  }

  const Geometry& g_;
  const Extents e_;
  const What what_;
  const Cover cover_;
  int next_ = -1;
  bool valid_ = true;
  int64_t offset_[256] = {};
  std::vector<Acc> values_, numbers_, sums_, counts_;
};

}  // namespace SP_ISA
}  // namespace switch_pool
