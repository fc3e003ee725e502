"""One set of parameters for two nets: how a test net sees what the train net learns."""

from __future__ import annotations

from ..net import Net


def share_layers(target: Net, source: Net) -> list[str]:
    """Let every layer of ``target`` use the blobs of the layer of that name in ``source``: the very same tensors.

    Returns:
        The names of the layers of ``target`` that have blobs of their own still.

    Raises:
        LayerError: the two layers have another number of blobs, or blobs of other shapes.
    """
    own = []
    for name, layer in target.layers.items():
        other = source.layers.get(name)
        if other is None or not other.blob_specs:
            own += [name] if layer.blob_specs else []
            continue
        mine, theirs = [tuple(b.shape) for b in layer.blobs], [tuple(b.shape) for b in other.blobs]
        if mine != theirs:
            raise layer.error(f"cannot share its blobs with the train net: shapes {mine} here, {theirs} there")
        for index in range(len(mine)):
            layer.set_blob(index, other.blob(index))
    for learnable in target.learnable:
        learnable.tensor = learnable.layer.blob(learnable.index)
    return own
