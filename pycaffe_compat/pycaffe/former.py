"""Names that pycaffe had until 2015, when nets and the module had a phase and a mode to set and nets prepared images."""

from __future__ import annotations

_MODE = "caffe.{name}() is a function of the module"
_PHASE = "a net is made for a phase: caffe.Net(network_file, weights_file, caffe.TEST)"
_IMAGES = (
    'caffe.io.Transformer({{"data": net.blobs["data"].data.shape}}) has {name} now, and caffe.Classifier makes one'
)

OF_NETS = {
    **dict.fromkeys(("set_mode_cpu", "set_mode_gpu", "set_device"), _MODE),
    **dict.fromkeys(("set_phase_test", "set_phase_train"), _PHASE),
    **dict.fromkeys(
        ("set_mean", "set_raw_scale", "set_input_scale", "set_channel_swap", "preprocess", "deprocess"), _IMAGES
    ),
}
OF_MODULE = dict.fromkeys(("set_phase_test", "set_phase_train"), _PHASE)


def lacking(owner: str, name: str, former: dict[str, str]) -> AttributeError:
    """Return (for the caller to raise) the error for a name that ``owner`` lacks; of a former one it says what to use."""
    hint = f"; {former[name].format(name=name)}" if name in former else ""
    return AttributeError(f"{owner} has no attribute {name!r}{hint}")
