// Operators that step an optimizer: schemas, checks, and the call of the kernels. pycaffe_compat/ops/update.py is their face.

#include "update.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <vector>

#ifdef WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
#endif

namespace update {
namespace {

using at::Tensor;
using at::TensorList;
using OptionalTensor = std::optional<Tensor>;

// Checks

void check_list(const char* name, const char* which, TensorList list, TensorList params) {
  TORCH_CHECK_VALUE(list.size() == params.size(), name, ": ", params.size(), " params, but ", list.size(), " ", which);
  const Tensor& first = params.front();
  for (size_t i = 0; i < list.size(); ++i) {
    const Tensor &t = list[i], &p = params[i];
    TORCH_CHECK_VALUE(t.scalar_type() == first.scalar_type(), name, ": ", which, "[", i, "] is ", t.scalar_type(),
                      ", but params[0] is ", first.scalar_type());
    TORCH_CHECK_VALUE(t.device() == first.device(), name, ": ", which, "[", i, "] is on ", t.device(), ", but params[0] on ",
                      first.device());
    TORCH_CHECK_VALUE(t.sym_sizes() == p.sym_sizes(), name, ": ", which, "[", i, "] has shape ", t.sym_sizes(),
                      ", but params[", i, "] has ", p.sym_sizes());
  }
}

void check_number(const char* name, const char* which, const Tensor& number, const Tensor& first) {
  TORCH_CHECK_VALUE(number.sym_numel() == 1 && at::isFloatingType(number.scalar_type()), name, ": ", which,
                    " must be one floating-point number, not ", number.scalar_type(), " of shape ", number.sym_sizes());
  TORCH_CHECK_VALUE(number.is_cpu() || number.device() == first.device(), name, ": ", which, " is on ", number.device(),
                    ", but params[0] on ", first.device());
}

// Flat memory

// Whether both hold the value of an index at the same place of their memory.
bool is_laid_out_like(const Tensor& t, const Tensor& model) {
  for (int64_t i = 0; i < t.dim(); ++i) {
    if (t.size(i) > 1 && t.stride(i) != model.stride(i)) return false;
  }
  return true;
}

// A tensor in the layout of a model: itself, or a copy that is written back.
class Flat {
 public:
  Flat(const Tensor& own, const Tensor& model) : own_(own), used_(own) {
    if (!model.is_non_overlapping_and_dense()) {
      used_ = at::empty(own.sizes(), own.options()).copy_(own);
    } else if (!is_laid_out_like(own, model)) {
      used_ = at::empty_strided(own.sizes(), model.strides(), own.options()).copy_(own);
    }
  }
  void* memory() const { return used_.data_ptr(); }
  void changed() {
    if (used_.is_same(own_)) {
      own_.unsafeGetTensorImpl()->bump_version();
    } else {
      own_.copy_(used_);
    }
  }

