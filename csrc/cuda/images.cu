// Byte images into floats on a GPU: a thread for each pixel, all channels. No PyTorch here.

#include "../images.h"

namespace images {
namespace cuda {
namespace device {

constexpr int kThreads = 256;

// The place of row or column `i` of a window that begins at `first`; inside a side of the plane whatever `first` is.
__device__ inline int place(int first, int i, int window, int side) {
  if (side == window) return i;
  if (side < window) return 0;  // one mean for all pixels
  return (first < 0 ? 0 : first > side - window ? side - window : first) + i;
}

// No multiplication feeds an addition, so nothing is contracted: the bits are those of the CPU.
__global__ void __launch_bounds__(kThreads) transform(Task t) {
  const unsigned at = blockIdx.x * kThreads + threadIdx.x, plane = unsigned(t.height) * unsigned(t.width);
  const unsigned n = at / plane, pixel = at - n * plane;
  if (n >= t.batch) return;
  const int y = int(pixel / unsigned(t.width)), x = int(pixel) - y * t.width;
  const int32_t* window = t.windows + 3 * int64_t(n);
  const int column = window[2] ? t.width - 1 - x : x;
  const unsigned char* image = t.images + n * t.image_size +
                               place(window[0], y, t.height, t.image.height) * t.image.row +
                               place(window[1], column, t.width, t.image.width) * t.image.pixel;
  const float* mean = t.means + place(window[0], y, t.height, t.mean.height) * t.mean.row +
                      place(window[1], column, t.width, t.mean.width) * t.mean.pixel;
  float* out = t.out + int64_t(n) * t.channels * plane + pixel;
  for (int c = 0; c < t.channels; ++c) {
    out[int64_t(c) * plane] = (float(image[c * t.image.channel]) - mean[c * t.mean.channel]) * t.scale;
  }
}

}  // namespace device

namespace {

#ifndef SP_SHIM  // the shim runs every thread in a loop
cudaError_t launch(unsigned blocks, cudaStream_t stream, const Task& task) {
  device::transform<<<blocks, device::kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}
#endif

}  // namespace

int transform(const Task& task, void* stream) {
  // Pixels are numbered with 32 bits: as many images at a time.
  constexpr int64_t kMost = (int64_t(1) << 31) - device::kThreads;
  const int64_t plane = int64_t(task.height) * task.width;
  if (plane > kMost) return cudaErrorInvalidConfiguration;
  const int64_t most = kMost / plane;
  for (int64_t first = 0; first < task.batch; first += most) {
    Task t = task;
    t.batch = task.batch - first < most ? task.batch - first : most;
    t.images += first * task.image_size;
    t.windows += 3 * first;
    t.out += first * task.channels * plane;
    const auto blocks = unsigned((t.batch * plane + device::kThreads - 1) / device::kThreads);
    if (const cudaError_t error = launch(blocks, static_cast<cudaStream_t>(stream), t)) return error;
  }
  return cudaSuccess;
}

const char* error_name(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace cuda
}  // namespace images
