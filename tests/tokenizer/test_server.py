"""The tokenizers as a server, over gRPC, with tiny untrained checkpoints."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flax import nnx
from muse.common.v1 import tensor_pb2
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.errors import CheckpointNotFound
from services.runtime.checkpoints.serialization import codebook_fingerprint, save_checkpoint
from services.runtime.server.process import running_server
from services.runtime.wire.tensors import pack_grid, pack_tensor
from services.tokenizer import __main__ as tokenizer_server
from services.tokenizer.model import CODEBOOK, Tokenizer

TINY_LOW, TINY_HIGH = preset("tiny").low_tokenizer, preset("tiny").high_tokenizer

PARAMETERS = [
    {name: np.asarray(value) for name, value in parameters_of(model).items()}
    for model in (Tokenizer(TINY_LOW, rngs=nnx.Rngs(0)), Tokenizer(TINY_HIGH, rngs=nnx.Rngs(1)))
]
LOW, HIGH = (codebook_fingerprint(parameters[CODEBOOK]) for parameters in PARAMETERS)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def served(folder: Path, *names: str) -> AsyncIterator[Any]:
    """The stub of a server of some of the tokenizers."""
    stored = (("low", TINY_LOW, LOW), ("high", TINY_HIGH, HIGH))
    for (name, config, codebook), parameters in zip(stored, PARAMETERS, strict=True):
        if name not in names:
            continue
        save_checkpoint(
            folder / "tokenizer" / name,
            stage="tokenizer",
            config=config,
            parameters=parameters,
            fingerprint={"codebook": codebook},
            record={"preset": "tiny"},
        )
    settings = tokenizer_server.Settings(checkpoints=folder, port=0, max_batch_size=4)
    async with (
        running_server(await tokenizer_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield tokenizer_pb2_grpc.TokenizerServiceStub(channel)


@pytest.fixture(scope="module")
async def stub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    async with served(tmp_path_factory.mktemp("checkpoints"), "low", "high") as opened:
        yield opened


def grid_request(seed: int = 0, codebook: str = HIGH) -> tokenizer_pb2.DecodeRequest:
    side = (TINY_HIGH if codebook == HIGH else TINY_LOW).grid
    ids = np.random.default_rng(seed).integers(0, TINY_HIGH.codebook_size, (side, side))
    return tokenizer_pb2.DecodeRequest(tokens=pack_grid(ids, codebook))


async def test_four_grids_together_decode_to_the_bytes_each_gets_alone(stub: Any) -> None:
    requests = [grid_request(seed, LOW if seed == 1 else HIGH) for seed in range(4)]
    together = await asyncio.gather(*(stub.Decode(each) for each in requests))
    alone = [await stub.Decode(each) for each in requests]

    assert [each.pixels for each in together] == [each.pixels for each in alone]
    assert list(alone[0].pixels.shape) == [TINY_HIGH.image_size, TINY_HIGH.image_size, 3]


async def test_a_picture_is_encoded_with_the_codebook_it_names(stub: Any) -> None:
    side = TINY_LOW.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    answer = await stub.Encode(
        tokenizer_pb2.EncodeRequest(pixels=pack_tensor(pixels), codebook=LOW)
    )

    assert (answer.tokens.height, answer.tokens.codebook) == (TINY_LOW.grid, LOW)


async def test_bad_grids_are_refused_and_the_next_request_works(stub: Any) -> None:
    foreign, truncated, large = grid_request(), grid_request(), grid_request()
    foreign.tokens.codebook = "codebook:other"
    truncated.tokens.ids = truncated.tokens.ids[:-1]
    large.tokens.ids = b"\xff" * len(large.tokens.ids)
    for request, code in (
        (foreign, grpc.StatusCode.FAILED_PRECONDITION),
        (truncated, grpc.StatusCode.INVALID_ARGUMENT),
        (large, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Decode(request)
        assert caught.value.code() is code
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Encode(tokenizer_pb2.EncodeRequest(pixels=tensor_pb2.Tensor(), codebook=LOW))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    assert (await stub.Decode(grid_request())).pixels.data


async def test_the_status_names_both_codebooks(stub: Any) -> None:
    answer = await stub.GetStatus(tokenizer_pb2.GetStatusRequest())
    status = answer.status

    assert dict(status.fingerprints) == {"low_codebook": LOW, "codebook": HIGH}
    assert set(status.checkpoints) == {"tokenizer/low", "tokenizer/high"}
    resolutions = {role: (size.side_px, size.grid) for role, size in answer.resolutions.items()}
    assert resolutions == {
        "low_codebook": (TINY_LOW.image_size, TINY_LOW.grid),
        "codebook": (TINY_HIGH.image_size, TINY_HIGH.grid),
    }
    assert status.precision == "float32"


async def test_without_a_superres_the_low_tokenizer_serves_alone(tmp_path: Path) -> None:
    async with served(tmp_path, "low") as stub:
        answer = await stub.GetStatus(tokenizer_pb2.GetStatusRequest())
        decoded = await stub.Decode(grid_request(codebook=LOW))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Decode(grid_request(codebook=HIGH))

    assert dict(answer.status.fingerprints) == {"low_codebook": LOW}
    assert (answer.status.preset, {*answer.resolutions}) == ("tiny", {"low_codebook"})
    assert list(decoded.pixels.shape) == [TINY_LOW.image_size, TINY_LOW.image_size, 3]
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_the_high_tokenizer_alone_is_of_no_system(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="tokenizer/low"):
        async with served(tmp_path, "high"):
            pass
