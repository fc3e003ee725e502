// update.cu and its kernel as plain C++, with an interface for ctypes.
#include "shim.h"

#define __host__
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }

#include "cuda/update.cuh"

namespace update {
namespace cuda {
int launches = 0;

cudaError_t launch(void (*kernel)(const device::Table, unsigned), unsigned blocks, cudaStream_t, const device::Table& table) {
  ++launches;
  for (shim::block.x = 0; shim::block.x < blocks; ++shim::block.x) {
    for (shim::thread.x = 0; shim::thread.x < device::kThreads; ++shim::thread.x) kernel(table, blocks);
  }
  return cudaSuccess;
}
}  // namespace cuda
}  // namespace update

#include "cuda/update.cu"

extern "C" {
int run(const update::Step* step, int type, const update::Parameter* parameters, int count) {
  return update::cuda::update(*step, update::Type(type), parameters, count, nullptr);
}
int launch_count() { return update::cuda::launches; }
}
