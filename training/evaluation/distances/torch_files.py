"""Arrays of a PyTorch file of the form before version 1.6, read without PyTorch and without trust.

Such a file is four pickles and the raw contents of storages after them: a magic number, a protocol
version, a description of the machine, the tensors, and the order of the storages. The pickles may
name OrderedDict, tensors and storages, and nothing else that Python could call.

Source: PyTorch, torch/serialization.py, `_legacy_save`.
"""

import io
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    """Stands in for torch._utils._rebuild_tensor_v2."""
    return _Tensor(storage, offset, shape, strides)


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ValueError(f"it asks for {module}.{name}, and tensors alone are read")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, length, _view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"it refers to {kind!r}, and storages alone are read")
        return _Storage(key, dtype, length)


def read_torch_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a file that `torch.save` wrote before PyTorch 1.6.

    Args:
        content: The file.
        name: Of the file, for error messages.

    Returns:
        Arrays by name; float32 or int64.

    Raises:
        ValueError: the file is of another form, is damaged, or holds something besides tensors.
    """
    try:
        return _read(io.BytesIO(content))
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise ValueError(
            f"{name}: expected a PyTorch file of tensors in the form before version 1.6, "
            f"got {error}"
        ) from error


def _read(stream: io.BytesIO) -> dict[str, np.ndarray]:
    magic, protocol, machine, tensors, keys = (_TensorUnpickler(stream).load() for _ in range(5))
    if (magic, protocol, machine.get("little_endian")) != (_MAGIC, _PROTOCOL, True):
        raise ValueError("another magic number, protocol or byte order")
    storages = {each.storage.key: each.storage for each in tensors.values()}
    contents: dict[str, np.ndarray] = {}
    for key in keys:
        storage = storages[key]
        (length,) = struct.unpack("<q", stream.read(8))
        if length != storage.length:
            raise ValueError(f"a storage of {length} values and not {storage.length}")
        raw = stream.read(length * storage.dtype.itemsize)
        contents[key] = np.frombuffer(raw, storage.dtype, count=length)
    return {name: _array(contents[each.storage.key], each) for name, each in tensors.items()}


def _array(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """Returns a view of a storage; strides count values, as those of a transposed tensor do."""
    if min(tensor.shape, default=1) < 1 or min((tensor.offset, *tensor.strides)) < 0:
        raise ValueError(f"a tensor of shape {tensor.shape} and strides {tensor.strides}")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if last >= len(values):
        raise ValueError(f"a tensor of shape {tensor.shape} in a storage of {len(values)} values")
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
