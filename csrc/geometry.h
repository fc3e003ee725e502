// The windows of one call, as the CPU kernels, the CUDA kernels and their callers see them. Plain data, no other header.
#pragma once

namespace switch_pool {

typedef long long index_t;  // NVRTC has no <cstdint>

// Windows of kernel_h x kernel_w places lie on planes of height x width places; rows x cols of them to a plane. Window
// (r, c) starts at (r * stride_h - pad_h, c * stride_w - pad_w), which may be outside the plane. Pads may be negative.
struct Geometry {
  index_t batch, channels;
  int height, width;
  int rows, cols;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

enum Type { kFloat, kDouble, kHalf, kBFloat16 };

// What a window does to the places that it covers, and they to it.
enum Mode { kSwitch, kSum, kAverage };

const unsigned char kNone = 255;  // the switch of a window in which nothing won

}  // namespace switch_pool
