"""CaffeOnSpark."""

from ..fork import Fork
from .sources import read_without_spark

FORK = Fork(
    name="caffe_on_spark",
    title="CaffeOnSpark",
    source="yahoo/caffe",
    types="CoSData",
    prepare=read_without_spark,
)
