// Calls the implementation in Python of an operator whose arguments the kernels cannot take.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <type_traits>

// The dispatcher's entry for no device at all. It raises an error that names the argument, or does what the kernels have no
// room for.
template <class Return, class... Args>
Return in_python(Return (*)(Args...), const char* name, const std::common_type_t<Args>&... args) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Return(Args...)>();
  return op.redispatch(c10::DispatchKeySet(), args...);
}
