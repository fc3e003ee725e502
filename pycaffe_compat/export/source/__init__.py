"""Nets as source: a plain PyTorch module, as one would write it by hand, and its weights as safetensors."""
