// Derivatives of the compiled operators for eager PyTorch: what ops/operators.py registers in Python for every backend, here
// without a way through Python, which takes ten times as long as a small kernel. An operator's derivative is its transpose,
// again an operator with a derivative.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace switch_pool {
namespace {

using at::IntArrayRef;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

using MaxPool = std::tuple<Tensor, Tensor>(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool);
using PoolSwitch = Tensor(const Tensor&, const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, const OptionalTensor&);
using UnpoolSwitch = Tensor(const Tensor&, const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef,
                            const OptionalTensor&);
using AtFixed = Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, const OptionalTensor&);
using OfSum = Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool, const OptionalTensor&);

const auto& max_pool() {
  static const auto op = find<MaxPool>("pycaffe_compat_ext::max_pool_switch");
  return op;
}
template <bool kNormalized>
const auto& pool() {
  static const auto op =
      find<PoolSwitch>(kNormalized ? "pycaffe_compat_ext::pool_switch_normalized" : "pycaffe_compat_ext::pool_switch");
  return op;
}
template <bool kNormalized>
const auto& unpool() {
  static const auto op =
      find<UnpoolSwitch>(kNormalized ? "pycaffe_compat_ext::unpool_switch_normalized" : "pycaffe_compat_ext::unpool_switch");
  return op;
}
template <bool kPools>
const auto& fixed() {
  static const auto op = find<AtFixed>(kPools ? "pycaffe_compat_ext::pool_fixed" : "pycaffe_compat_ext::unpool_fixed");
  return op;
}
template <bool kPools>
const auto& sum() {
  static const auto op = find<OfSum>(kPools ? "pycaffe_compat_ext::pool_sum" : "pycaffe_compat_ext::unpool_sum");
  return op;
}

// What a backward needs beside tensors: window or places, and the size of the plane on the other side.
void save(AutogradContext* ctx, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, const Tensor& input) {
  ctx->saved_data["kernel"] = kernel.vec();
  ctx->saved_data["stride"] = stride.vec();
  ctx->saved_data["pad"] = pad.vec();
  ctx->saved_data["plane"] = input.sizes().slice(2).vec();
}

std::vector<int64_t> ints(AutogradContext* ctx, const char* name) { return ctx->saved_data[name].toIntVector(); }

OptionalTensor optional(const Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }
Tensor saved(const OptionalTensor& t) { return t ? *t : Tensor(); }

// One gradient for the first of n arguments.
variable_list first_of(int n, const Tensor& gradient) {
  variable_list gradients(n);
  gradients[0] = gradient;
  return gradients;
}

struct MaxPoolSwitch : Function<MaxPoolSwitch> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                               IntArrayRef output_size, bool relu) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [y, s] = max_pool().call(x, kernel, stride, pad, output_size, relu);
    save(ctx, kernel, stride, pad, x);
    ctx->save_for_backward({s, relu ? y : Tensor()});
    ctx->mark_non_differentiable({s});
    return {y, s};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const auto kept = ctx->get_saved_variables();
    return first_of(6, unpool<false>().call(dy[0], kept[0], ints(ctx, "kernel"), ints(ctx, "stride"), ints(ctx, "pad"),
                                            ints(ctx, "plane"), optional(kept[1])));
  }
};

template <bool kNormalized>
struct AtSwitch : Function<AtSwitch<kNormalized>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride,
                        IntArrayRef pad, const OptionalTensor& gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(ctx, kernel, stride, pad, x);
    ctx->save_for_backward({s, saved(gate)});
    return pool<kNormalized>().call(x, s, kernel, stride, pad, gate);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const auto kept = ctx->get_saved_variables();
    return first_of(6, unpool<kNormalized>().call(dy[0], kept[0], ints(ctx, "kernel"), ints(ctx, "stride"), ints(ctx, "pad"),
                                                  ints(ctx, "plane"), optional(kept[1])));
  }
};

