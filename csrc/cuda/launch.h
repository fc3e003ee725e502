// The CUDA kernels as operators.cpp calls them: raw device pointers to dense tensors and a stream. Each call enqueues one
// kernel, allocates nothing and waits for nothing. `stream` is a cudaStream_t, the result a cudaError_t: so this header
// needs no CUDA.
#pragma once

#include "../geometry.h"

namespace switch_pool {
namespace cuda {

// As in cpu/dispatch.h. Switches that point nowhere are left out.
int max_pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, bool relu, void* y,
                    unsigned char* s, void* stream);
int pool_sum(const Geometry& g, Type type, bool channels_last, const void* x, bool average, const void* gate, void* y,
             void* stream);
int pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, const unsigned char* s, int fixed,
                bool normalized, const void* gate, void* y, void* stream);
int unpool(const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const unsigned char* s, int fixed,
           bool normalized, const void* gate, void* x, void* stream);
int unpool_weights(const Geometry& g, Type type, bool channels_last, const unsigned char* s, void* x, void* stream);

const char* error_name(int error);

}  // namespace cuda
}  // namespace switch_pool
