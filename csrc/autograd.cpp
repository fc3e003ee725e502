// Derivatives of the operators in C++: a way through Python takes longer than pooling a small tensor.
//
// Every operator is linear in its first tensor, max pooling too once it has chosen. So its derivative is a call of its
// transpose, again an operator with a derivative. ops/operators.py says the same in Python, for an installation without
// this library. The nodes are written out, as PyTorch's own are: torch::autograd::Function refuses to run under torch.func.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <functional>

namespace switch_pool {
namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::SymIntArrayRef;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

// The operators

using MaxPool = std::tuple<Tensor, Tensor>(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, SymIntArrayRef, bool);
using PoolSwitch = Tensor(const Tensor&, const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, const OptionalTensor&);
using UnpoolSwitch = Tensor(const Tensor&, const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, SymIntArrayRef,
                            const OptionalTensor&);
using AtFixed = Tensor(const Tensor&, IntArrayRef, IntArrayRef, SymIntArrayRef, const OptionalTensor&);
using OfSum = Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, SymIntArrayRef, bool, const OptionalTensor&);

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

const auto& max_pool() {
  static const auto op = find<MaxPool>("pycaffe_compat::max_pool_switch");
  return op;
}
template <bool kNormalized>
const auto& pool() {
  static const auto op =
      find<PoolSwitch>(kNormalized ? "pycaffe_compat::pool_switch_normalized" : "pycaffe_compat::pool_switch");
  return op;
}
template <bool kNormalized>
const auto& unpool() {
  static const auto op =
      find<UnpoolSwitch>(kNormalized ? "pycaffe_compat::unpool_switch_normalized" : "pycaffe_compat::unpool_switch");
  return op;
}
template <bool kPools>
const auto& fixed() {
  static const auto op = find<AtFixed>(kPools ? "pycaffe_compat::pool_fixed" : "pycaffe_compat::unpool_fixed");
  return op;
}
template <bool kPools>
const auto& sum() {
  static const auto op = find<OfSum>(kPools ? "pycaffe_compat::pool_sum" : "pycaffe_compat::unpool_sum");
  return op;
}

// The graph

// Backward of an operator: its transpose applied to the gradient, with the switches and the gate that it was given.
struct Transpose : Node {
  std::function<Tensor(const Tensor& gradient, const Tensor& s, const OptionalTensor& gate)> call;
  SavedVariable s, gate;

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor()};
    const std::lock_guard<std::mutex> lock(mutex_);
    const Tensor open = gate.unpack(getptr());
    return {call(gradients[0], s.unpack(), open.defined() ? OptionalTensor(open) : std::nullopt)};
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    s.reset_data(), gate.reset_data();
  }

  std::string name() const override { return "PycaffeCompatTranspose"; }
};

// Nodes are counted by std::shared_ptr, from PyTorch 2.13 on by themselves.
template <class N>
auto make_node() {
  if constexpr (std::is_same_v<decltype(torch::autograd::Edge::function), std::shared_ptr<Node>>) {
    return std::shared_ptr<N>(new N(), [](N* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<N>();
  }
}

using Pointer = decltype(make_node<Transpose>());

// The node of a call with `first`; null where nobody will ask for a gradient.
Pointer record(const Tensor& first) {
  TORCH_CHECK_NOT_IMPLEMENTED(!first._fw_grad(0).defined(), "Caffe's pooling operators do not support forward-mode autograd");
  if (!torch::autograd::compute_requires_grad(first)) return nullptr;
  Pointer node = make_node<Transpose>();
  node->set_next_edges(torch::autograd::collect_next_edges(first));
  return node;
}

// Completes the node of a call that returned `result`.
template <class Function>
void keep(const Pointer& node, const Tensor& result, const OptionalTensor& gate, const Function& transpose) {
  torch::autograd::set_history(result, node);
  node->gate = SavedVariable(gate, gate && gate->is_same(result));
  node->call = transpose;
}

template <class Function>
auto below_autograd(const Function& function) {
  at::AutoDispatchBelowADInplaceOrView below;
  return function();
}

// A copy of an argument for later.
c10::DimVector copy(IntArrayRef values) { return {values.begin(), values.end()}; }

c10::SymDimVector plane_of(const Tensor& t) {
  const SymIntArrayRef sizes = t.sym_sizes();
  return {sizes.begin() + std::min<size_t>(2, sizes.size()), sizes.end()};
}

// The operators with derivatives

std::tuple<Tensor, Tensor> max_pool_switch(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                                           SymIntArrayRef output_size, bool relu) {
  const Pointer node = record(x);
  auto both = below_autograd([&] { return max_pool().call(x, kernel, stride, pad, output_size, relu); });
  if (node) {
    const auto& [y, s] = both;
    keep(node, y, relu ? OptionalTensor(y) : std::nullopt,
         [k = copy(kernel), st = copy(stride), p = copy(pad), plane = plane_of(x)](auto& dy, auto& s, auto& gate) {
           return unpool<false>().call(dy, s, k, st, p, plane, gate);
         });
    node->s = SavedVariable(s, false);
  }
  return both;
}

template <bool kNormalized>
Tensor pool_switch(const Tensor& x, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                   const OptionalTensor& gate) {
  const Pointer node = record(x);
  Tensor y = below_autograd([&] { return pool<kNormalized>().call(x, s, kernel, stride, pad, gate); });
  if (node) {
    keep(node, y, gate,
         [k = copy(kernel), st = copy(stride), p = copy(pad), plane = plane_of(x)](auto& dy, auto& s, auto& gate) {
           return unpool<kNormalized>().call(dy, s, k, st, p, plane, gate);
         });
    node->s = SavedVariable(s, false);
  }
  return y;
}

template <bool kNormalized>
Tensor unpool_switch(const Tensor& y, const Tensor& s, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad,
                     SymIntArrayRef output_size, const OptionalTensor& gate) {
  const Pointer node = record(y);
  Tensor x = below_autograd([&] { return unpool<kNormalized>().call(y, s, kernel, stride, pad, output_size, gate); });
  if (node) {
    keep(node, x, gate, [k = copy(kernel), st = copy(stride), p = copy(pad)](auto& dx, auto& s, auto& gate) {
      return pool<kNormalized>().call(dx, s, k, st, p, gate);
    });
    node->s = SavedVariable(s, false);
  }
  return x;
}

template <bool kPools>
Tensor at_fixed(const Tensor& x, IntArrayRef offset, IntArrayRef stride, SymIntArrayRef output_size,
                const OptionalTensor& gate) {
  const Pointer node = record(x);
  Tensor y = below_autograd([&] { return fixed<kPools>().call(x, offset, stride, output_size, gate); });
  if (node) {
    keep(node, y, gate, [o = copy(offset), st = copy(stride), plane = plane_of(x)](auto& dy, auto&, auto& gate) {
      return fixed<!kPools>().call(dy, o, st, plane, gate);
    });
  }
  return y;
}

template <bool kPools>
Tensor of_sum(const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef pad, SymIntArrayRef output_size,
              bool average, const OptionalTensor& gate) {
  const Pointer node = record(x);
  Tensor y = below_autograd([&] { return sum<kPools>().call(x, kernel, stride, pad, output_size, average, gate); });
  if (node) {
    keep(node, y, gate,
         [k = copy(kernel), st = copy(stride), p = copy(pad), plane = plane_of(x), average](auto& dy, auto&, auto& gate) {
           return sum<!kPools>().call(dy, k, st, p, plane, average, gate);
         });
  }
  return y;
}

}  // namespace
}  // namespace switch_pool

TORCH_LIBRARY_IMPL(pycaffe_compat, Autograd, m) {
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
