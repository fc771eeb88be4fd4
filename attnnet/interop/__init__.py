"""Models in and out: files of PyTorch read without it, state dicts both ways, ONNX."""

from .onnx_export import export_onnx
from .onnx_graph import onnx_nodes
from .torch_file import read_torch_file
from .weights import from_torch_state_dict, load, to_torch_state_dict

__all__ = [
    "export_onnx",
    "from_torch_state_dict",
    "load",
    "onnx_nodes",
    "read_torch_file",
    "to_torch_state_dict",
]
