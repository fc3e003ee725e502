"""Options of the update rules, other than their defaults, for the tests of every implementation of them."""

HYPER = {
    "SGD": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.8},
    "AdaGrad": {"delta": 1e-3},
    "RMSProp": {"rms_decay": 0.8, "delta": 1e-3},
    "AdaDelta": {"momentum": 0.7, "delta": 1e-3},
    "Adam": {"momentum": 0.8, "momentum2": 0.95, "delta": 1e-3},
}
