// The operator that makes float batches of byte images. Its schema, and the checks that say what is wrong with an argument,
// are in pycaffe_compat/ops/images.py; here stands only what must hold for the kernels to stay inside their memory.

#include "images.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <climits>
#include <optional>

#include "in_python.h"

#ifdef WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace images {
namespace {

using at::Tensor;
using at::TensorList;

bool fits_int(const Tensor& t) {
  for (const int64_t size : t.sizes()) {
    if (size > INT_MAX) return false;
  }
  return true;
}

// The planes of the last two axes. One channel, or one pixel, stands for all.
Plane plane_of(const Tensor& t) {
  const auto stride = [&](int64_t axis) { return t.size(axis) == 1 ? 0 : t.stride(axis); };
  return {static_cast<int>(t.size(-2)), static_cast<int>(t.size(-1)), stride(-3), stride(-2), stride(-1)};
}

bool holds(const Plane& plane, int height, int width) {
  return (plane.height >= height && plane.width >= width) || (plane.height == 1 && plane.width == 1);
}

bool is_inside(const Plane& plane, const Task& t, int32_t top, int32_t left) {
  const bool rows = plane.height == t.height || plane.height == 1 || (top >= 0 && top <= plane.height - t.height);
  return rows && (plane.width == t.width || plane.width == 1 || (left >= 0 && left <= plane.width - t.width));
}

// Windows on a GPU are not looked at: the kernel moves those that lie outside.
bool are_inside(const Task& t) {
  for (int64_t n = 0; n < t.batch; ++n) {
    const int32_t top = t.windows[3 * n], left = t.windows[3 * n + 1];
    if (!is_inside(t.image, t, top, left) || !is_inside(t.mean, t, top, left)) return false;
  }
  return true;
}

// The task for some images of the result, from the first on; none if they do not fit it.
std::optional<Task> task_of(const Tensor& out, int64_t first, const Tensor& images, const Tensor& windows, const Tensor& mean,
                            double scale) {
  if (images.dim() != 4 || images.scalar_type() != at::kByte || images.device() != out.device() || !fits_int(images) ||
      images.size(0) > out.size(0) - first || images.size(1) != out.size(1)) {
    return std::nullopt;
  }
  Task t{};
  t.batch = images.size(0);
  t.channels = static_cast<int>(out.size(1)), t.height = static_cast<int>(out.size(2)), t.width = static_cast<int>(out.size(3));
  t.image = plane_of(images), t.mean = plane_of(mean);
  if (t.image.height < t.height || t.image.width < t.width || !holds(t.mean, t.height, t.width)) return std::nullopt;
  t.image_size = images.stride(0);
  t.scale = static_cast<float>(scale);
  t.images = images.const_data_ptr<uint8_t>();
  t.windows = windows.const_data_ptr<int32_t>() + 3 * first;
  t.means = mean.const_data_ptr<float>();
  t.out = out.mutable_data_ptr<float>() + first * out.stride(0);
  if (out.is_cpu() && !are_inside(t)) return std::nullopt;
  return t;
}

void transform_images(const Tensor& out, TensorList images, const Tensor& windows, const Tensor& mean, double scale) {
  const auto refused = [&] {
    in_python(transform_images, "pycaffe_compat::transform_images_", out, images, windows, mean, scale);
  };
  for (const Tensor* t : {&out, &windows, &mean}) {
    if (t->device() != out.device() || !t->is_contiguous() || !fits_int(*t)) return refused();
  }
  if (out.dim() != 4 || windows.dim() != 2 || mean.dim() != 3 || out.scalar_type() != at::kFloat ||
      windows.scalar_type() != at::kInt || mean.scalar_type() != at::kFloat || windows.size(0) != out.size(0) ||
      windows.size(1) != 3 || (mean.size(0) != 1 && mean.size(0) != out.size(1))) {
    return refused();
  }
  c10::SmallVector<Task, 8> tasks;
  int64_t count = 0;
  for (const Tensor& some : images) {
    const auto task = task_of(out, count, some, windows, mean, scale);
    if (!task) return refused();
    tasks.push_back(*task);
    count += task->batch;
  }
  if (count != out.size(0)) return refused();
  if (!out.numel()) return;
#ifdef WITH_CUDA
  if (out.is_cuda()) {
    const c10::cuda::CUDAGuard guard(out.device());
    for (const Task& task : tasks) {
      const int error = cuda::transform(task, c10::cuda::getCurrentCUDAStream().stream());
      TORCH_CHECK(error == 0, "a CUDA kernel was not launched: ", cuda::error_name(error));
    }
    return;
  }
#endif
  for (const Task& task : tasks) cpu::transform(task);
}

}  // namespace
}  // namespace images

TORCH_LIBRARY_IMPL(pycaffe_compat, CPU, m) { m.impl("transform_images_", images::transform_images); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(pycaffe_compat, CUDA, m) { m.impl("transform_images_", images::transform_images); }
#endif
