// The arithmetic of Caffe's update rules, written once for the CPU and CUDA. cpu/update.h and cuda/update.cuh include this file
// in a namespace of their own, with UPDATE_FUNCTION before functions, and with mul, add, sub, div, fma and sign for the
// numbers or vectors V that they compute with.
//
// Operations, their order and the places of fma are those of the torch._foreach functions on the CPU, so results are the same
// bits: ATen multiplies and adds in one rounding where the processor can. mul and add must stay two roundings.

template <Rule kRule>
constexpr bool kHasRoot = kRule != kSgd && kRule != kNesterov;
template <Rule kRule>
constexpr bool kHasSecond = kRule == kAdaDelta || kRule == kAdam;

// Step's numbers as V has them.
template <class V>
struct Numbers {
  V scale, share, decay, rate, keep1, rest1, keep2, rest2, delta;  // rest: 1 - keep
};

// A parameter's value, its gradient, which becomes the update, and its history.
template <class V>
struct Values {
  V p, g, h1, h2;
};

template <class V>
UPDATE_FUNCTION V running_square(V h, V g, V keep, V rest) {
  return fma(mul(rest, g), g, mul(h, keep));
}

template <Decay kDecay, class V>
UPDATE_FUNCTION V regularized(const Numbers<V>& n, const Values<V>& x) {
  const V g = mul(mul(x.g, n.scale), n.share);
  if constexpr (kDecay == kL2) return fma(x.p, n.decay, g);
  if constexpr (kDecay == kL1) return fma(sign(x.p), n.decay, g);
  return g;
}

// A rule is two steps with a square root between them, since ATen's on the CPU is MKL's, which does not round every root
// correctly. First: the history before the root. Returns what the root is taken of.
template <Rule kRule, class V>
UPDATE_FUNCTION V radicand(const Numbers<V>& n, Values<V>& x) {
  if constexpr (kRule == kAdaGrad) return x.h1 = fma(x.g, x.g, x.h1);
  if constexpr (kRule == kRmsProp) return x.h1 = running_square(x.h1, x.g, n.keep1, n.rest1);
  if constexpr (kRule == kAdam) {
    x.h1 = fma(x.g, n.rest1, mul(x.h1, n.keep1));
    return x.h2 = running_square(x.h2, x.g, n.keep2, n.rest2);
  }
  if constexpr (kRule == kAdaDelta) {
    x.h1 = running_square(x.h1, x.g, n.keep1, n.rest1);
    return div(add(x.h2, n.delta), add(x.h1, n.delta));
  }
  return x.h1;  // no root
}

// Then: the update, and the rest of the history.
template <Rule kRule, class V>
UPDATE_FUNCTION void apply_rule(const Numbers<V>& n, Values<V>& x, V root) {
  if constexpr (kRule == kSgd) {
    x.g = fma(x.h1, n.keep1, mul(x.g, n.rate));
    x.h1 = x.g;
  } else if constexpr (kRule == kNesterov) {
    const V g = mul(x.g, n.rate);
    x.h1 = add(mul(x.h1, n.keep1), g);
    x.g = fma(x.h1, n.keep1, g);
  } else if constexpr (kRule == kAdaDelta) {
    x.g = mul(x.g, root);
    x.h2 = running_square(x.h2, x.g, n.keep1, n.rest1);
    x.g = mul(x.g, n.rate);
  } else {
    x.g = mul(div(kRule == kAdam ? x.h1 : x.g, add(root, n.delta)), n.rate);
  }
}
