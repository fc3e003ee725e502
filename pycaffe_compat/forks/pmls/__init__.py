"""Caffe on several machines with Petuum's parameter server."""

from ..fork import Fork

FORK = Fork(
    name="pmls",
    title="PMLS-Caffe",
    source="petuum/pmls-caffe",
    speed={"DataParameter.shared_file_system": "whether machines read one database"},
)
