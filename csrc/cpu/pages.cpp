#include "pages.h"

#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#if defined(__linux__)

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

namespace switch_pool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLeast = 1 << 20;         // smaller ones the C library keeps itself
constexpr size_t kHugePage = 2 << 20;      // one fault instead of 512; every block begins where one does
constexpr size_t kRound = 64 << 10;        // sizes that differ by less are one
constexpr size_t kMarkedFree = 8 << 20;    // blocks from this size on may be taken by the system while they are kept
constexpr size_t kLeastHeld = 64 << 20;    // of small nets: their few blocks are of too many sizes for one to serve as another
constexpr size_t kMostHeldIfOff = 512 << 20;
constexpr size_t kSpare = 16 << 20;        // is left for what is smaller, and for what others take in the meantime
// A kept block is forgotten when nobody has wanted it for so long and through so many requests: a training step is
// shorter in one or the other, and asks for the same blocks as the step before.
constexpr std::chrono::seconds kStaleAfter(60);
constexpr uint64_t kStaleRequests = 10000;

// A file of the system, whole. Such files are short; what is longer than the buffer is cut off.
struct Text {
  char held[8192];
  explicit Text(const std::string& path) {
    ssize_t n = 0, more = 1;
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    while (file >= 0 && n < static_cast<ssize_t>(sizeof held) - 1 && more > 0) {
      more = read(file, held + n, sizeof held - 1 - n);
      n += std::max<ssize_t>(more, 0);
    }
    if (file >= 0) close(file);
    held[n] = 0;
  }

  // The number it begins with; -1 for none, such as "max".
  int64_t number() const { return held[0] >= '0' && held[0] <= '9' ? std::atoll(held) : -1; }

  // The number in the line that begins with this word; 0 where there is none.
  int64_t count(const std::string& word) const {
    for (const char* line = held; line != nullptr; line = std::strchr(line, '\n')) {
      line += *line == '\n';
      if (std::strncmp(line, word.c_str(), word.size()) == 0 && !std::isalnum(line[word.size()]) && line[word.size()] != '_') return std::atoll(line + word.size());
    }
    return 0;
  }
};

// A control group that ends processes which use more than its limit.
struct Group {
  std::string limit, used, stat, cached, shared;  // files, and the counters of cached pages and of those that stay
};

struct Held {
  void* address;
  size_t size;
  uint64_t request;
  Clock::time_point time;
};

class Pool {
 public:
  // Never destroyed: tensors may be freed while the process ends.
  static Pool& instance() {
    static auto* made = new Pool;
    return *made;
  }

  std::atomic<bool> on{false};

  void watch(std::vector<Group> groups) {
    const std::lock_guard<std::mutex> lock(mutex_);
    groups_ = std::move(groups);
    unwatched_ = 0;
    watching_ = true;
  }

  // Throws where the memory is there only in name: the system would end the process when it is written.
  void* take(size_t n) {
    const size_t size = (n + kRound - 1) / kRound * kRound;
    const std::lock_guard<std::mutex> lock(mutex_);
    ++requests_;
    drop_stale();
    // The smallest that fits, if at most half as large again; of equals the youngest, which is likeliest in a cache.
    auto found = by_size_.lower_bound(size);
    if (found != by_size_.end() && found->first <= size + size / 2) {
      found = std::prev(by_size_.upper_bound(found->first));
      const Held block = *found->second;
      held_.erase(found->second);
      by_size_.erase(found);
      held_bytes_ -= block.size;
      if (watching_ && on) demand(gone(block), block);
      ++reused_;
      return use(block.address, block.size);
    }
    if (watching_ && on) demand(size);
    live_bytes_ += size;  // makes room before more is taken
    trim();
    live_bytes_ -= size;
    void* address = map(size);
    if (address == nullptr) {
      drop_all();
      address = map(size);
    }
    if (address == nullptr) return nullptr;
    ++mapped_;
    return use(address, size);
  }

