"""Convolutional LSTM."""

from ..fork import Fork

FORK = Fork(
    name="conv_lstm",
    title="ConvLSTM",
    source="agethen/ConvLSTM-for-Caffe",
    types="ConvLSTM ConvLSTMUnit DummyForward",
)
