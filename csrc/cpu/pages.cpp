#include "pages.h"

#include <c10/core/CPUAllocator.h>

#if defined(__linux__)

#include <sys/mman.h>

#include <mutex>
#include <vector>

namespace switch_pool {
namespace {

constexpr size_t kLeast = 8 << 20;       // smaller ones the C library keeps itself
constexpr size_t kMostHeld = 512 << 20;  // bytes kept while nobody uses them
constexpr size_t kPage = 2 << 20;        // large pages: one fault for 512 small ones

struct Block {
  void* address;
  size_t size;
};

class Pages final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) override {
    if (n < kLeast) return c10::GetCPUAllocator()->allocate(n);
    Block block = take((n + kPage - 1) / kPage * kPage);
    if (block.address == nullptr) return c10::GetCPUAllocator()->allocate(n);
    return {block.address, new Block(block), &give_back, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }

 private:
  static std::mutex& mutex() {
    static auto* made = new std::mutex;  // never destroyed: tensors may be freed while the process ends
    return *made;
  }
  static std::vector<Block>& held() {
    static auto* made = new std::vector<Block>;
    return *made;
  }

  static Block take(size_t size) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      auto& blocks = held();
      for (size_t i = blocks.size(); i-- > 0;) {  // the youngest that fits: its pages are the likeliest in a cache
        const Block block = blocks[i];
        if (block.size < size || block.size > size + size / 4) continue;
        blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i));
        return block;
      }
    }
    // One large page more, so that the block can begin where a large page does.
    void* mapped = mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return {nullptr, 0};
    const auto start = reinterpret_cast<uintptr_t>(mapped), first = (start + kPage - 1) / kPage * kPage;
    if (first > start) munmap(mapped, first - start);
    if (first < start + kPage) munmap(reinterpret_cast<void*>(first + size), start + kPage - first);
    madvise(reinterpret_cast<void*>(first), size, MADV_HUGEPAGE);  // advice: refusal changes nothing
    return {reinterpret_cast<void*>(first), size};
  }

  static void give_back(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
#if defined(MADV_FREE)
    madvise(block->address, block->size, MADV_FREE);
#endif
    std::lock_guard<std::mutex> lock(mutex());
    auto& blocks = held();
    blocks.push_back(*block);
    size_t total = 0;
    for (const Block& each : blocks) total += each.size;
    while (total > kMostHeld) {
      munmap(blocks.front().address, blocks.front().size);
      total -= blocks.front().size;
      blocks.erase(blocks.begin());
    }
  }
};

}  // namespace

c10::Allocator* pages() {
  static auto* made = new Pages;
  return made;
}

}  // namespace switch_pool

#else

namespace switch_pool {

c10::Allocator* pages() { return c10::GetCPUAllocator(); }

}  // namespace switch_pool

#endif
