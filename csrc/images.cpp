// The operators that make float batches of byte images. Their schemas, and the checks that say what is wrong with an argument,
// are in pycaffe_compat/ops/images.py; here stands only what must hold for the kernels to stay inside their memory.

#include "images.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
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

constexpr size_t kStreamed = 4 << 20;  // bytes of a batch that no cache holds until it is used

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

// Whether an image lies in its storage wherever `offsets` moves it.
bool holds(const Tensor& image, const Tensor& offsets) {
  int64_t last = image.storage_offset();
  for (int64_t axis = 1; axis < image.dim(); ++axis) last += (image.size(axis) - 1) * image.stride(axis);
  const int64_t size = image.storage().nbytes(), *at = offsets.const_data_ptr<int64_t>();
  return std::all_of(at, at + offsets.numel(),
                     [&](int64_t by) { return by >= -image.storage_offset() && by < size - last; });
}

// The tasks for images of one size and layout: the first, moved.
bool add_moved(const Tensor& out, const Tensor& image, const Tensor& offsets, const Tensor& windows, const Tensor& mean,
               double scale, c10::SmallVectorImpl<Task>& tasks) {
  if (!out.is_cpu() || !offsets.is_cpu() || offsets.scalar_type() != at::kLong || offsets.dim() != 1 ||
      !offsets.is_contiguous() || offsets.numel() != out.size(0) || image.dim() != 4 || image.size(0) != 1 ||
      !image.numel() || !image.is_cpu() || !holds(image, offsets)) {
    return false;
  }
  for (int64_t n = 0; n < out.size(0); ++n) {
    auto task = task_of(out, n, image, windows, mean, scale);
    if (!task) return false;
    task->images += offsets.const_data_ptr<int64_t>()[n];
    tasks.push_back(*task);
  }
  return true;
}

bool fits(const Tensor& out, const Tensor& windows, const Tensor& mean) {
  for (const Tensor* t : {&out, &windows, &mean}) {
    if (t->device() != out.device() || !t->is_contiguous() || !fits_int(*t)) return false;
  }
  return !(out.dim() != 4 || windows.dim() != 2 || mean.dim() != 3 || out.scalar_type() != at::kFloat ||
      windows.scalar_type() != at::kInt || mean.scalar_type() != at::kFloat || windows.size(0) != out.size(0) ||
      windows.size(1) != 3 || (mean.size(0) != 1 && mean.size(0) != out.size(1)));
}

void run_on_cpu(const Tensor& out, const c10::SmallVectorImpl<Task>& tasks) {
  const bool streamed = out.storage().nbytes() >= kStreamed;
  for (const Task& task : tasks) cpu::transform(task, streamed);
}

void transform_images(const Tensor& out, TensorList images, const Tensor& windows, const Tensor& mean, double scale) {
  const auto refused = [&] {
    in_python(transform_images, "pycaffe_compat::transform_images_", out, images, windows, mean, scale);
  };
  if (!fits(out, windows, mean)) return refused();
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
  run_on_cpu(out, tasks);
}

// CPU only.
void transform_images_at(const Tensor& out, const Tensor& image, const Tensor& offsets, const Tensor& windows,
                         const Tensor& mean, double scale) {
  c10::SmallVector<Task, 16> tasks;
  if (!fits(out, windows, mean) || !add_moved(out, image, offsets, windows, mean, scale, tasks)) {
    in_python(transform_images_at, "pycaffe_compat::transform_images_at_", out, image, offsets, windows, mean, scale);
  } else if (out.numel()) {
    run_on_cpu(out, tasks);
  }
}

}  // namespace
}  // namespace images

TORCH_LIBRARY_IMPL(pycaffe_compat, CPU, m) {
  m.impl("transform_images_", images::transform_images);
  m.impl("transform_images_at_", images::transform_images_at);
}
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(pycaffe_compat, CUDA, m) { m.impl("transform_images_", images::transform_images); }
#endif
