// Memory of large tensors on the CPU, used again.
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>
#include <string>
#include <vector>

namespace switch_pool {

// An allocator that keeps the pages of large tensors that were freed for those that come next. The C library would give
// such memory back to the system at once and take it anew, page by page, each cleared first: for a tensor that is written
// once that takes longer than the work itself. Small tensors get their memory from PyTorch's own allocator.
c10::Allocator* pages();

// Turn recycling on or off for every CPU tensor of this process, whoever makes it. Returns whether it is on now: never
// where the system is not Linux, or where another allocator of higher priority is installed.
bool recycle_memory(bool on);

// While memory is recycled, refuse what the machine or one of these control groups has no room for: an error, where the
// system would end the process as soon as it writes there. Five words a group: the files of its limit, of what it uses and
// of its counters, and the names of two: the bytes of cached pages, and those among them that cannot be dropped.
void watch_memory(const std::vector<std::string>& groups);

// Give back to the system all that is kept and not in use; returns the number of bytes.
int64_t release_memory();

// Bytes in use, bytes kept, the most that was in use at once; blocks used again, taken from the system, given back to it.
std::vector<int64_t> memory_state();

}  // namespace switch_pool
