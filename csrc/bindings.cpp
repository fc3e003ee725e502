// The operators in PyTorch's dispatcher: schemas, argument checks, allocation of results, and the call of the kernels.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <torch/library.h>

#include <climits>

#include "cpu/dispatch.h"
#include "cpu/pages.h"

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

Type type_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return kFloat;
    case at::kDouble:
      return kDouble;
    case at::kHalf:
      return kHalf;
    case at::kBFloat16:
      return kBFloat16;
    default:
      TORCH_CHECK_TYPE(false, name, " is ", t.scalar_type(), ", but must be Float, Double, Half or BFloat16");
  }
}

void check_dims(const Tensor& t, const char* name) {
  TORCH_CHECK_VALUE(t.dim() == 4, name, " has shape ", t.sizes(), ", but must have 4 axes: (N, C, H, W)");
}

void check_like(const Tensor& t, const char* name, const Tensor& other, const char* other_name) {
  check_dims(t, name);
  TORCH_CHECK_VALUE(t.sizes() == other.sizes(), name, " has shape ", t.sizes(), ", but ", other_name, " has ", other.sizes());
  TORCH_CHECK_VALUE(t.device() == other.device(), name, " is on ", t.device(), ", but ", other_name, " is on ", other.device());
}

void check_gate(const OptionalTensor& gate, const Tensor& dtype_of, const char* dtype_name) {
  TORCH_CHECK_TYPE(!gate || gate->scalar_type() == dtype_of.scalar_type(), "gate is ", gate->scalar_type(), ", but ",
                   dtype_name, " is ", dtype_of.scalar_type());
}

void check_switch(const Tensor& s) {
  check_dims(s, "switch");
  TORCH_CHECK_TYPE(s.scalar_type() == at::kByte, "switch is ", s.scalar_type(), ", but must be Byte");
}

int pair_at(IntArrayRef values, int axis, const char* name, int64_t least) {
  TORCH_CHECK_VALUE(values.size() == 2, name, " is ", values, ", but must be two integers, (h, w)");
  TORCH_CHECK_VALUE(values[axis] >= least && values[axis] <= INT_MAX / 2, name, " is ", values, ", but must be at least ",
                    least, " and at most ", INT_MAX / 2);
  return static_cast<int>(values[axis]);
}

constexpr int kAnywhere = -(INT_MAX / 2);

struct Windows {
  IntArrayRef kernel, stride, pad;
};

// The geometry of `count` windows an image on planes of `plane`; every number fits an int, so do all coordinates.
Geometry geometry(const Tensor& images, IntArrayRef plane, IntArrayRef count, const Windows& w, int least_pad = 0) {
  Geometry g{};
  g.batch = images.size(0), g.channels = images.size(1);
  int* const sizes[] = {&g.height, &g.width}, *const counts[] = {&g.rows, &g.cols};
  int* const kernels[] = {&g.kernel_h, &g.kernel_w}, *const strides[] = {&g.stride_h, &g.stride_w};
  int* const pads[] = {&g.pad_h, &g.pad_w};
  for (int axis = 0; axis < 2; ++axis) {
    *sizes[axis] = pair_at(plane, axis, "the size of the plane", 1);
    *counts[axis] = pair_at(count, axis, "the number of windows", 1);
    *kernels[axis] = pair_at(w.kernel, axis, "kernel", 1);
    *strides[axis] = pair_at(w.stride, axis, "stride", 1);
    *pads[axis] = pair_at(w.pad, axis, "pad", least_pad);
    TORCH_CHECK_VALUE(least_pad < 0 || w.pad[axis] < w.kernel[axis], "pad is ", w.pad, ", but must be smaller than kernel, ",
                      w.kernel);
    const int64_t last = (count[axis] - 1) * w.stride[axis] - w.pad[axis];
    TORCH_CHECK_VALUE(least_pad < 0 || last < plane[axis], "the last of ", count[axis], " windows starts at ", last,
                      ", but the plane ends at ", plane[axis], ": no input in it");
    TORCH_CHECK_VALUE(last + 2 * w.kernel[axis] < INT_MAX, "the last of ", count[axis], " windows starts at ", last,
                      ", but must start before ", INT_MAX - 2 * w.kernel[axis]);
  }
  return g;
}

void check_places(const Geometry& g) {
  TORCH_CHECK_VALUE(int64_t(g.kernel_h) * g.kernel_w <= kNone, "kernel is (", g.kernel_h, ", ", g.kernel_w,
                    "), but a window with a switch of one byte has at most 255 places");
}

// As _format of ops/operators.py.
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

