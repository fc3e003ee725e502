// Instruction sets: regions of a file that are compiled for one, and which of them this processor and its user take.
#pragma once

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define SP_X86 1
#include <immintrin.h>
#endif

#define SP_QUOTE(x) #x
#define SP_STRING(x) SP_QUOTE(x)
#if defined(__clang__)  // which ignores all of a target with a word that it does not know
#define SP_AVX512 "avx512f,avx512bw,avx512dq,avx512vl"
#define SP_TARGET(flags) _Pragma(SP_STRING(clang attribute push(__attribute__((target(flags))), apply_to = function)))
#define SP_TARGET_END _Pragma("clang attribute pop")
#pragma clang diagnostic ignored "-Wpsabi"  // vectors are passed between functions of one instruction set only
#else
#define SP_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"
#define SP_TARGET(flags) _Pragma("GCC push_options") _Pragma(SP_STRING(GCC target(flags)))
#define SP_TARGET_END _Pragma("GCC pop_options")
#endif

namespace switch_pool {
namespace cpu {

enum InstructionSet { kPortable, kAvx2, kAvx512 };

inline InstructionSet best_instruction_set() {
#if SP_X86
  const char* capability = std::getenv("ATEN_CPU_CAPABILITY");
  const bool portable = capability && !std::strcmp(capability, "default");
  const bool narrow = capability && !std::strcmp(capability, "avx2");
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!portable && !narrow && wide) return kAvx512;
  if (!portable && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPortable;
}

// The best that the processor has. ATEN_CPU_CAPABILITY lowers it, as it does PyTorch's.
inline InstructionSet chosen() {
  static const InstructionSet set = best_instruction_set();
  return set;
}

}  // namespace cpu
}  // namespace switch_pool
