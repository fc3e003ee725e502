"""Caffe's solvers: update rules as optimizers, policies as schedulers, the loop, its hooks, snapshots."""

from .hooks import Hook, Progress, TensorBoard
from .log import GlogFormatter, init_log
from .loop import Solver, choose_device
from .policies import CaffeLR, Policy
from .rules import RULES, SGD, AdaDelta, AdaGrad, Adam, CaffeOptimizer, Nesterov, RMSProp, make_optimizer, rule
from .runner import GraphRunner, Runner

__all__ = [
    "RULES",
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "CaffeLR",
    "CaffeOptimizer",
    "GlogFormatter",
    "GraphRunner",
    "Hook",
    "Nesterov",
    "Policy",
    "Progress",
    "RMSProp",
    "Runner",
    "Solver",
    "TensorBoard",
    "choose_device",
    "init_log",
    "make_optimizer",
    "rule",
]