  // False if the memory did not come from here.
  bool give_back(void* address) {
    if (reinterpret_cast<uintptr_t>(address) % kHugePage) return false;
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = live_.find(address);
    if (found == live_.end()) return false;
    const size_t size = found->second;
    live_.erase(found);
    live_bytes_ -= size;
#if defined(MADV_FREE)
    if (size >= kMarkedFree) madvise(address, size, MADV_FREE);
#endif
    held_.push_back({address, size, requests_, Clock::now()});
    by_size_.emplace(size, std::prev(held_.end()));
    held_bytes_ += size;
    trim();
    return true;
  }

  int64_t release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto bytes = static_cast<int64_t>(held_bytes_);
    drop_all();
    most_ = live_bytes_;
    return bytes;
  }

  std::vector<int64_t> state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {static_cast<int64_t>(live_bytes_), static_cast<int64_t>(held_bytes_), static_cast<int64_t>(most_),
            static_cast<int64_t>(reused_),     static_cast<int64_t>(mapped_),     static_cast<int64_t>(dropped_)};
  }

 private:
  Pool() {
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); }, [] { instance().mutex_.unlock(); });
  }

  void* use(void* address, size_t size) {
    live_.emplace(address, size);
    live_bytes_ += size;
    most_ = std::max(most_, live_bytes_);
    return address;
  }

  // What is in use and what is kept together stay within an eighth, or kLeastHeld, of the most that was ever in use at once.
  void trim() {
    const size_t most = std::max(most_, live_bytes_);
    while (!held_.empty() && (live_bytes_ + held_bytes_ > most + std::max(most / 8, kLeastHeld) || (!on && held_bytes_ > kMostHeldIfOff))) {
      drop_oldest();
    }
  }

  // Throws where the system has no room for so many bytes more. Asking it takes some 50 us, so half of what is left is
  // handed out before it is asked again: other processes may take the other half.
  void demand(size_t size, const Held& block = {}) {
    if (size <= unwatched_) {
      unwatched_ -= size;
      return;
    }
    std::string place;
    size_t have = left(place);
    while (have < size + kSpare && !held_.empty()) {
      const size_t before = held_bytes_;
      while (!held_.empty() && before - held_bytes_ < size + kSpare - have) drop_oldest();
      have = left(place);
    }
    if (have < size + kSpare && block.address != nullptr) munmap(block.address, block.size);
    TORCH_CHECK(have >= size + kSpare, "not enough memory: ", size >> 20, " MB are wanted for a tensor, and ",
                have > kSpare ? (have - kSpare) >> 20 : 0, " MB are left in ", place);
    unwatched_ = (have - size) / 2;
  }

  // The bytes of a kept block that the system has taken back: they must be had anew.
  static size_t gone(const Held& block) {
    if (block.size < kMarkedFree) return 0;
    static const size_t page = sysconf(_SC_PAGESIZE);
    std::vector<unsigned char> there((block.size + page - 1) / page);
    if (mincore(block.address, block.size, there.data()) != 0) return 0;
    return page * std::count_if(there.begin(), there.end(), [](unsigned char flags) { return !(flags & 1); });
  }

  // The bytes that can still be written, and where there are no more. What Linux counts as inactive files includes what was
  // marked free here and has been used again since; so cached pages are counted themselves.
  size_t left(std::string& place) const {
    const Text memory("/proc/meminfo");
    size_t least = std::numeric_limits<size_t>::max();
    if (const int64_t available = memory.count("MemAvailable:"); available > 0) {
      const int64_t countable = memory.count("MemFree:") + memory.count("Cached:") + memory.count("Buffers:") -
                                memory.count("Shmem:") + memory.count("SReclaimable:");
      least = static_cast<size_t>(std::min(available, countable) + memory.count("SwapFree:")) << 10;
      place = "this machine";
    }
    for (const Group& group : groups_) {
      const int64_t most = Text(group.limit).number(), now = Text(group.used).number();
      if (most < 0 || now < 0) continue;
      const Text stat(group.stat);
      const int64_t rest = std::max<int64_t>(most - now + stat.count(group.cached) - stat.count(group.shared), 0);
      if (static_cast<size_t>(rest) >= least) continue;
      least = rest;
      place = group.limit + " (" + std::to_string(most >> 20) + " MB)";
    }
    return least;
  }

  void drop_stale() {
    while (!held_.empty() && requests_ - held_.front().request > kStaleRequests &&
           Clock::now() - held_.front().time > kStaleAfter) {
      drop_oldest();
    }
  }

  void drop_all() {
    while (!held_.empty()) drop_oldest();
  }

  void drop_oldest() {
    const Held block = held_.front();
    auto entry = by_size_.lower_bound(block.size);
    while (entry->second != held_.begin()) ++entry;
    by_size_.erase(entry);
    held_.pop_front();
    held_bytes_ -= block.size;
    ++dropped_;
    munmap(block.address, block.size);
  }

  static void* map(size_t size) {
    // One huge page more, so that the block can begin where a huge page does.
    void* mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    const auto start = reinterpret_cast<uintptr_t>(mapped), first = (start + kHugePage - 1) / kHugePage * kHugePage;
    if (first > start) munmap(mapped, first - start);
    if (first < start + kHugePage) munmap(reinterpret_cast<void*>(first + size), start + kHugePage - first);
    madvise(reinterpret_cast<void*>(first), size, MADV_HUGEPAGE);  // advice: refusal changes nothing
    return reinterpret_cast<void*>(first);
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> live_;
  std::list<Held> held_;  // the oldest first
  std::multimap<size_t, std::list<Held>::iterator> by_size_;
  std::vector<Group> groups_;
  bool watching_ = false;
  size_t live_bytes_ = 0, held_bytes_ = 0, most_ = 0, unwatched_ = 0;
  uint64_t requests_ = 0, reused_ = 0, mapped_ = 0, dropped_ = 0;
};

