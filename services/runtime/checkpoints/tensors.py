"""Tensors by name that are made one at a time, and the safetensors file they are written to.

A model of billions of parameters is averaged, rounded and written so that a host holds one tensor
of it. The safetensors package writes only what is all in memory; the format is its own:
https://github.com/huggingface/safetensors#format.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

Shape = tuple[tuple[int, ...], np.dtype]

_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int8): "I8",
    np.dtype(np.int32): "I32",
}


@dataclass(frozen=True)
class LazyTensors(Mapping[str, np.ndarray]):
    """A mapping whose arrays are made each time they are asked for.

    Attributes:
        shapes: Shape and dtype of each array.
        make: Makes the array of a name.
    """

    shapes: Mapping[str, Shape]
    make: Callable[[str], np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        return self.make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def shapes_of(tensors: Mapping[str, np.ndarray]) -> Mapping[str, Shape]:
    """Returns shape and dtype of each array, without making lazy ones."""
    if isinstance(tensors, LazyTensors):
        return tensors.shapes
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Writes a safetensors file, one tensor after the other.

    Returns:
        Its digest: "sha256:" and 64 hex digits.

    Raises:
        KeyError: a dtype is none of float32, bfloat16, int8 and int32.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, (shape, dtype) in shapes_of(tensors).items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with file.open("wb") as stream:

        def write(content: bytes) -> None:
            digest.update(content)
            stream.write(content)

        write(len(text).to_bytes(8, "little") + text)
        for name in tensors:
            write(np.ascontiguousarray(tensors[name]).tobytes())
    return f"sha256:{digest.hexdigest()}"
