"""SSD in small: two planes of features with their heads and priors, three classes."""

SOURCE = """
layer {{ name: "{0}_{1}" type: "Convolution" bottom: "{0}" top: "{0}_{1}"
  convolution_param {{ num_output: {2} kernel_size: 3 pad: 1
  weight_filler {{ type: "gaussian" std: 0.3 }} }} }}
layer {{ name: "{0}_{1}_perm" type: "Permute" bottom: "{0}_{1}" top: "{0}_{1}_perm"
  permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "{0}_{1}_flat" type: "Flatten" bottom: "{0}_{1}_perm" top: "{0}_{1}_flat" }}
"""
PRIORS = """
layer {{ name: "{0}_prior" type: "PriorBox" bottom: "{0}" bottom: "data" top: "{0}_prior" prior_box_param {{ min_size: {1}
  max_size: {2} aspect_ratio: 2 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 clip: true }} }}
"""
HEAD = """
layer {{ name: "mbox_{0}" type: "Concat" bottom: "conv4n_{0}" bottom: "conv7_{0}" top: "mbox_{0}" concat_param {{ axis: {1} }} }}
"""
NET = (
    """
name: "SSD_24x24" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 24 }
layer { name: "conv4" type: "Convolution" bottom: "data" top: "conv4"
  convolution_param { num_output: 4 kernel_size: 3 stride: 4 weight_filler { type: "gaussian" std: 0.2 } } }
layer { name: "conv4n" type: "Normalize" bottom: "conv4" top: "conv4n" norm_param { across_spatial: false
  channel_shared: false scale_filler { type: "constant" value: 4 } } }
layer { name: "conv7" type: "Convolution" bottom: "conv4" top: "conv7"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "gaussian" std: 0.2 } } }
"""
    + "".join(SOURCE.format(layer, *kind) for layer in ("conv4n", "conv7") for kind in (("loc", 16), ("conf", 12)))
    + PRIORS.format("conv4n", 6, 9)
    + PRIORS.format("conv7", 12, 20)
    + HEAD.format("loc_flat", 1)
    + HEAD.format("conf_flat", 1)
    + HEAD.format("prior", 2)
    + """
layer { name: "reshape" type: "Reshape" bottom: "mbox_conf_flat" top: "reshape"
  reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "softmax" type: "Softmax" bottom: "reshape" top: "softmax" softmax_param { axis: 2 } }
layer { name: "flat" type: "Flatten" bottom: "softmax" top: "flat" }
layer { name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc_flat" bottom: "flat" bottom: "mbox_prior"
  top: "detection_out" include { phase: TEST } detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 20
    confidence_threshold: 0.98 nms_param { nms_threshold: 0.45 top_k: 40 } } }
"""
)
