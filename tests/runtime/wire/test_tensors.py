"""Arrays on the wire: what goes in comes out, and nothing malformed gets in."""

import ml_dtypes
import numpy as np
import pytest
from grpc import StatusCode
from muse.common.v1 import tensor_pb2

from services.runtime.wire.errors import RequestError
from services.runtime.wire.tensors import (
    BFLOAT16,
    FLOAT32,
    UINT8,
    pack_embedding,
    pack_grid,
    pack_tensor,
    unpack_embedding,
    unpack_grid,
    unpack_tensor,
)

IDS = np.arange(6).reshape(2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, ml_dtypes.bfloat16])
def test_a_tensor_comes_back_as_it_went(dtype: type) -> None:
    array = np.arange(12).reshape(3, 4).T.astype(dtype)
    back = unpack_tensor(
        pack_tensor(array), field="x", data_types=(FLOAT32, BFLOAT16, UINT8), shape=(4, None)
    )

    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (tensor_pb2.Tensor(shape=[2], data=b"ab"), "x.data_type"),
        (tensor_pb2.Tensor(data_type=99, shape=[2], data=b"ab"), "x.data_type"),  # type: ignore[arg-type]
        (tensor_pb2.Tensor(data_type=UINT8, shape=[1, 2], data=b"ab"), "x.shape"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[0]), "x.shape"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[-2], data=b"ab"), "x.shape"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[3], data=b"ab"), "x.data"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[2**62], data=b"ab"), "x.data"),
    ],
)
def test_a_malformed_tensor_is_refused_by_the_name_of_its_field(
    tensor: tensor_pb2.Tensor, field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        unpack_tensor(tensor, field="x", data_types=(UINT8,), shape=(None,))

    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert caught.value.violations[0].field == field


def test_a_grid_comes_back_as_it_went() -> None:
    grid = pack_grid(IDS, "codebook:a")

    assert len(grid.ids) == 12
    back = unpack_grid(grid, field="x", codebook="codebook:a", codebook_size=6, shape=(2, 3))
    assert np.array_equal(back, IDS)


def test_a_grid_of_another_codebook_is_refused_with_both_names() -> None:
    with pytest.raises(RequestError, match=r"codebook:b.*codebook:a") as caught:
        unpack_grid(pack_grid(IDS, "codebook:a"), field="x", codebook="codebook:b", codebook_size=6)

    assert caught.value.code is StatusCode.FAILED_PRECONDITION


def test_a_grid_that_is_truncated_or_misshapen_or_beyond_its_codebook_is_refused() -> None:
    good = pack_grid(IDS, "c")
    truncated = tensor_pb2.TokenGrid(height=2, width=3, ids=good.ids[:-1], codebook="c")
    empty = tensor_pb2.TokenGrid(codebook="c")
    for grid, size, shape in (
        (truncated, 6, None),
        (empty, 6, None),
        (good, 5, None),
        (good, 6, (3, 2)),
    ):
        with pytest.raises(RequestError) as caught:
            unpack_grid(grid, field="x", codebook="c", codebook_size=size, shape=shape)
        assert caught.value.code is StatusCode.INVALID_ARGUMENT


def test_ids_that_do_not_fit_two_bytes_are_not_packed() -> None:
    with pytest.raises(ValueError, match="65535"):
        pack_grid(np.array([[65536]]), "c")


def test_embeddings_must_be_finite_short_enough_and_of_the_right_encoder() -> None:
    values = np.ones((3, 4), np.float32)
    limits = {"field": "x", "hidden": 4}
    back = unpack_embedding(
        pack_embedding(values, "t5:a"), encoder="t5:a", lengths=range(2, 4), **limits
    )
    assert np.array_equal(back, values)

    broken = values.copy()
    broken[1, 2] = np.nan
    for embedded, encoder, lengths, code in (
        (values, "t5:b", range(1, 4), StatusCode.FAILED_PRECONDITION),
        (values, "t5:a", range(1, 3), StatusCode.INVALID_ARGUMENT),
        (values, "t5:a", range(4, 6), StatusCode.INVALID_ARGUMENT),
        (broken, "t5:a", range(1, 4), StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(RequestError) as caught:
            unpack_embedding(
                pack_embedding(embedded, "t5:a"),
                encoder=encoder,
                lengths=lengths,
                **limits,
            )
        assert caught.value.code is code
