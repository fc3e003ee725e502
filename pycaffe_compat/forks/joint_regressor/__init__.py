"""Poses by regression from frames and their flow."""

from ..fork import Fork

FORK = Fork(
    name="joint_regressor",
    title="the Caffe of the joint regressor",
    source="qxcv/caffe",
    types="ManhattanLoss",
)
