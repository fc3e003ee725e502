"""Spatial transformers."""

from ..fork import Fork

FORK = Fork(
    name="stn",
    title="Spatial transformers",
    source="daerduoCarey/SpatialTransformerLayer",
    types="LocLoss PowerFile STLoss SpatialTransformer",
)