c10::Allocator* own() { return c10::GetDefaultCPUAllocator(); }

void free_memory(void* address) {
  if (Pool::instance().give_back(address)) {
    c10::profiledCPUMemoryReporter().Delete(address);
  } else {
    own()->raw_deleter()(address);
  }
}

// `always`: for the results of the operators; the other is installed for all tensors and follows the switch. It is never
// taken out again: memory that PyTorch asked for without a deleter is returned to whatever allocator is installed then.
class Pages final : public c10::Allocator {
 public:
  explicit Pages(bool always) : always_(always) {}

  c10::DataPtr allocate(size_t n) override {
    Pool& pool = Pool::instance();
    if (n < kLeast || !(always_ || pool.on)) return own()->allocate(n);
    void* address = pool.take(n);
    if (address == nullptr) return own()->allocate(n);
    c10::profiledCPUMemoryReporter().New(address, n);
    return {address, address, &free_memory, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_memory; }

  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }

 private:
  const bool always_;
};

}  // namespace

c10::Allocator* pages() {
  static auto* made = new Pages(true);
  return made;
}

bool recycle_memory(bool on) {
  static auto* made = new Pages(false);
  if (on && c10::GetCPUAllocator() != made) {
    if (c10::GetCPUAllocator() != own()) return false;  // somebody else's
    c10::SetCPUAllocator(made);
  }
  Pool::instance().on = on && c10::GetCPUAllocator() == made;
  if (!on) Pool::instance().release();
  return Pool::instance().on;
}

void watch_memory(const std::vector<std::string>& words) {
  std::vector<Group> groups;
  for (size_t i = 0; i + 4 < words.size(); i += 5) {
    groups.push_back({words[i], words[i + 1], words[i + 2], words[i + 3], words[i + 4]});
  }
  Pool::instance().watch(std::move(groups));
}

int64_t release_memory() { return Pool::instance().release(); }

std::vector<int64_t> memory_state() { return Pool::instance().state(); }

}  // namespace switch_pool

#else

namespace switch_pool {

c10::Allocator* pages() { return c10::GetCPUAllocator(); }
bool recycle_memory(bool) { return false; }
void watch_memory(const std::vector<std::string>&) {}
int64_t release_memory() { return 0; }
std::vector<int64_t> memory_state() { return std::vector<int64_t>(6); }

}  // namespace switch_pool

#endif

TORCH_LIBRARY_FRAGMENT(pycaffe_compat, m) {
  m.def("recycle_memory(bool on) -> bool", switch_pool::recycle_memory);
  m.def("watch_memory(str[] groups) -> ()", [](std::vector<std::string> words) { switch_pool::watch_memory(words); });
  m.def("release_memory() -> int", switch_pool::release_memory);
  m.def("memory_state() -> int[]", switch_pool::memory_state);
}