[[noreturn]] void raise_stray(const Tensor& s, const Geometry& g) {
  const Tensor dense = s.contiguous();
  const uint8_t* place = dense.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < dense.numel(); ++i) {
    if (place[i] == kNone) continue;
    const int64_t row = i / g.cols % g.rows, col = i % g.cols;
    const int64_t h = row * g.stride_h - g.pad_h + place[i] / g.kernel_w;
    const int64_t w = col * g.stride_w - g.pad_w + place[i] % g.kernel_w;
    const int64_t plane = i / g.cols / g.rows, places = int64_t(g.kernel_h) * g.kernel_w;
    TORCH_CHECK_VALUE(place[i] < places && h >= 0 && h < g.height && w >= 0 && w < g.width, "switch[", plane / g.channels,
                      ", ", plane % g.channels, ", ", row, ", ", col, "] is ", int(place[i]), ", outside its window: kernel (",
                      g.kernel_h, ", ", g.kernel_w, "), stride (", g.stride_h, ", ", g.stride_w, "), pad (", g.pad_h, ", ",
                      g.pad_w, ") on a plane of ", g.height, "x", g.width, " (valid: 0 to ", places - 1,
                      " inside the plane, 255 for none)");
  }
  TORCH_INTERNAL_ASSERT(false, "a stray switch was reported, but there is none");
}

// The arguments of one call in one memory format, and where it runs.
struct Call {
  const MemoryFormat format;
  const bool channels_last;
#ifdef WITH_CUDA
  const c10::cuda::OptionalCUDAGuard guard;
  void* stream = nullptr;
#endif

  explicit Call(const Tensor& first)
      : format(format_of(first)),
        channels_last(format == MemoryFormat::ChannelsLast)
#ifdef WITH_CUDA
        ,
        guard(first.is_cuda() ? std::optional<c10::Device>(first.device()) : std::nullopt)
#endif
  {
#ifdef WITH_CUDA
    if (first.is_cuda()) stream = c10::cuda::getCurrentCUDAStream().stream();
#endif
  }

  Tensor dense(const Tensor& t) const { return t.contiguous(format); }
  Tensor dense(const OptionalTensor& t) const { return t ? t->contiguous(format) : Tensor(); }
};

