"""Caffe's pooling and its exact transposes as PyTorch operators: byte switches, fused ReLU, overlapping windows."""

from .backends import backend_info, use_backend
from .functions import (
    max_pool_index,
    max_pool_switch,
    pool_average,
    pool_fixed,
    pool_index,
    pool_sum,
    pool_switch,
    unpool_average,
    unpool_average_weights,
    unpool_fixed,
    unpool_fixed_weights,
    unpool_index,
    unpool_sum,
    unpool_sum_weights,
    unpool_switch,
    unpool_switch_normalized,
    unpool_weights,
)
from .images import transform_images, transforms_images
from .masks import index_to_mask, mask_to_index, mask_to_switch, switch_to_mask
from .operators import decompositions
from .windows import NO_SWITCH, OperatorError, Window, plane_of, pooled_size, unpooled_size, window

__all__ = [
    "NO_SWITCH",
    "OperatorError",
    "Window",
    "backend_info",
    "decompositions",
    "index_to_mask",
    "mask_to_index",
    "mask_to_switch",
    "max_pool_index",
    "max_pool_switch",
    "plane_of",
    "pool_average",
    "pool_fixed",
    "pool_index",
    "pool_sum",
    "pool_switch",
    "pooled_size",
    "switch_to_mask",
    "transform_images",
    "transforms_images",
    "unpool_average",
    "unpool_average_weights",
    "unpool_fixed",
    "unpool_fixed_weights",
    "unpool_index",
    "unpool_sum",
    "unpool_sum_weights",
    "unpool_switch",
    "unpool_switch_normalized",
    "unpool_weights",
    "unpooled_size",
    "use_backend",
    "window",
]
