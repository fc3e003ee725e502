// How the CPU kernels write large results. Part of kernels.h: included as often.

namespace switch_pool {
namespace SP_ISA {

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

}  // namespace SP_ISA
}  // namespace switch_pool
