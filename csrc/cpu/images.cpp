// Byte images into floats on the CPU, row by row: the channels of a row are parted in the cache, and each is written once.

#include "../images.h"

#include <ATen/Parallel.h>

#include <cstring>
#include <vector>

#include "targets.h"

#if SP_X86
#define IMAGES_AVX2 __attribute__((target("avx2")))
#endif

namespace images {
namespace cpu {
namespace {

// One row of one channel: n bytes, and n means or one for all (`each` false).
struct Row {
  const uint8_t* bytes;
  const float* means;
  int n;
  float scale;
  float* out;
};

template <bool kEach>
inline float value(const Row& row, int i) {
  return (static_cast<float>(row.bytes[i]) - row.means[kEach ? i : 0]) * row.scale;
}

template <bool kEach>
inline void write_one(const Row& row, int i) {
  row.out[i] = value<kEach>(row, i);
}

template <bool kEach>
void write_row(const Row& row) {
  for (int i = 0; i < row.n; ++i) write_one<kEach>(row, i);
}

template <class T>
void turn(const T* from, int n, T* to) {
  for (int i = 0; i < n; ++i) to[n - 1 - i] = from[i];
}

void part_three(const uint8_t* pixels, int n, uint8_t* a, uint8_t* b, uint8_t* c) {
  for (int i = 0; i < n; ++i) a[i] = pixels[3 * i], b[i] = pixels[3 * i + 1], c[i] = pixels[3 * i + 2];
}

#ifdef IMAGES_AVX2
template <bool kEach>
IMAGES_AVX2 inline __m256 eight(const Row& row, int i, __m256 one, __m256 scale) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row.bytes + i));
  const __m256 mean = kEach ? _mm256_loadu_ps(row.means + i) : one;
  const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  return _mm256_mul_ps(_mm256_sub_ps(x, mean), scale);
}

template <bool kEach>
IMAGES_AVX2 void write_row_avx2(const Row& row) {
  const __m256 scale = _mm256_set1_ps(row.scale), one = _mm256_set1_ps(row.means[0]);
  int i = 0;
  for (; i + 8 <= row.n; i += 8) _mm256_storeu_ps(row.out + i, eight<kEach>(row, i, one, scale));
  for (; i < row.n; ++i) write_one<kEach>(row, i);
}

// The same past the cache. A line that is written to memory in whole is not read from there first.
template <bool kEach>
IMAGES_AVX2 void stream_one(const Row& row, int i) {
  const float x = value<kEach>(row, i);
  int bits;
  std::memcpy(&bits, &x, sizeof(bits));
  _mm_stream_si32(reinterpret_cast<int*>(row.out + i), bits);
}

template <bool kEach>
IMAGES_AVX2 void stream_row_avx2(const Row& row) {
  const __m256 scale = _mm256_set1_ps(row.scale), one = _mm256_set1_ps(row.means[0]);
  int i = 0;
  for (; i < row.n && reinterpret_cast<uintptr_t>(row.out + i) % 32; ++i) stream_one<kEach>(row, i);
  for (; i + 8 <= row.n; i += 8) _mm256_stream_ps(row.out + i, eight<kEach>(row, i, one, scale));
  for (; i < row.n; ++i) stream_one<kEach>(row, i);
}

IMAGES_AVX2 void turn_avx2(const uint8_t* from, int n, uint8_t* to) {
  const __m128i backwards = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + n - 16 - i), _mm_shuffle_epi8(bytes, backwards));
  }
  turn(from + i, n - i, to);
}

IMAGES_AVX2 void turn_means_avx2(const float* from, int n, float* to) {
  const __m256i backwards = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  int i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + n - 8 - i, _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + i), backwards));
  turn(from + i, n - i, to);
}

// What a shuffle takes from the vector `v` of three, for the 16 values of a channel that lie at channel, channel + 3, …
IMAGES_AVX2 __m128i picks(int channel, int v) {
  alignas(16) int8_t at[16];
  for (int i = 0; i < 16; ++i) {
    const int from = 3 * i + channel - 16 * v;
    at[i] = from >= 0 && from < 16 ? static_cast<int8_t>(from) : -1;
  }
  return _mm_load_si128(reinterpret_cast<const __m128i*>(at));
}

IMAGES_AVX2 void part_three_avx2(const uint8_t* pixels, int n, uint8_t* a, uint8_t* b, uint8_t* c) {
  __m128i pick[3][3];
  for (int channel = 0; channel < 3; ++channel) {
    for (int v = 0; v < 3; ++v) pick[channel][v] = picks(channel, v);
  }
  uint8_t* const to[] = {a, b, c};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    __m128i in[3];
    for (int v = 0; v < 3; ++v) in[v] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels + 3 * i + 16 * v));
    for (int channel = 0; channel < 3; ++channel) {
      const __m128i* p = pick[channel];
      const __m128i low = _mm_or_si128(_mm_shuffle_epi8(in[0], p[0]), _mm_shuffle_epi8(in[1], p[1]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[channel] + i), _mm_or_si128(low, _mm_shuffle_epi8(in[2], p[2])));
    }
  }
  part_three(pixels + 3 * i, n - i, a + i, b + i, c + i);
}
#endif