const void* data(const Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

// Runs the CUDA or the CPU kernel; false if that found a stray switch.
#ifdef WITH_CUDA
#define SP_RUN(call, tensor, function, ...)                                                                     \
  [&]() -> bool {                                                                                               \
    if (!tensor.is_cuda()) return run_cpu([&] { return cpu::function(__VA_ARGS__); });                          \
    const int error = cuda::function(__VA_ARGS__, call.stream);                                                 \
    TORCH_CHECK(error == 0, #function, ": the CUDA kernel was not launched: ", cuda::error_name(error));        \
    return true;                                                                                                \
  }()
#else
#define SP_RUN(call, tensor, function, ...) run_cpu([&] { return cpu::function(__VA_ARGS__); })
#endif

template <class Function>
bool run_cpu(const Function& function) {
  if constexpr (std::is_void_v<decltype(function())>) {
    function();
    return true;
  } else {
    return function();
  }
}

std::tuple<Tensor, Tensor> max_pool_switch(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                                           IntArrayRef output_size, bool relu) {
  check_dims(x, "x");
  const Type type = type_of(x, "x");
  const Geometry g = geometry(x, x.sizes().slice(2), output_size, {kernel, stride, pad});
  check_places(g);
  const Call call(x);
  const Tensor in = call.dense(x);
  Tensor y = result(x, output_size, x.scalar_type()), s = result(x, output_size, at::kByte);
  if (y.numel()) {
    SP_RUN(call, x, max_pool_switch, g, type, call.channels_last, data(in), relu, y.data_ptr(), s.data_ptr<uint8_t>());
  }
  return {y, s};
}

Tensor pool_at_switch(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                      const OptionalTensor& gate, bool normalized) {
  check_dims(x, "x");
  check_switch(s);
  TORCH_CHECK_VALUE(x.sizes().slice(0, 2) == s.sizes().slice(0, 2), "switch has shape ", s.sizes(), ", but x has ",
                    x.sizes(), ": images and channels must agree");
  TORCH_CHECK_VALUE(x.device() == s.device(), "switch is on ", s.device(), ", but x is on ", x.device());
  if (gate) check_like(*gate, "gate", s, "switch");
  check_gate(gate, x, "x");
  const Type type = type_of(x, "x");
  const IntArrayRef size = s.sizes().slice(2);
  Tensor y = result(x, size, x.scalar_type());
  if (!y.numel()) return y;
  const Geometry g = geometry(x, x.sizes().slice(2), size, {kernel, stride, pad});
  check_places(g);
  const Call call(x);
  const Tensor in = call.dense(x), places = call.dense(s), open = call.dense(gate);
  if (!SP_RUN(call, x, pool_switch, g, type, call.channels_last, data(in), places.const_data_ptr<uint8_t>(), 0, normalized,
              data(open), y.data_ptr())) {
    raise_stray(s, g);
  }
  return y;
}

Tensor pool_switch(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                   const OptionalTensor& gate) {
  return pool_at_switch(x, s, kernel, stride, pad, gate, false);
}

Tensor pool_switch_normalized(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                              const OptionalTensor& gate) {
  return pool_at_switch(x, s, kernel, stride, pad, gate, true);
}

Tensor unpool_at_switch(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                        IntArrayRef output_size, const OptionalTensor& gate, bool normalized) {
  check_dims(y, "y");
  check_switch(s);
  check_like(s, "switch", y, "y");
  if (gate) check_like(*gate, "gate", y, "y");
  check_gate(gate, y, "y");
  const Type type = type_of(y, "y");
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Geometry g = geometry(y, output_size, y.sizes().slice(2), {kernel, stride, pad});
  check_places(g);
  const Call call(y);
  const Tensor in = call.dense(y), places = call.dense(s), open = call.dense(gate);
  if (!SP_RUN(call, y, unpool, g, type, kSwitch, call.channels_last, data(in), places.const_data_ptr<uint8_t>(), 0,
              normalized, data(open), x.data_ptr())) {
    raise_stray(s, g);
  }
  return x;
}

Tensor unpool_switch(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                     IntArrayRef output_size, const OptionalTensor& gate) {
  return unpool_at_switch(y, s, kernel, stride, pad, output_size, gate, false);
}

Tensor unpool_switch_normalized(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                                IntArrayRef output_size, const OptionalTensor& gate) {
  return unpool_at_switch(y, s, kernel, stride, pad, output_size, gate, true);
}

Tensor unpool_weights(const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                      at::ScalarType dtype) {
  check_switch(s);
  Tensor x = result(s, output_size, dtype);
  const Type type = type_of(x, "dtype");
  if (!x.numel()) return x;
  const Geometry g = geometry(s, output_size, s.sizes().slice(2), {kernel, stride, pad});
  check_places(g);
  const Call call(s);
  const Tensor places = call.dense(s);
  if (!SP_RUN(call, s, unpool_weights, g, type, call.channels_last, places.const_data_ptr<uint8_t>(), x.data_ptr())) {
    raise_stray(s, g);
  }
  return x;
}

// A fixed place at `offset` from every stride-th place is a window of one place with a negative pad. Where it lies in the
// first 2x2 places of a stride of 2, it is also a switch that is the same everywhere, which has faster kernels.
struct Fixed {
  int64_t kernel[2], pad[2];
  int place = -1;

  Fixed(IntArrayRef offset, IntArrayRef stride) {
    pair_at(offset, 0, "offset", kAnywhere), pair_at(offset, 1, "offset", kAnywhere);
    pair_at(stride, 0, "stride", 1);
    const auto low = [](int64_t i) { return i == 0 || i == 1; };
    if (stride[0] == 2 && stride[1] == 2 && low(offset[0]) && low(offset[1])) {
      place = static_cast<int>(offset[0] * 2 + offset[1]);
    }
    for (int axis = 0; axis < 2; ++axis) {
      kernel[axis] = place < 0 ? 1 : 2;
      pad[axis] = place < 0 ? -offset[axis] : 0;
    }
  }
};

Tensor pool_fixed(const Tensor& x, IntArrayRef offset, IntArrayRef stride, IntArrayRef output_size,
                  const OptionalTensor& gate) {
  check_dims(x, "x");
  const Type type = type_of(x, "x");
  Tensor y = result(x, output_size, x.scalar_type());
  if (gate) check_like(*gate, "gate", y, "the result");
  check_gate(gate, x, "x");
  if (!y.numel()) return y;
  const Fixed fixed(offset, stride);
  const Geometry g = geometry(x, x.sizes().slice(2), output_size, {fixed.kernel, stride, fixed.pad}, kAnywhere);
  const Call call(x);
  const Tensor in = call.dense(x), open = call.dense(gate);
  if (fixed.place < 0) {
    SP_RUN(call, x, pool_sum, g, type, call.channels_last, data(in), false, data(open), y.data_ptr());
  } else {
    SP_RUN(call, x, pool_switch, g, type, call.channels_last, data(in), nullptr, fixed.place, false, data(open), y.data_ptr());
  }
  return y;
}

Tensor unpool_fixed(const Tensor& y, IntArrayRef offset, IntArrayRef stride, IntArrayRef output_size,
                    const OptionalTensor& gate) {
  check_dims(y, "y");
  const Type type = type_of(y, "y");
  if (gate) check_like(*gate, "gate", y, "y");
  check_gate(gate, y, "y");
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Fixed fixed(offset, stride);
  const Geometry g = geometry(y, output_size, y.sizes().slice(2), {fixed.kernel, stride, fixed.pad}, kAnywhere);
  const Call call(y);
  const Tensor in = call.dense(y), open = call.dense(gate);
  SP_RUN(call, y, unpool, g, type, fixed.place < 0 ? kSum : kSwitch, call.channels_last, data(in), nullptr, fixed.place, false,
         data(open), x.data_ptr());
  return x;
}

Tensor pool_sum(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                bool average, const OptionalTensor& gate) {
  check_dims(x, "x");
  const Type type = type_of(x, "x");
  Tensor y = result(x, output_size, x.scalar_type());
  if (gate) check_like(*gate, "gate", y, "the result");
  check_gate(gate, x, "x");
  if (!y.numel()) return y;
  const Geometry g = geometry(x, x.sizes().slice(2), output_size, {kernel, stride, pad});
  const Call call(x);
  const Tensor in = call.dense(x), open = call.dense(gate);
  SP_RUN(call, x, pool_sum, g, type, call.channels_last, data(in), average, data(open), y.data_ptr());
  return y;
}

Tensor unpool_sum(const Tensor& y, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size,
                  bool average, const OptionalTensor& gate) {
  check_dims(y, "y");
  const Type type = type_of(y, "y");
  if (gate) check_like(*gate, "gate", y, "y");
  check_gate(gate, y, "y");
  Tensor x = result(y, output_size, y.scalar_type());
  if (!x.numel()) return x;
  const Geometry g = geometry(y, output_size, y.sizes().slice(2), {kernel, stride, pad});
  const Call call(y);
  const Tensor in = call.dense(y), open = call.dense(gate);
  SP_RUN(call, y, unpool, g, type, average ? kAverage : kSum, call.channels_last, data(in), nullptr, 0, false, data(open),
         x.data_ptr());
  return x;
}

void implement(torch::Library& m) {
  m.impl("max_pool_switch", max_pool_switch);
  m.impl("pool_switch", pool_switch);
  m.impl("unpool_switch", unpool_switch);
  m.impl("pool_switch_normalized", pool_switch_normalized);
  m.impl("unpool_switch_normalized", unpool_switch_normalized);
  m.impl("unpool_weights", unpool_weights);
  m.impl("pool_fixed", pool_fixed);
  m.impl("unpool_fixed", unpool_fixed);
  m.impl("pool_sum", pool_sum);
  m.impl("unpool_sum", unpool_sum);
}

std::string instruction_set() { return cpu::instruction_set(); }

}  // namespace
}  // namespace switch_pool

