// The operators on the CPU and on CUDA: allocation of results, and the call of the kernels. Their schemas are in
// pycaffe_compat/ops/operators.py, with the checks that say what is wrong with an argument: a call that the kernels cannot
// take goes on to the implementation there. Here stands only what must hold for the kernels to stay inside their memory.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <torch/library.h>

#include <atomic>
#include <climits>

#include "cpu/dispatch.h"
#include "cpu/pages.h"
#include "in_python.h"

#ifdef WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
#endif

namespace switch_pool {
namespace {

using at::IntArrayRef;
using at::MemoryFormat;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Whether calls are served here. Python turns it off while it compares another backend with this one.
std::atomic<bool> serving{true};

// Arguments

std::optional<Type> type_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return kFloat;
    case at::kDouble:
      return kDouble;
    case at::kHalf:
      return kHalf;
    case at::kBFloat16:
      return kBFloat16;
    default:
      return std::nullopt;
  }
}

bool is_like(const Tensor& t, const Tensor& first, IntArrayRef size, at::ScalarType type) {
  return t.scalar_type() == type && t.sizes() == size && t.device() == first.device();
}

bool is_like(const OptionalTensor& t, const Tensor& first, IntArrayRef size, at::ScalarType type) {
  return !t || is_like(*t, first, size, type);
}

struct Windows {
  IntArrayRef kernel, stride, pad;
};

constexpr int64_t kLargest = INT_MAX / 2;

// The geometry of `count` windows an image on planes of `plane`; every number fits an int, so do all coordinates. None if
// that cannot be. Each window must have a place on the plane, unless the windows lie anywhere.
std::optional<Geometry> geometry(const Tensor& images, IntArrayRef plane, IntArrayRef count, const Windows& w,
                                 bool anywhere = false) {
  Geometry g{};
  g.batch = images.size(0), g.channels = images.size(1);
  int* const sizes[] = {&g.height, &g.width}, *const counts[] = {&g.rows, &g.cols};
  int* const kernels[] = {&g.kernel_h, &g.kernel_w}, *const strides[] = {&g.stride_h, &g.stride_w};
  int* const pads[] = {&g.pad_h, &g.pad_w};
  for (const IntArrayRef values : {plane, count, w.kernel, w.stride, w.pad}) {
    if (values.size() != 2) return std::nullopt;
  }
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t size = plane[axis], n = count[axis], k = w.kernel[axis], s = w.stride[axis], p = w.pad[axis];
    for (const int64_t value : {size, n, k, s}) {
      if (value < 1 || value > kLargest) return std::nullopt;
    }
    if (p > kLargest || p < (anywhere ? -kLargest : 0)) return std::nullopt;
    const int64_t last = (n - 1) * s - p;
    if (last + 2 * k >= INT_MAX || (!anywhere && (p >= k || last >= size))) return std::nullopt;
    *sizes[axis] = static_cast<int>(size);
    *counts[axis] = static_cast<int>(n);
    *kernels[axis] = static_cast<int>(k);
    *strides[axis] = static_cast<int>(s);
    *pads[axis] = static_cast<int>(p);
  }
  return g;
}

bool fits_byte(const Geometry& g) { return int64_t(g.kernel_h) * g.kernel_w <= kNone; }

// A fixed place at `offset` from every stride-th place is a window of one place with a negative pad. Where it lies in the
// first 2x2 places of a stride of 2, it is also a switch that is the same everywhere, which has faster kernels.
struct Fixed {
  int place = -1;
  std::optional<Geometry> geometry;

  Fixed(const Tensor& images, IntArrayRef plane, IntArrayRef count, IntArrayRef offset, IntArrayRef stride) {
    const auto near = [](int64_t i) { return i == 0 || i == 1; };
    const auto far = [](int64_t i) { return i < -kLargest || i > kLargest; };
    if (offset.size() != 2 || stride.size() != 2 || far(offset[0]) || far(offset[1])) return;
    if (stride[0] == 2 && stride[1] == 2 && near(offset[0]) && near(offset[1])) {
      place = static_cast<int>(offset[0] * 2 + offset[1]);
    }
    const int64_t side = place < 0 ? 1 : 2, kernel[] = {side, side};
    const int64_t pad[] = {place < 0 ? -offset[0] : 0, place < 0 ? -offset[1] : 0};
    geometry = switch_pool::geometry(images, plane, count, {kernel, stride, pad}, true);
  }
};