struct Kernels {
  void (*write_row[2])(const Row&);   // one mean, a mean for each pixel
  void (*stream_row[2])(const Row&);  // past the cache; fence() makes it seen
  void (*fence)();
  void (*turn)(const uint8_t*, int, uint8_t*);
  void (*turn_means)(const float*, int, float*);
  void (*part_three)(const uint8_t*, int, uint8_t*, uint8_t*, uint8_t*);
};

const Kernels& kernels() {
  static const Kernels portable{{write_row<false>, write_row<true>}, {write_row<false>, write_row<true>}, [] {},
                                turn<uint8_t>, turn<float>, part_three};
#ifdef IMAGES_AVX2
  static const Kernels avx2{{write_row_avx2<false>, write_row_avx2<true>}, {stream_row_avx2<false>, stream_row_avx2<true>},
                            [] { _mm_sfence(); }, turn_avx2, turn_means_avx2, part_three_avx2};
  static const bool wide = switch_pool::cpu::best_instruction_set() != switch_pool::cpu::kPortable;
  if (wide) return avx2;
#endif
  return portable;
}

// Where a window begins on a plane.
struct Corner {
  int64_t channel, row, pixel, at;

  Corner(const Plane& p, const Task& t, int top, int left)
      : channel(p.channel), row(p.row), pixel(p.pixel),
        at((p.height == t.height ? 0 : top) * p.row + (p.width == t.width ? 0 : left) * p.pixel) {}
};

bool is_interleaved(const Task& t) { return t.channels == 3 && t.image.channel == 1 && t.image.pixel == 3; }

// A thread's room for one image at a time: new memory takes longer to get than to fill.
struct Room {
  std::vector<uint8_t> parted, row, turned;
  std::vector<float> means;

  void grow(const Task& t) {
    const size_t width = t.width;
    if (row.size() < width) parted.resize(3 * width), row.resize(width), turned.resize(width), means.resize(width);
  }
};

// Writes one row of one channel, whose bytes lie `step` apart. Reading memory backwards is slow: a mirrored row is turned
// around in the cache.
void write(const Task& t, const Kernels& k, const uint8_t* bytes, int64_t step, const float* means, bool mirrored, bool streamed,
           float* out, Room& room) {
  const bool each = t.mean.width > 1;
  if (step != 1 && t.width > 1) {
    for (int x = 0; x < t.width; ++x) room.row[x] = bytes[x * step];
    bytes = room.row.data();
  }
  if (mirrored) {
    k.turn(bytes, t.width, room.turned.data());
    bytes = room.turned.data();
    if (each) {
      k.turn_means(means, t.width, room.means.data());
      means = room.means.data();
    }
  }
  (streamed ? k.stream_row : k.write_row)[each]({bytes, means, t.width, t.scale, out});
}

void transform_one(const Task& t, int64_t n, bool streamed, Room& room) {
  const int32_t* window = t.windows + 3 * n;
  const Corner image(t.image, t, window[0], window[1]), mean(t.mean, t, window[0], window[1]);
  const bool mirrored = window[2] != 0;
  const int64_t plane = int64_t(t.height) * t.width;
  const Kernels& k = kernels();
  const uint8_t* corner = t.images + n * t.image_size + image.at;
  const float* means = t.means + mean.at;
  float* out = t.out + n * t.channels * plane;
  if (is_interleaved(t)) {
    uint8_t* parted = room.parted.data();
    for (int y = 0; y < t.height; ++y) {
      k.part_three(corner + y * image.row, t.width, parted, parted + t.width, parted + 2 * t.width);
      for (int c = 0; c < 3; ++c) {
        write(t, k, parted + c * t.width, 1, means + c * mean.channel + y * mean.row, mirrored, streamed,
              out + c * plane + int64_t(y) * t.width, room);
      }
    }
    return;
  }
  for (int c = 0; c < t.channels; ++c) {
    for (int y = 0; y < t.height; ++y) {
      write(t, k, corner + c * image.channel + y * image.row, image.pixel, means + c * mean.channel + y * mean.row, mirrored,
            streamed, out + c * plane + int64_t(y) * t.width, room);
    }
  }
}

}  // namespace

void transform(const Task& t, bool streamed) {
  at::parallel_for(0, t.batch, 1, [&](int64_t begin, int64_t end) {
    static thread_local Room room;
    room.grow(t);
    for (int64_t n = begin; n < end; ++n) transform_one(t, n, streamed, room);
    if (streamed) kernels().fence();
  });
}

}  // namespace cpu
}  // namespace images
