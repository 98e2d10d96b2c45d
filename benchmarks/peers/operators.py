"""Lets torchvision be imported where its operators cannot be loaded.

The wheel on PyPI is built against CUDA's libraries, which a CPU build of PyTorch lacks; its import
then fails on operators that are not there. The peers import it and call none of them.
"""

from importlib import import_module
from typing import Any

import torch

_declared: list[Any] = []  # what is declared here lives as long as the module


def import_torchvision() -> None:
    """Imports torchvision, with declarations in the place of operators that are missing."""
    try:
        import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import_module("torchvision")
