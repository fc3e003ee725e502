// One step of an optimizer over a list of parameters, as update.cpp asks the CPU and CUDA for it. No PyTorch here.
#pragma once

#include <cstdint>

namespace update {

enum Rule { kSgd, kNesterov, kAdaGrad, kRmsProp, kAdaDelta, kAdam };
constexpr int kRules = 6;

enum Decay { kNoDecay, kL2, kL1 };

// Number types of parameters, gradients and history.
enum Type { kFloat, kDouble };

// What all values of a call have in common.
struct Step {
  Rule rule;
  Decay decay_kind;
  bool subtract;              // whether the parameters change; the history always does
  bool keep;                  // whether the gradients become the update
  double share;               // 1 / iter_size
  double decay;
  double keep1, keep2;        // what is kept of the first and the second history: momentum, rms_decay, momentum2
  double delta;
  double rate, scale;         // the learning rate, and what clipping multiplies the gradients with; unless
  const void* rate_at;        // a number of the parameters' type on their device is given
  const void* scale_at;
};

// One parameter: flat memory of n values each. h2 is null where the rule has one history.
struct Parameter {
  void *p, *g, *h1, *h2;
  int64_t n;
};

constexpr bool has_second_history(Rule rule) { return rule == kAdaDelta || rule == kAdam; }

namespace cpu {
void update(const Step& step, Type type, const Parameter* parameters, int count);
}

namespace cuda {
// Enqueues on `stream`, a cudaStream_t; allocates nothing, waits for nothing. Returns a cudaError_t.
int update(const Step& step, Type type, const Parameter* parameters, int count, void* stream);
}

}  // namespace update
