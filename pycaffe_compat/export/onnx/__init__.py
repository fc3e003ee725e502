"""Nets as ONNX models of standard operators."""
