"""Restricted unpickling: nested dictionaries of numpy arrays, and no other class or function.

A pickle is a program that may call anything it can import. This reader imports only the three
names that rebuild a numpy array.

Source: Python documentation, "pickle", section "Restricting Globals".
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from training.perceptual.errors import LpipsError

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(io.BytesIO(content))
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise LpipsError(
                f"{self._name} asks for {module}.{name}: expected numpy arrays alone, so nothing "
                "of it was used; do not open this file with Python's pickle"
            ) from None


def unpickle_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Reads a pickle of nested dictionaries of float32 arrays.

    Args:
        content: The pickle.
        name: Name of the file, for error messages.

    Returns:
        Arrays by their keys joined with "/", such as "AlexNet_0/Conv_0/kernel".

    Raises:
        LpipsError: the pickle names a class other than numpy's arrays, is damaged, or holds
            something other than float32 arrays in dictionaries.
    """
    try:
        tree = _ArrayUnpickler(content, name).load()
    except LpipsError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise LpipsError(f"{name} is no readable pickle: {error!r}; download it again") from error
    arrays: dict[str, np.ndarray] = {}
    _flatten(tree, "", arrays, name)
    return arrays


def _flatten(node: Any, path: str, arrays: dict[str, np.ndarray], name: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _flatten(value, f"{path}/{key}" if path else str(key), arrays, name)
    elif isinstance(node, np.ndarray) and node.dtype == np.float32:
        arrays[path] = node
    else:
        found = node.dtype if isinstance(node, np.ndarray) else type(node).__name__
        raise LpipsError(f"{name}: expected a float32 array at {path or 'its root'!r}, got {found}")
