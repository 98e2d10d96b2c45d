"""Arrays to and from the messages of muse.common.v1, with everything checked on the way in.

Source: protos/muse/common/v1/tensor.proto, which says what each field may hold.
"""

import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int
from muse.common.v1 import stage_pb2, tensor_pb2

from services.runtime.wire.errors import failed_precondition, invalid_field
from services.runtime.wire.timing import Timed

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
BFLOAT16 = tensor_pb2.DATA_TYPE_BFLOAT16
UINT8 = tensor_pb2.DATA_TYPE_UINT8
_DTYPES = {
    FLOAT32: np.dtype("<f4"),
    BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    UINT8: np.dtype(np.uint8),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}
LARGEST_ID = 2**16 - 1


def pack_tensor(array: np.ndarray) -> tensor_pb2.Tensor:
    """Makes a message of an array.

    Args:
        array: Of float32, bfloat16 or uint8.

    Raises:
        TypeError: it is of another type.
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
    """Makes an array of a message.

    Args:
        tensor: The message.
        field: Its name in the request, for the refusal.
        data_types: Element types it may have.
        shape: Lengths its axes must have; None for any.

    Returns:
        A read-only array over the message's bytes.

    Raises:
        RequestError: INVALID_ARGUMENT: another type, another shape, or too few or many bytes.
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
    if len(tensor.data) != size:
        raise invalid_field(
            f"{field}.data",
            expected=f"{size} bytes for shape {list(found)}",
            got=f"{len(tensor.data)} bytes",
            advice="it may have been truncated",
        )
    return np.frombuffer(tensor.data, dtype).reshape(found)


def pack_grid(ids: Int[np.ndarray, "h w"], codebook: str) -> tensor_pb2.TokenGrid:
    """Makes a message of a grid of token ids.

    Args:
        ids: Ids from 0 to 65535.
        codebook: Fingerprint of their codebook.

    Raises:
        ValueError: an id does not fit, or it is no grid.
    """
    if ids.ndim != 2 or ids.min() < 0 or ids.max() > LARGEST_ID:
        raise ValueError(
            f"expected a grid of ids from 0 to {LARGEST_ID}, "
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
    """Makes an int32 array of a grid.

    Args:
        grid: The message.
        field: Its name in the request, for the refusal.
        codebook: Fingerprint its ids must belong to.
        codebook_size: What every id is less than.
        shape: Rows and columns it must have; None for any.

    Raises:
        RequestError: FAILED_PRECONDITION: it is of another codebook. INVALID_ARGUMENT: another
            shape, too few or many bytes, or an id beyond the codebook.
    """
    if grid.codebook != codebook:
        raise failed_precondition(
            f"{field}.codebook: expected {codebook}, got {grid.codebook or 'none'}; "
            "both stages must serve checkpoints that were trained together"
        )
    found = (grid.height, grid.width)
    if min(found) < 1 or found != (shape or found):
        expected = f"{shape[0]}x{shape[1]}" if shape else "at least 1x1"
        raise invalid_field(field, expected=expected, got=f"{found[0]}x{found[1]}")
    if len(grid.ids) != 2 * grid.height * grid.width:
        raise invalid_field(
            f"{field}.ids",
            expected=f"{2 * grid.height * grid.width} bytes for {found[0]}x{found[1]}",
            got=f"{len(grid.ids)} bytes",
            advice="it may have been truncated",
        )
    ids = np.frombuffer(grid.ids, "<u2").astype(np.int32).reshape(found)
    if ids.max() >= codebook_size:
        raise invalid_field(
            f"{field}.ids", expected=f"ids less than {codebook_size}", got=int(ids.max())
        )
    return ids


def pack_embedding(values: Float[np.ndarray, "T D"], encoder: str) -> tensor_pb2.TextEmbedding:
    """Makes a message of a text's embedding.

    Args:
        values: Float32 or bfloat16, without padding.
        encoder: Fingerprint of the encoder that made it.
    """
    return tensor_pb2.TextEmbedding(values=pack_tensor(values), encoder=encoder)


def unpack_embedding(
    embedding: tensor_pb2.TextEmbedding,
    *,
    field: str,
    encoder: str,
    hidden: int,
    maximum_length: int,
) -> Float[np.ndarray, "T D"]:
    """Makes a float32 array of a text's embedding.

    Args:
        embedding: The message.
        field: Its name in the request, for the refusal.
        encoder: Fingerprint of the encoder it must come from.
        hidden: Its width.
        maximum_length: Tokens it may have.

    Raises:
        RequestError: FAILED_PRECONDITION: it is of another encoder. INVALID_ARGUMENT: another
            type or shape, too long, truncated, or not finite.
    """
    if embedding.encoder != encoder:
        raise failed_precondition(
            f"{field}.encoder: expected {encoder}, got {embedding.encoder or 'none'}; "
            "both stages must serve checkpoints that were trained together"
        )
    values = unpack_tensor(
        embedding.values,
        field=f"{field}.values",
        data_types=(FLOAT32, BFLOAT16),
        shape=(None, hidden),
    ).astype(np.float32)
    if len(values) > maximum_length:
        raise invalid_field(
            f"{field}.values", expected=f"at most {maximum_length} tokens", got=len(values)
        )
    if not np.isfinite(values).all():
        raise invalid_field(f"{field}.values", expected="finite numbers", got="NaN or infinity")
    return values


def pack_timing(stage: str, timed: Timed[Any]) -> stage_pb2.StageTiming:
    """Makes a message of where a request's time went."""
    return stage_pb2.StageTiming(
        stage=stage, queue_s=timed.queue_s, compute_s=timed.compute_s, device_s=timed.device_s
    )


def package_version() -> str:
    """Returns the version of the package that runs."""
    return version("muse")