// Results

// As _format in pycaffe_compat/ops/operators.py.
MemoryFormat format_of(const Tensor& first) {
  const bool last = !first.is_contiguous() && first.is_contiguous(MemoryFormat::ChannelsLast);
  return last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// A tensor of the images and channels of `first`, in its format, with planes of another size.
Tensor result(const Tensor& first, IntArrayRef plane, at::ScalarType dtype) {
  const int64_t size[] = {first.size(0), first.size(1), plane[0], plane[1]};
  if (!first.is_cpu()) return at::empty(size, first.options().dtype(dtype).memory_format(format_of(first)));
  return at::detail::empty_generic(size, pages(), c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, format_of(first));
}

// Calls

// Where a call runs, and its arguments in one memory format.
class Call {
 public:
  const bool channels_last;

  explicit Call(const Tensor& first)
      : channels_last(format_of(first) == MemoryFormat::ChannelsLast)
#ifdef WITH_CUDA
        ,
        on_cuda(first.is_cuda()),
        guard(on_cuda ? std::optional<c10::Device>(first.device()) : std::nullopt)
#endif
  {
  }

  Tensor dense(const Tensor& t) const {
    return t.contiguous(channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  }
  Tensor dense(const OptionalTensor& t) const { return t ? dense(*t) : Tensor(); }

  // Runs the kernel of the device. False if that found a switch outside its window or plane; only the CPU looks.
  template <class OnCpu, class OnCuda, class... Args>
  bool run(const OnCpu& cpu_kernel, [[maybe_unused]] const OnCuda& cuda_kernel, const Args&... args) const {
#ifdef WITH_CUDA
    if (on_cuda) {
      const int error = cuda_kernel(args..., c10::cuda::getCurrentCUDAStream().stream());
      TORCH_CHECK(error == 0, "a CUDA kernel was not launched: ", cuda::error_name(error));
      return true;
    }
#endif
    if constexpr (std::is_void_v<decltype(cpu_kernel(args...))>) {
      cpu_kernel(args...);
      return true;
    } else {
      return cpu_kernel(args...);
    }
  }

#ifdef WITH_CUDA
 private:
  const bool on_cuda;
  const c10::cuda::OptionalCUDAGuard guard;
#endif
};

#ifdef WITH_CUDA
#define KERNELS(name) cpu::name, cuda::name
#else
#define KERNELS(name) cpu::name, nullptr
#endif

const void* data(const Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }
const uint8_t* bytes(const Tensor& t) { return t.defined() ? t.const_data_ptr<uint8_t>() : nullptr; }

// The operators

std::tuple<Tensor, Tensor> max_pool_switch(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                                           IntArrayRef output_size, bool relu) {
  const auto type = type_of(x.scalar_type());
  const bool fine = serving && x.dim() == 4 && type;
  const auto g = fine ? geometry(x, x.sizes().slice(2), output_size, {kernel, stride, pad}) : std::nullopt;
  if (!g || !fits_byte(*g)) {
    return in_python(max_pool_switch, "pycaffe_compat::max_pool_switch", x, kernel, stride, pad, output_size, relu);
  }
  const Call call(x);
  Tensor y = result(x, output_size, x.scalar_type()), s = result(x, output_size, at::kByte);
  if (y.numel()) {
    call.run(KERNELS(max_pool_switch), *g, *type, call.channels_last, data(call.dense(x)), relu, y.data_ptr(),
             s.data_ptr<uint8_t>());
  }
  return {y, s};
}

template <bool kNormalized>
Tensor pool_switch(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                   const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(pool_switch<kNormalized>,
                     kNormalized ? "pycaffe_compat::pool_switch_normalized" : "pycaffe_compat::pool_switch", x, s, kernel,
                     stride, pad, gate);
  };
  const auto type = type_of(x.scalar_type());
  if (!serving || !type || x.dim() != 4 || s.dim() != 4) return refused();
  const int64_t size[] = {x.size(0), x.size(1), s.size(2), s.size(3)};
  const auto g = geometry(x, x.sizes().slice(2), s.sizes().slice(2), {kernel, stride, pad});
  if (!g || !fits_byte(*g) || !is_like(s, x, size, at::kByte) || !is_like(gate, x, size, x.scalar_type())) return refused();
  const Call call(x);
  Tensor y = result(x, s.sizes().slice(2), x.scalar_type());
  if (!y.numel()) return y;
  const Tensor in = call.dense(x), places = call.dense(s), open = call.dense(gate);
  const bool valid = call.run(KERNELS(pool_switch), *g, *type, call.channels_last, data(in), bytes(places), 0, kNormalized,
                              data(open), y.data_ptr());
  return valid ? y : refused();
}

template <bool kNormalized>
Tensor unpool_switch(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                     IntArrayRef output_size, const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(unpool_switch<kNormalized>,
                     kNormalized ? "pycaffe_compat::unpool_switch_normalized" : "pycaffe_compat::unpool_switch", y, s, kernel,
                     stride, pad, output_size, gate);
  };
  const auto type = type_of(y.scalar_type());
  if (!serving || !type || y.dim() != 4) return refused();
  const auto g = geometry(y, output_size, y.sizes().slice(2), {kernel, stride, pad});
  if (!g || !fits_byte(*g) || !is_like(s, y, y.sizes(), at::kByte) || !is_like(gate, y, y.sizes(), y.scalar_type())) {
    return refused();
  }
  const Call call(y);
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Tensor in = call.dense(y), places = call.dense(s), open = call.dense(gate);
  const bool valid = call.run(KERNELS(unpool), *g, *type, kSwitch, call.channels_last, data(in), bytes(places), 0, kNormalized,
                              data(open), x.data_ptr());
  return valid ? x : refused();
}

