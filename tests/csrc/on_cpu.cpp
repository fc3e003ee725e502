// launch.cu and its kernels as plain C++, with an interface for ctypes.
#include <cstddef>
#include <map>
#include <string>

#include "shim.h"
#include "cuda/launch.cu"

using namespace switch_pool;
using namespace switch_pool::device;

namespace {

using Kernel = void (*)(Task);

template <class D, int K>
void add_square(std::map<std::string, Kernel>& all, const std::string& type) {
  constexpr int V = 16 / sizeof(typename D::Bits);
  const std::string k = std::to_string(K), v = std::to_string(V);
  all["pixels_max<" + type + ", " + v + ", " + k + ">"] = pixels_max<D, V, K>;
  all["pixels_sum<" + type + ", " + v + ", " + k + ">"] = pixels_sum<D, V, K>;
  all["pixels_select<" + type + ", " + v + ", " + k + ">"] = pixels_select<D, V, K>;
  all["pixels_unpool<" + type + ", " + v + ", " + k + ">"] = pixels_unpool<D, V, K>;
  all["tiles_max<" + type + ", " + k + ">"] = tiles_max<D, K>;
  all["tiles_select<" + type + ", " + k + ">"] = tiles_select<D, K>;
  all["tiles_unpool<" + type + ", " + k + ">"] = tiles_unpool<D, K>;
  if (K == 2) {
    all["pairs_max<" + type + ", " + v + ">"] = pairs_max<D, V>;
    all["pairs_sum<" + type + ", " + v + ">"] = pairs_sum<D, V>;
    all["pairs_select<" + type + ", " + v + ">"] = pairs_select<D, V>;
    all["pairs_unpool<" + type + ", " + v + ">"] = pairs_unpool<D, V>;
  }
}

template <class D, int V, bool kLast>
void add_any(std::map<std::string, Kernel>& all, const std::string& type) {
  const std::string rest = "<" + type + ", " + std::to_string(V) + (kLast ? ", true>" : ", false>");
  all["any_max" + rest] = any_max<D, V, kLast>;
  all["any_sum" + rest] = any_sum<D, V, kLast>;
  all["any_unpool" + rest] = any_unpool<D, V, kLast>;
  if (V == 1) all["any_select<" + type + (kLast ? ", true>" : ", false>")] = any_select<D, kLast>;
}

template <class D>
void add(std::map<std::string, Kernel>& all, const std::string& type) {
  add_any<D, 1, false>(all, type);
  add_any<D, 1, true>(all, type);
  add_any<D, 16 / sizeof(typename D::Bits), true>(all, type);
}

const std::map<std::string, Kernel>& kernels() {
  static const std::map<std::string, Kernel> all = [] {
    std::map<std::string, Kernel> made;
    add<Float>(made, "Float"), add<Double>(made, "Double"), add<Half>(made, "Half"), add<BFloat16>(made, "BFloat16");
    add_square<Float, 2>(made, "Float"), add_square<Half, 2>(made, "Half"), add_square<BFloat16, 2>(made, "BFloat16");
    add_square<Float, 3>(made, "Float"), add_square<Half, 3>(made, "Half"), add_square<BFloat16, 3>(made, "BFloat16");
    return made;
  }();
  return all;
}

}  // namespace

extern "C" {
int max_pool_switch(const Geometry* g, int type, int channels_last, const void* x, int relu, void* y, unsigned char* s) {
  return cuda::max_pool_switch(*g, Type(type), channels_last, x, relu, y, s, nullptr);
}
int pool_sum(const Geometry* g, int type, int channels_last, const void* x, int average, const void* gate, void* y) {
  return cuda::pool_sum(*g, Type(type), channels_last, x, average, gate, y, nullptr);
}
int pool_switch(const Geometry* g, int type, int channels_last, const void* x, const unsigned char* s, int fixed,
                int normalized, const void* gate, void* y) {
  return cuda::pool_switch(*g, Type(type), channels_last, x, s, fixed, normalized, gate, y, nullptr);
}
int unpool(const Geometry* g, int type, int mode, int channels_last, const void* y, const unsigned char* s, int fixed,
           int normalized, const void* gate, void* x) {
  return cuda::unpool(*g, Type(type), Mode(mode), channels_last, y, s, fixed, normalized, gate, x, nullptr);
}
int unpool_weights(const Geometry* g, int type, int channels_last, const unsigned char* s, void* x) {
  return cuda::unpool_weights(*g, Type(type), channels_last, s, x, nullptr);
}

// A kernel by its name without namespaces; -1: there is none.
int run(const char* name, long long blocks, long long shared, const Task* task) {
  const auto found = kernels().find(name);
  return found == kernels().end() ? -1 : cuda::launch(found->second, blocks, shared, nullptr, *task);
}

void set_dry(int dry) { cuda::dry = dry != 0; }
void forget_launches() { cuda::launches.clear(); }
int launch_count() { return static_cast<int>(cuda::launches.size()); }
const char* launch_kernel(int i) {
  for (const auto& [name, kernel] : kernels()) {
    if (kernel == cuda::launches[i].kernel) return name.c_str();
  }
  return "unknown";
}
long long launch_blocks(int i) { return cuda::launches[i].blocks; }
long long launch_shared(int i) { return cuda::launches[i].shared; }
const Task* launch_task(int i) { return &cuda::launches[i].task; }
int task_size() { return static_cast<int>(sizeof(Task)); }
// Where the fields of a Task lie, in order; -1 after the last.
int task_offset(int i) {
  const std::size_t offsets[] = {
      offsetof(Task, g.batch), offsetof(Task, g.channels), offsetof(Task, g.height), offsetof(Task, g.width),
      offsetof(Task, g.rows), offsetof(Task, g.cols), offsetof(Task, g.kernel_h), offsetof(Task, g.kernel_w),
      offsetof(Task, g.stride_h), offsetof(Task, g.stride_w), offsetof(Task, g.pad_h), offsetof(Task, g.pad_w),
      offsetof(Task, in), offsetof(Task, gate), offsetof(Task, switches), offsetof(Task, places), offsetof(Task, out),
      offsetof(Task, fixed), offsetof(Task, mode), offsetof(Task, normalized), offsetof(Task, lower), offsetof(Task, items),
      offsetof(Task, d0.divisor), offsetof(Task, d0.multiplier), offsetof(Task, d0.shift), offsetof(Task, d1.divisor),
      offsetof(Task, d1.multiplier), offsetof(Task, d1.shift), offsetof(Task, d2.divisor), offsetof(Task, d2.multiplier),
      offsetof(Task, d2.shift), offsetof(Task, tile_planes), offsetof(Task, tile_rows), offsetof(Task, tiles),
      offsetof(Task, planes)};
  return i < int(sizeof(offsets) / sizeof(offsets[0])) ? int(offsets[i]) : -1;
}
int kernel_count() { return static_cast<int>(kernels().size()); }
const char* kernel_name(int i) { return std::next(kernels().begin(), i)->first.c_str(); }
}
