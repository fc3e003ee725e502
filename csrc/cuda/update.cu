// Fills tables of parameters and enqueues the kernel that updates them. No PyTorch here: raw pointers and a stream.

#include "update.cuh"

namespace update {
namespace cuda {
namespace {

using namespace device;

constexpr unsigned kMostBlocks = 1 << 16;  // more units than this: blocks do several
constexpr int64_t kMostUnits = (int64_t(1) << 31) - 1;

using Kernel = void (*)(const Table, unsigned);

template <Rule kRule, class T>
Kernel kernel_with(Decay decay) {
  return decay == kNoDecay ? update_kernel<kRule, kNoDecay, T>
         : decay == kL2    ? update_kernel<kRule, kL2, T>
                           : update_kernel<kRule, kL1, T>;
}

template <class T>
Kernel kernel_of(const Step& step) {
  switch (step.rule) {
    case kSgd:
      return kernel_with<kSgd, T>(step.decay_kind);
    case kNesterov:
      return kernel_with<kNesterov, T>(step.decay_kind);
    case kAdaGrad:
      return kernel_with<kAdaGrad, T>(step.decay_kind);
    case kRmsProp:
      return kernel_with<kRmsProp, T>(step.decay_kind);
    case kAdaDelta:
      return kernel_with<kAdaDelta, T>(step.decay_kind);
    default:
      return kernel_with<kAdam, T>(step.decay_kind);
  }
}

#ifndef SP_SHIM  // the shim runs every thread in a loop
cudaError_t launch(Kernel kernel, unsigned blocks, cudaStream_t stream, const Table& table) {
  void* arguments[] = {const_cast<Table*>(&table), &blocks};
  const cudaError_t error =
      cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(blocks), dim3(kThreads), arguments, 0, stream);
  if (error != cudaSuccess) cudaGetLastError();  // reported once, by what this call returns
  return error;
}
#endif

}  // namespace

int update(const Step& step, Type type, const Parameter* parameters, int count, void* stream) {
  const Kernel kernel = type == kDouble ? kernel_of<double>(step) : kernel_of<float>(step);
  const int64_t unit = type == kDouble ? unit_size<double>() : unit_size<float>();
  Table table{};
  table.step = step;
  for (int i = 0; i < count; ++i) {
    const int64_t units = (parameters[i].n + unit - 1) / unit, before = table.first[table.count];
    if (before + units > kMostUnits) return cudaErrorInvalidConfiguration;  // a parameter beyond 2^41 values
    table.parameters[table.count] = parameters[i];
    table.first[++table.count] = static_cast<unsigned>(before + units);
    const bool next_fits = i + 1 < count && (parameters[i + 1].n + unit - 1) / unit + before + units <= kMostUnits;
    if (table.count < kMostTensors && next_fits) continue;
    const unsigned all = table.first[table.count], blocks = all < kMostBlocks ? all : kMostBlocks;
    if (const cudaError_t error = launch(kernel, blocks, static_cast<cudaStream_t>(stream), table)) return error;
    table.count = 0;
  }
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace update
