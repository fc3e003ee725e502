// Whether denormal numbers count as 0. The processor has that switch once for each thread, so each thread of the operators
// must turn it. See pycaffe_compat/solver/denormals.py.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

namespace switch_pool {
namespace {

bool flush_denormals(bool on) {
  const bool can = at::globalContext().setFlushDenormal(on);
  at::parallel_for(0, at::get_num_threads(), 1, [on](int64_t, int64_t) { at::globalContext().setFlushDenormal(on); });
  return can;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pycaffe_compat, m) {
  m.def("flush_denormals(bool on) -> bool", flush_denormals);
}

}  // namespace switch_pool
