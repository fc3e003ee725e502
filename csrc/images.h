// Batches of byte images turned into floats, as images.cpp asks the CPU and CUDA for it. No PyTorch here.
#pragma once

#include <cstdint>

namespace images {

// A plane that windows are cut from, and the distances in elements from channel to channel, row to row, pixel to pixel.
struct Plane {
  int height, width;
  int64_t channel, row, pixel;
};

// out[n][c][y][x] = (image - mean) * scale, both read at the place of the window: plane (top + y, left + x), and x from the
// other end where the window is mirrored. A plane of the window's own size is read from its corner, one of 1 x 1 everywhere.
struct Task {
  int64_t batch;
  int channels, height, width;  // of the result
  Plane image, mean;
  int64_t image_size;           // from image to image
  float scale;
  const unsigned char* images;
  const int32_t* windows;       // top, left, mirrored for each image
  const float* means;
  float* out;                   // dense
};

namespace cpu {
// `streamed`: write past the cache.
void transform(const Task& task, bool streamed);
}

namespace cuda {
// Enqueues the kernel; `stream` is a cudaStream_t, the result a cudaError_t. A window that leaves its plane is moved into it.
int transform(const Task& task, void* stream);
const char* error_name(int error);
}  // namespace cuda

}  // namespace images
