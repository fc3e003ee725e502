// The CPU kernels as operators.cpp calls them: raw pointers to dense tensors, all NCHW or all channels_last.
#pragma once

#include <cstdint>

#include "../geometry.h"

namespace switch_pool {
namespace cpu {

// Maximum of each window of x, and its switch. relu: of max(x, 0).
void max_pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, bool relu, void* y, uint8_t* s);

// Sum or average of each window; 0 where the gate (may be null) is closed.
void pool_sum(const Geometry& g, Type type, bool channels_last, const void* x, bool average, const void* gate, void* y);

// x at each switch, times one over the number of windows that name the place if normalized. s null: every window has the
// switch `fixed`. Returns whether all switches point into window and plane.
bool pool_switch(const Geometry& g, Type type, bool channels_last, const void* x, const uint8_t* s, int fixed,
                 bool normalized, const void* gate, void* y);

// The transposes: sums over the windows that name (kSwitch) or cover (kSum, kAverage) each place.
bool unpool(const Geometry& g, Type type, Mode mode, bool channels_last, const void* y, const uint8_t* s, int fixed,
            bool normalized, const void* gate, void* x);

// How many windows name each place.
bool unpool_weights(const Geometry& g, Type type, bool channels_last, const uint8_t* s, void* x);

// The instruction set in use: "avx512", "avx2" or "portable". ATEN_CPU_CAPABILITY lowers it, as it does PyTorch's.
const char* instruction_set();

}  // namespace cpu
}  // namespace switch_pool
