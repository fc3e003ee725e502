// CUDA's names for a C++ compiler: launch.cu and switch_pool.cuh compile with this header before them, and every thread of
// every block runs on the CPU. Kernels with shared memory run their threads as fibers, which __syncthreads() switches.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define SP_SHIM
#define __global__
#define __device__
#define __launch_bounds__(threads)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

template <class To, class From>
inline To bit_cast(From from) {
  To to;
  static_assert(sizeof(to) == sizeof(from), "same size");
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
inline float __uint_as_float(unsigned x) { return bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return bit_cast<long long>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32); }

inline float half_to_float(unsigned short x) {
  const int exponent = x >> 10 & 31, mantissa = x & 1023;
  const float sign = x >> 15 ? -1.f : 1.f;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.f + mantissa, exponent - 25) : std::ldexp(float(mantissa), -24));
}
inline unsigned short float_to_half(float x) {
  const unsigned sign = __float_as_uint(x) >> 16 & 0x8000;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (magnitude == 0) return static_cast<unsigned short>(sign);
  if (magnitude >= 65520.f) return static_cast<unsigned short>(sign | 0x7c00);
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
  const int scale = exponent < -13 ? -24 : exponent - 11;  // the value of the last bit kept
  const unsigned steps = static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, -scale)));
  const unsigned bits = exponent < -13 ? steps : (static_cast<unsigned>(exponent + 14) << 10) + (steps - 1024);
  return static_cast<unsigned short>(sign | bits);
}

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorNotSupported = 801 };
using cudaStream_t = void*;
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "an error"; }

namespace shim {

struct Index {
  unsigned x;
};
inline Index block, thread;
inline uint4* shared = nullptr;
constexpr int kFibers = 256, kStack = 64 << 10;
inline ucontext_t scheduler, fibers[kFibers];
inline bool finished[kFibers];
inline int running = -1;  // the fiber that runs; -1 outside fibers

inline void wait() {
  if (running < 0) {
    std::fprintf(stderr, "__syncthreads() in a kernel without shared memory\n");
    std::abort();
  }
  swapcontext(&fibers[running], &scheduler);
}

template <class Kernel, class Task>
struct Body {
  static inline Kernel kernel;
  static inline const Task* task;
  static void run() {
    kernel(*task);
    finished[running] = true;
  }
};

template <class Kernel, class Task>
void run_fibers(Kernel kernel, const Task& task) {
  static std::vector<char> stacks(std::size_t(kFibers) * kStack);
  Body<Kernel, Task>::kernel = kernel;
  Body<Kernel, Task>::task = &task;
  for (int i = 0; i < kFibers; ++i) {
    getcontext(&fibers[i]);
    fibers[i].uc_stack.ss_sp = stacks.data() + std::size_t(i) * kStack;
    fibers[i].uc_stack.ss_size = kStack;
    fibers[i].uc_link = &scheduler;
    makecontext(&fibers[i], &Body<Kernel, Task>::run, 0);
    finished[i] = false;
  }
  for (bool any = true; any;) {
    any = false;
    for (running = 0; running < kFibers; ++running) {
      if (finished[running]) continue;
      thread.x = static_cast<unsigned>(running);
      swapcontext(&scheduler, &fibers[running]);
      any |= !finished[running];
    }
  }
  running = -1;
}

}  // namespace shim

#define threadIdx shim::thread
#define blockIdx shim::block
#define __syncthreads shim::wait
#define SP_SHARED(type, name) type* name = shim::shared

#include "cuda/switch_pool.cuh"

namespace switch_pool {
namespace cuda {

// What a launch was: kernel, blocks, bytes of shared memory, argument.
struct Launch {
  void (*kernel)(device::Task);
  index_t blocks, shared;
  device::Task task;
};
inline std::vector<Launch> launches;
inline bool dry = false;  // only record

// Every block starts from shared memory full of garbage, and must leave what lies beyond its share alone.
inline cudaError_t launch(void (*kernel)(device::Task), index_t blocks, index_t bytes, cudaStream_t, const device::Task& task) {
  launches.push_back({kernel, blocks, bytes, task});
  if (dry) return cudaSuccess;
  constexpr std::size_t kGuard = 16;
  std::vector<uint4> memory(std::size_t(bytes) / 16 + kGuard);
  shim::shared = memory.data();
  for (index_t block = 0; block < blocks; ++block) {
    shim::block.x = static_cast<unsigned>(block);
    std::memset(memory.data(), 0xa5, memory.size() * 16);
    if (bytes) {
      shim::run_fibers(kernel, task);
    } else {
      for (unsigned i = 0; i < device::kThreads; ++i) {
        shim::thread.x = i;
        kernel(task);
      }
    }
    for (std::size_t i = memory.size() - kGuard; i < memory.size(); ++i) {
      if (memory[i].x != 0xa5a5a5a5u || memory[i].w != 0xa5a5a5a5u) return cudaErrorInvalidConfiguration;
    }
  }
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace switch_pool
