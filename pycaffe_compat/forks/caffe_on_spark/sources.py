"""The data layers of CaffeOnSpark, which get their records from Spark, without Spark."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlparse

_log = logging.getLogger(__name__)
_LMDB = "com.yahoo.ml.caffe.LMDB"
_OWN = ("share_in_parallel", "source", "dataframe_column_select", "image_encoded", "dataframe_format")


def read_without_spark(net: Any) -> None:
    """Let ``MemoryData`` layers whose ``source_class`` reads an LMDB read it as ``Data`` layers, in the order of its keys.

    Those of other classes, or on another file system, stay what BVLC's ``MemoryData`` is: the program gives the arrays.
    """
    for layer in net.layer:
        if layer.type != "MemoryData" or not layer.source_class:
            continue
        options = layer.memory_data_param
        place = urlparse(options.source)
        if layer.source_class == _LMDB and place.scheme in ("", "file") and place.path:
            layer.type = "Data"
            layer.data_param.source = place.path
            layer.data_param.batch_size = options.batch_size
            layer.data_param.backend = layer.data_param.LMDB
            layer.ClearField("memory_data_param")
        else:
            _log.warning(
                'layer "%s" (MemoryData): Spark reads "%s" by %s; here the program gives its arrays (set_input_arrays)',
                layer.name,
                options.source,
                layer.source_class,
            )
            for name in _OWN:
                options.ClearField(name)
        layer.ClearField("source_class")