Tensor unpool_weights(const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                      at::ScalarType dtype) {
  const auto refused = [&] {
    return in_python(unpool_weights, "pycaffe_compat::unpool_weights", s, kernel, stride, pad, output_size, dtype);
  };
  const auto type = type_of(dtype);
  if (!serving || !type || s.dim() != 4 || s.scalar_type() != at::kByte) return refused();
  const auto g = geometry(s, output_size, s.sizes().slice(2), {kernel, stride, pad});
  if (!g || !fits_byte(*g)) return refused();
  const Call call(s);
  Tensor x = result(s, output_size, dtype);
  if (!x.numel()) return x;
  const bool valid =
      call.run(KERNELS(unpool_weights), *g, *type, call.channels_last, bytes(call.dense(s)), x.data_ptr());
  return valid ? x : refused();
}

Tensor pool_fixed(const Tensor& x, IntArrayRef offset, IntArrayRef stride, IntArrayRef output_size,
                  const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(pool_fixed, "pycaffe_compat::pool_fixed", x, offset, stride, output_size, gate);
  };
  const auto type = type_of(x.scalar_type());
  if (!serving || !type || x.dim() != 4) return refused();
  const Fixed fixed(x, x.sizes().slice(2), output_size, offset, stride);
  if (!fixed.geometry) return refused();
  const int64_t size[] = {x.size(0), x.size(1), output_size[0], output_size[1]};
  if (!is_like(gate, x, size, x.scalar_type())) return refused();
  const Call call(x);
  Tensor y = result(x, output_size, x.scalar_type());
  if (!y.numel()) return y;
  const Tensor in = call.dense(x), open = call.dense(gate);
  if (fixed.place < 0) {
    call.run(KERNELS(pool_sum), *fixed.geometry, *type, call.channels_last, data(in), false, data(open), y.data_ptr());
  } else {
    call.run(KERNELS(pool_switch), *fixed.geometry, *type, call.channels_last, data(in), nullptr, fixed.place, false,
             data(open), y.data_ptr());
  }
  return y;
}