template <bool kNormalized>
struct ToSwitch : Function<ToSwitch<kNormalized>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride,
                        IntArrayRef pad, IntArrayRef output_size, const OptionalTensor& gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(ctx, kernel, stride, pad, y);
    ctx->save_for_backward({s, saved(gate)});
    return unpool<kNormalized>().call(y, s, kernel, stride, pad, output_size, gate);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& dx) {
    const auto kept = ctx->get_saved_variables();
    return first_of(7, pool<kNormalized>().call(dx[0], kept[0], ints(ctx, "kernel"), ints(ctx, "stride"), ints(ctx, "pad"),
                                                optional(kept[1])));
  }
};

template <bool kPools>
struct Fixed : Function<Fixed<kPools>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, IntArrayRef offset, IntArrayRef stride,
                        IntArrayRef output_size, const OptionalTensor& gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(ctx, {}, stride, offset, x);
    ctx->save_for_backward({saved(gate)});
    return fixed<kPools>().call(x, offset, stride, output_size, gate);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradient) {
    const auto kept = ctx->get_saved_variables();
    return first_of(5, fixed<!kPools>().call(gradient[0], ints(ctx, "pad"), ints(ctx, "stride"), ints(ctx, "plane"),
                                             optional(kept[0])));
  }
};

template <bool kPools>
struct Sum : Function<Sum<kPools>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                        IntArrayRef output_size, bool average, const OptionalTensor& gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(ctx, kernel, stride, pad, x);
    ctx->saved_data["average"] = average;
    ctx->save_for_backward({saved(gate)});
    return sum<kPools>().call(x, kernel, stride, pad, output_size, average, gate);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradient) {
    const auto kept = ctx->get_saved_variables();
    return first_of(7, sum<!kPools>().call(gradient[0], ints(ctx, "kernel"), ints(ctx, "stride"), ints(ctx, "pad"),
                                           ints(ctx, "plane"), ctx->saved_data["average"].toBool(), optional(kept[0])));
  }
};

std::tuple<Tensor, Tensor> max_pool_switch(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                                           IntArrayRef output_size, bool relu) {
  const variable_list both = MaxPoolSwitch::apply(x, kernel, stride, pad, output_size, relu);
  return {both[0], both[1]};
}

template <bool kNormalized>
Tensor pool_switch(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                   const OptionalTensor& gate) {
  return AtSwitch<kNormalized>::apply(x, s, kernel, stride, pad, gate);
}

template <bool kNormalized>
Tensor unpool_switch(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                     IntArrayRef output_size, const OptionalTensor& gate) {
  return ToSwitch<kNormalized>::apply(y, s, kernel, stride, pad, output_size, gate);
}

template <bool kPools>
Tensor at_fixed(const Tensor& x, IntArrayRef offset, IntArrayRef stride, IntArrayRef output_size, const OptionalTensor& gate) {
  return Fixed<kPools>::apply(x, offset, stride, output_size, gate);
}

template <bool kPools>
Tensor of_sum(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, IntArrayRef output_size, bool average,
              const OptionalTensor& gate) {
  return Sum<kPools>::apply(x, kernel, stride, pad, output_size, average, gate);
}

}  // namespace
}  // namespace switch_pool

TORCH_LIBRARY_IMPL(pycaffe_compat_ext, Autograd, m) {
  using namespace switch_pool;
  m.impl("max_pool_switch", max_pool_switch);
  m.impl("pool_switch", pool_switch<false>);
  m.impl("pool_switch_normalized", pool_switch<true>);
  m.impl("unpool_switch", unpool_switch<false>);
  m.impl("unpool_switch_normalized", unpool_switch<true>);
  m.impl("pool_fixed", at_fixed<true>);
  m.impl("unpool_fixed", at_fixed<false>);
  m.impl("pool_sum", of_sum<true>);
  m.impl("unpool_sum", of_sum<false>);
}
