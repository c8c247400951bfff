"""Suffixes by which files of weights, and pickles of anything, are told by name alone: none of these is opened."""

from __future__ import annotations

#: What torch.save and its kin write weights into.
TORCH_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
#: Every pickle: loading one can run code.
PICKLES = (*TORCH_PICKLES, ".pkl", ".pickle", ".joblib", ".dill")
#: Weights in formats that run no code.
PLAIN_WEIGHTS = (".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".npy")