 private:
  Tensor own_, used_;
};

// The call

struct Arguments {
  const char* name;
  TensorList params, grads, h1, h2;
  const Tensor& rate;
  const OptionalTensor& scale;
  Step step;
};

void check(const Arguments& a) {
  if (a.params.empty()) return;
  const Tensor& first = a.params.front();
  const auto type = first.scalar_type();
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kDouble, a.name, ": params[0] is ", type, ", but must be Float or Double");
  check_list(a.name, "params", a.params, a.params);
  check_list(a.name, "grads", a.grads, a.params);
  check_list(a.name, "history", a.h1, a.params);
  if (has_second_history(a.step.rule)) check_list(a.name, "second history", a.h2, a.params);
  check_number(a.name, "rate", a.rate, first);
  if (a.scale) check_number(a.name, "scale", *a.scale, first);
}

// Reads a number on the CPU; one on another device stays there, as a number of the parameters' type.
void take_number(const Tensor& number, const Tensor& first, double& value, const void*& place, Tensor& owner) {
  if (number.is_cpu()) {
    value = number.item<double>();
  } else {
    owner = number.to(first.scalar_type());
    place = owner.const_data_ptr();
  }
}

void launch(const Arguments& a, const Step& step, const std::vector<Parameter>& parameters) {
  const Tensor& first = a.params.front();
  const Type type = first.scalar_type() == at::kDouble ? kDouble : kFloat;
  const int count = static_cast<int>(parameters.size());
#ifdef WITH_CUDA
  if (first.is_cuda()) {
    const auto stream = c10::cuda::getCurrentCUDAStream(first.device().index());
    const int error = cuda::update(step, type, parameters.data(), count, stream.stream());
    TORCH_CHECK(error == 0, a.name, ": ", switch_pool::cuda::error_name(error));
    return;
  }
#endif
  cpu::update(step, type, parameters.data(), count);
}

void run(const Arguments& a) {
  check(a);
  if (a.params.empty()) return;
  const at::NoGradGuard no_grad;
#ifdef WITH_CUDA
  c10::cuda::OptionalCUDAGuard guard;
  if (a.params.front().is_cuda()) guard.set_device(a.params.front().device());
#endif
  const bool second = has_second_history(a.step.rule);
  std::vector<Flat> flats;
  std::vector<Parameter> parameters;
  flats.reserve(4 * a.params.size());
  parameters.reserve(a.params.size());
  const auto memory = [&](const Tensor& t, const Tensor& model) { return flats.emplace_back(t, model).memory(); };
  for (size_t i = 0; i < a.params.size(); ++i) {
    const Tensor& p = a.params[i];
    if (p.numel() == 0) continue;
    parameters.push_back({memory(p, p), memory(a.grads[i], p), memory(a.h1[i], p), second ? memory(a.h2[i], p) : nullptr,
                          p.numel()});
  }
  Step step = a.step;
  Tensor rate, scale;
  take_number(a.rate, a.params.front(), step.rate, step.rate_at, rate);
  if (a.scale) take_number(*a.scale, a.params.front(), step.scale, step.scale_at, scale);
  launch(a, step, parameters);
  const size_t each = second ? 4 : 3;
  for (size_t i = 0; i < flats.size(); ++i) {
    const size_t which = i % each;
    if ((which > 0 || step.subtract) && (which != 1 || step.keep)) flats[i].changed();
  }
}

// For meta and fake tensors: nothing is returned, so there is nothing to do.
void pretend(const Arguments& a) { check(a); }

// Schemas

#define COMMON "Tensor? scale=None, float share=1.0, float decay=0.0, bool l1=False, bool subtract=True, bool keep_update=True"
#define LISTS "Tensor(a!)[] params, Tensor(b!)[] grads, Tensor(c!)[] "

Step make_step(Rule rule, double share, double decay, bool l1, bool subtract, bool keep_update, double keep1, double keep2,
               double delta) {
  const Decay kind = decay == 0 ? kNoDecay : l1 ? kL1 : kL2;
  return {rule, kind, subtract, keep_update, share, decay, keep1, keep2, delta, 0.0, 1.0, nullptr, nullptr};
}

using Run = void (*)(const Arguments&);

template <Run run, bool nesterov>
void momentum_update(TensorList params, TensorList grads, TensorList history, const Tensor& rate, double momentum,
                     const OptionalTensor& scale, double share, double decay, bool l1, bool subtract, bool keep_update) {
  run({nesterov ? "nesterov_update_" : "sgd_update_", params, grads, history, {}, rate, scale,
       make_step(nesterov ? kNesterov : kSgd, share, decay, l1, subtract, keep_update, momentum, 0, 0)});
}

template <Run run>
void adagrad_update(TensorList params, TensorList grads, TensorList history, const Tensor& rate, double delta,
                    const OptionalTensor& scale, double share, double decay, bool l1, bool subtract, bool keep_update) {
  run({"adagrad_update_", params, grads, history, {}, rate, scale,
       make_step(kAdaGrad, share, decay, l1, subtract, keep_update, 0, 0, delta)});
}

template <Run run>
void rmsprop_update(TensorList params, TensorList grads, TensorList history, const Tensor& rate, double rms_decay,
                    double delta, const OptionalTensor& scale, double share, double decay, bool l1, bool subtract,
                    bool keep_update) {
  run({"rmsprop_update_", params, grads, history, {}, rate, scale,
       make_step(kRmsProp, share, decay, l1, subtract, keep_update, rms_decay, 0, delta)});
}

template <Run run>
void adadelta_update(TensorList params, TensorList grads, TensorList history, TensorList second, const Tensor& rate,
                     double momentum, double delta, const OptionalTensor& scale, double share, double decay, bool l1,
                     bool subtract, bool keep_update) {
  run({"adadelta_update_", params, grads, history, second, rate, scale,
       make_step(kAdaDelta, share, decay, l1, subtract, keep_update, momentum, 0, delta)});
}

template <Run run>
void adam_update(TensorList params, TensorList grads, TensorList history, TensorList second, const Tensor& rate,
                 double momentum, double momentum2, double delta, const OptionalTensor& scale, double share, double decay,
                 bool l1, bool subtract, bool keep_update) {
  run({"adam_update_", params, grads, history, second, rate, scale,
       make_step(kAdam, share, decay, l1, subtract, keep_update, momentum, momentum2, delta)});
}

template <Run run>
void implement(torch::Library& m) {
  m.impl("sgd_update_", momentum_update<run, false>);
  m.impl("nesterov_update_", momentum_update<run, true>);
  m.impl("adagrad_update_", adagrad_update<run>);
  m.impl("rmsprop_update_", rmsprop_update<run>);
  m.impl("adadelta_update_", adadelta_update<run>);
  m.impl("adam_update_", adam_update<run>);
}

}  // namespace
}  // namespace update

// rate: includes lr_mult and Adam's correction. scale: what clipping multiplies the gradients with; share: 1 / iter_size.
TORCH_LIBRARY_FRAGMENT(pycaffe_compat, m) {
  m.def("sgd_update_(" LISTS "history, Tensor rate, *, float momentum, " COMMON ") -> ()");
  m.def("nesterov_update_(" LISTS "history, Tensor rate, *, float momentum, " COMMON ") -> ()");
  m.def("adagrad_update_(" LISTS "history, Tensor rate, *, float delta, " COMMON ") -> ()");
  m.def("rmsprop_update_(" LISTS "history, Tensor rate, *, float rms_decay, float delta, " COMMON ") -> ()");
  m.def("adadelta_update_(" LISTS "history, Tensor(d!)[] second, Tensor rate, *, float momentum, float delta, " COMMON ") -> ()");
  m.def("adam_update_(" LISTS "history, Tensor(d!)[] second, Tensor rate, *, float momentum, float momentum2, float delta, "
        COMMON ") -> ()");
}

TORCH_LIBRARY_IMPL(pycaffe_compat, CPU, m) { update::implement<update::run>(m); }
TORCH_LIBRARY_IMPL(pycaffe_compat, Meta, m) { update::implement<update::pretend>(m); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(pycaffe_compat, CUDA, m) { update::implement<update::run>(m); }
#endif
