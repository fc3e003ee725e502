// Memory for large results on the CPU.
#pragma once

#include <c10/core/Allocator.h>

namespace switch_pool {

// An allocator that keeps the pages of large tensors that were freed, up to a bound, for those that come next. The C
// library gives such memory back to the system at once and gets it anew, page by page, each cleared first: for a result
// that is written once that costs more than the kernel itself. The system may take kept pages when it needs them.
c10::Allocator* pages();

}  // namespace switch_pool