Tensor unpool_fixed(const Tensor& y, IntArrayRef offset, IntArrayRef stride, IntArrayRef output_size,
                    const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(unpool_fixed, "pycaffe_compat::unpool_fixed", y, offset, stride, output_size, gate);
  };
  const auto type = type_of(y.scalar_type());
  if (!serving || !type || y.dim() != 4) return refused();
  const Fixed fixed(y, output_size, y.sizes().slice(2), offset, stride);
  if (!fixed.geometry || !is_like(gate, y, y.sizes(), y.scalar_type())) return refused();
  const Call call(y);
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Tensor in = call.dense(y), open = call.dense(gate);
  call.run(KERNELS(unpool), *fixed.geometry, *type, fixed.place < 0 ? kSum : kSwitch, call.channels_last, data(in), nullptr,
           fixed.place, false, data(open), x.data_ptr());
  return x;
}

Tensor pool_sum(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                bool average, const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(pool_sum, "pycaffe_compat::pool_sum", x, kernel, stride, pad, output_size, average, gate);
  };
  const auto type = type_of(x.scalar_type());
  if (!serving || !type || x.dim() != 4) return refused();
  const auto g = geometry(x, x.sizes().slice(2), output_size, {kernel, stride, pad});
  if (!g) return refused();
  const int64_t size[] = {x.size(0), x.size(1), output_size[0], output_size[1]};
  if (!is_like(gate, x, size, x.scalar_type())) return refused();
  const Call call(x);
  Tensor y = result(x, output_size, x.scalar_type());
  if (!y.numel()) return y;
  const Tensor in = call.dense(x), open = call.dense(gate);
  call.run(KERNELS(pool_sum), *g, *type, call.channels_last, data(in), average, data(open), y.data_ptr());
  return y;
}

Tensor unpool_sum(const Tensor& y, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                  bool average, const OptionalTensor& gate) {
  const auto refused = [&] {
    return in_python(unpool_sum, "pycaffe_compat::unpool_sum", y, kernel, stride, pad, output_size, average, gate);
  };
  const auto type = type_of(y.scalar_type());
  if (!serving || !type || y.dim() != 4) return refused();
  const auto g = geometry(y, output_size, y.sizes().slice(2), {kernel, stride, pad});
  if (!g || !is_like(gate, y, y.sizes(), y.scalar_type())) return refused();
  const Call call(y);
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Tensor in = call.dense(y), open = call.dense(gate);
  call.run(KERNELS(unpool), *g, *type, average ? kAverage : kSum, call.channels_last, data(in), nullptr, 0, false, data(open),
           x.data_ptr());
  return x;
}

void implement(torch::Library& m) {
  m.impl("max_pool_switch", max_pool_switch);
  m.impl("pool_switch", pool_switch<false>);
  m.impl("unpool_switch", unpool_switch<false>);
  m.impl("pool_switch_normalized", pool_switch<true>);
  m.impl("unpool_switch_normalized", unpool_switch<true>);
  m.impl("unpool_weights", unpool_weights);
  m.impl("pool_fixed", pool_fixed);
  m.impl("unpool_fixed", unpool_fixed);
  m.impl("pool_sum", pool_sum);
  m.impl("unpool_sum", unpool_sum);
}

void use_kernels(bool on) { serving = on; }
std::string instruction_set() { return cpu::instruction_set(); }

}  // namespace
}  // namespace switch_pool

TORCH_LIBRARY_IMPL(pycaffe_compat, CPU, m) { switch_pool::implement(m); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(pycaffe_compat, CUDA, m) { switch_pool::implement(m); }
#endif

// What only the compiled library has.
TORCH_LIBRARY_FRAGMENT(pycaffe_compat, m) {
  m.def("use_kernels(bool on) -> ()", switch_pool::use_kernels);
  m.def("instruction_set() -> str", switch_pool::instruction_set);
}
