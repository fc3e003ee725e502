// launch.cu and its kernels as plain C++, with an interface for ctypes.
#include "shim.h"
#include "launch.cu"

using namespace switch_pool;

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
long blocks_run() { return shim::blocks_run; }
}
