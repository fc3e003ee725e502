"""caffe_ocr, which reads lines of text."""

from ..fork import Fork

FORK = Fork(
    name="caffe_ocr",
    title="caffe_ocr",
    source="senlinuc/caffe_ocr",
    types="CTCGreedyDecoder DenseBlock Interp Lstm Reverse ReverseTime Transpose WarpCTCLoss",
    refused={
        "TransformationParameter.add_noise": "adds noise to images",
        "DataParameter.task_class_num": "takes several labels for each record",
        "ImageDataParameter.task_class_num": "takes several labels for each image",
        "ImageDataParameter.regression": "takes several numbers for each image",
        "MemoryDataParameter.label_size": "takes several labels for each item",
    },
)
