"""Arrays to and from the messages of muse.common.v1; unpacking checks every field.

Source: protos/muse/common/v1/tensor.proto, which documents the range of each field.
"""

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int
from muse.common.v1 import tensor_pb2

from services.runtime.wire.errors import failed_precondition, invalid_field

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
BFLOAT16 = tensor_pb2.DATA_TYPE_BFLOAT16
UINT8 = tensor_pb2.DATA_TYPE_UINT8
_DTYPES = {
    FLOAT32: np.dtype("<f4"),
    BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    UINT8: np.dtype(np.uint8),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}
MAX_ID = 2**16 - 1


def pack_tensor(array: np.ndarray) -> tensor_pb2.Tensor:
    """Returns the message of a float32, bfloat16 or uint8 array of any shape.

    Raises:
        TypeError: the array has another type.
    """
    data_type = _DATA_TYPES.get(array.dtype)
    if data_type is None:
        raise TypeError(f"expected float32, bfloat16 or uint8, got {array.dtype}")
    content = np.ascontiguousarray(array, _DTYPES[data_type]).tobytes()
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=content)


def unpack_tensor(
    tensor: tensor_pb2.Tensor,
    *,
    field: str,
    data_types: "Sequence[tensor_pb2.DataType.ValueType]",
    shape: Sequence[int | None],
) -> np.ndarray:
    """Returns the array of a message; None in `shape` allows any length.

    `field` is the message's path in the request, for the error.

    Returns:
        A read-only array over the message's bytes.

    Raises:
        RequestError: INVALID_ARGUMENT: the type, the shape or the number of bytes is wrong.
    """
    if tensor.data_type not in data_types:
        known = tensor_pb2.DataType.values()
        names = [tensor_pb2.DataType.Name(data_type) for data_type in data_types]
        came = tensor.data_type
        raise invalid_field(
            f"{field}.data_type",
            expected=" or ".join(names),
            got=tensor_pb2.DataType.Name(came) if came in known else came,
        )
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(
        length < 1 or length != (wanted or length)
        for length, wanted in zip(found, shape, strict=True)
    ):
        axes = ", ".join("any" if wanted is None else str(wanted) for wanted in shape)
        raise invalid_field(f"{field}.shape", expected=f"[{axes}]", got=list(found))
    dtype = _DTYPES[tensor.data_type]
    size = math.prod(found) * dtype.itemsize
    _check_size(f"{field}.data", tensor.data, size, of=f"shape {list(found)}")
    return np.frombuffer(tensor.data, dtype).reshape(found)


def pack_grid(ids: Int[np.ndarray, "h w"], codebook: str) -> tensor_pb2.TokenGrid:
    """Returns the message of a grid of token ids from 0 to 65535.

    Raises:
        ValueError: an id is out of range, or the array has not two axes.
    """
    if ids.ndim != 2 or ids.min() < 0 or ids.max() > MAX_ID:
        raise ValueError(
            f"expected a grid of ids from 0 to {MAX_ID}, "
            f"got shape {ids.shape} of {ids.min()} to {ids.max()}"
        )
    height, width = ids.shape
    content = ids.astype("<u2").tobytes()
    return tensor_pb2.TokenGrid(height=height, width=width, ids=content, codebook=codebook)


def unpack_grid(
    grid: tensor_pb2.TokenGrid,
    *,
    field: str,
    codebook: str,
    codebook_size: int,
    shape: tuple[int, int] | None = None,
) -> Int[np.ndarray, "h w"]:
    """Returns the int32 array of a grid's message; any shape without `shape`.

    Raises:
        RequestError: FAILED_PRECONDITION: the grid has another codebook. INVALID_ARGUMENT: the
            shape or the number of bytes is wrong, or an id is beyond the codebook.
    """
    _check_fingerprint(f"{field}.codebook", expected=codebook, got=grid.codebook)
    found = (grid.height, grid.width)
    if min(found) < 1 or found != (shape or found):
        expected = f"{shape[0]}x{shape[1]}" if shape else "at least 1x1"
        raise invalid_field(field, expected=expected, got=f"{found[0]}x{found[1]}")
    _check_size(f"{field}.ids", grid.ids, 2 * grid.height * grid.width, of=f"{found[0]}x{found[1]}")
    ids = np.frombuffer(grid.ids, "<u2").astype(np.int32).reshape(found)
    if ids.max() >= codebook_size:
        raise invalid_field(
            f"{field}.ids", expected=f"ids less than {codebook_size}", got=int(ids.max())
        )
    return ids


def pack_embedding(values: Float[np.ndarray, "T D"], encoder: str) -> tensor_pb2.TextEmbedding:
    """Returns the message of a text embedding: float32 or bfloat16, without padding."""
    return tensor_pb2.TextEmbedding(values=pack_tensor(values), encoder=encoder)


def unpack_embedding(
    embedding: tensor_pb2.TextEmbedding,
    *,
    field: str,
    encoder: str,
    hidden: int,
    lengths: range,
) -> Float[np.ndarray, "T D"]:
    """Returns the float32 array of a text embedding's message.

    Args:
        embedding: The message.
        field: Its name in the request, for messages.
        encoder: Fingerprint of the encoder that it has to be of.
        hidden: Width that it has to have.
        lengths: Numbers of rows that it may have, one after the other.

    Raises:
        RequestError: FAILED_PRECONDITION: the embedding comes from another encoder.
            INVALID_ARGUMENT: the type or shape is wrong, or the embedding is too long, too short,
            truncated or not finite.
    """
    _check_fingerprint(f"{field}.encoder", expected=encoder, got=embedding.encoder)
    values = unpack_tensor(
        embedding.values,
        field=f"{field}.values",
        data_types=(FLOAT32, BFLOAT16),
        shape=(None, hidden),
    ).astype(np.float32)
    if len(values) not in lengths:
        fitting = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"
        raise invalid_field(f"{field}.values", expected=f"{fitting} rows", got=len(values))
    if not np.isfinite(values).all():
        raise invalid_field(f"{field}.values", expected="finite numbers", got="NaN or infinity")
    return values


def _check_fingerprint(field: str, *, expected: str, got: str) -> None:
    if got != expected:
        raise failed_precondition(
            f"{field}: expected {expected}, got {got or 'none'}; "
            "both stages must serve checkpoints that were trained together"
        )


def _check_size(field: str, content: bytes, size: int, *, of: str) -> None:
    if len(content) != size:
        raise invalid_field(
            field,
            expected=f"{size} bytes for {of}",
            got=f"{len(content)} bytes",
            advice="it may have been truncated",
        )