TORCH_LIBRARY(pycaffe_compat_ext, m) {
  m.def(
      "max_pool_switch(Tensor x, int[2] kernel, int[2] stride, int[2] pad, SymInt[2] output_size, bool relu) -> "
      "(Tensor y, Tensor switch)");
  m.def("pool_switch(Tensor x, Tensor switch, int[2] kernel, int[2] stride, int[2] pad, Tensor? gate) -> Tensor");
  m.def(
      "unpool_switch(Tensor y, Tensor switch, int[2] kernel, int[2] stride, int[2] pad, SymInt[2] output_size, "
      "Tensor? gate) -> Tensor");
  m.def("pool_switch_normalized(Tensor x, Tensor switch, int[2] kernel, int[2] stride, int[2] pad, Tensor? gate) -> Tensor");
  m.def(
      "unpool_switch_normalized(Tensor y, Tensor switch, int[2] kernel, int[2] stride, int[2] pad, "
      "SymInt[2] output_size, Tensor? gate) -> Tensor");
  m.def(
      "unpool_weights(Tensor switch, int[2] kernel, int[2] stride, int[2] pad, SymInt[2] output_size, ScalarType dtype) "
      "-> Tensor");
  m.def("pool_fixed(Tensor x, int[2] offset, int[2] stride, SymInt[2] output_size, Tensor? gate) -> Tensor");
  m.def("unpool_fixed(Tensor y, int[2] offset, int[2] stride, SymInt[2] output_size, Tensor? gate) -> Tensor");
  m.def(
      "pool_sum(Tensor x, int[2] kernel, int[2] stride, int[2] pad, SymInt[2] output_size, bool average, Tensor? gate) "
      "-> Tensor");
  m.def(
      "unpool_sum(Tensor y, int[2] kernel, int[2] stride, int[2] pad, SymInt[2] output_size, bool average, Tensor? gate) "
      "-> Tensor");
  m.def("instruction_set() -> str", switch_pool::instruction_set);
}

TORCH_LIBRARY_IMPL(pycaffe_compat_ext, CPU, m) { switch_pool::implement(m); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(pycaffe_compat_ext, CUDA, m) { switch_pool::implement(m); }
#endif
