"""`python -m training import amused`: what it writes is served, and bad input writes nothing."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import httpx2
import numpy as np
import pytest
from huggingface_hub import errors
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1 import decoding_pb2, tensor_pb2
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc
from safetensors.numpy import load_file, save_file

from services.base import __main__ as base_server
from services.base.spec import BASE
from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.nn.sharding import check_divides
from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import (
    CheckpointError,
    CheckpointNotFound,
)
from services.runtime.checkpoints.golden import read_golden
from services.runtime.server.process import running_server
from services.runtime.wire.tensors import pack_embedding, unpack_embedding, unpack_grid
from services.text_encoder import __main__ as text_encoder_server
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.families import load_tokenizer
from tests.training.public_weights.amused import write_pipeline
from tests.training.public_weights.published import described, write_published
from tests.training.public_weights.published import drawn as drawn_vqgan
from training.__main__ import app
from training.public_weights.amused import FILES, import_amused, licence_of

ROWS, WIDTH = 78, 20  # of an embedding: 77 positions and the pooled vector
TRANSFORMER = Path("transformer") / "diffusion_pytorch_model.safetensors"
Files = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("amused") / "source")


@pytest.fixture(scope="module")
def shown(source: Path) -> str:
    """What the import shows, into the folder of `checkpoints`."""
    out = str(source.parent / "checkpoints")
    with redirect_stdout(StringIO()) as written:
        app(["import", "amused", str(source), "--out", out], result_action="return_value")
    return written.getvalue()


@pytest.fixture(scope="module")
def checkpoints(source: Path, shown: str) -> Path:
    assert shown
    return source.parent / "checkpoints"


@pytest.fixture(scope="module")
async def texts(checkpoints: Path) -> AsyncIterator[Any]:
    settings = text_encoder_server.Settings(checkpoints=checkpoints, port=0, precision="float32")
    async with (
        running_server(await text_encoder_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield text_encoder_pb2_grpc.TextEncoderServiceStub(channel)


@pytest.fixture(scope="module")
async def base(checkpoints: Path) -> AsyncIterator[Any]:
    settings = base_server.Settings(
        checkpoints=checkpoints, port=0, precision="float32", max_batch_size=1
    )
    async with (
        running_server(await base_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield base_pb2_grpc.BaseServiceStub(channel)


async def embeddings(texts: Any, *prompts: str) -> list[tensor_pb2.TextEmbedding]:
    response = await texts.Encode(text_encoder_pb2.EncodeRequest(texts=prompts))
    return list(response.embeddings)


async def tokens(base: Any, **fields: Any) -> np.ndarray:
    request = base_pb2.GenerateRequest(**fields)
    *_, last = [event async for event in base.Generate(request)]
    grid = last.result.tokens
    ids = unpack_grid(grid, field="tokens", codebook=grid.codebook, codebook_size=64)
    assert ids.shape == (16, 16)
    assert last.result.steps == (request.sampling.steps or 12)
    return ids


@pytest.mark.asyncio(loop_scope="module")
async def test_text_encoder_and_base_serve_what_was_imported(
    texts: Any, base: Any, checkpoints: Path
) -> None:
    status = (await texts.GetStatus(text_encoder_pb2.GetStatusRequest())).status
    encoder = status.fingerprints["encoder"]
    assert encoder.startswith("clip:")
    prompt, empty = await embeddings(texts, "a fox", "")
    values = unpack_embedding(
        prompt, field="prompt", encoder=encoder, hidden=WIDTH, lengths=range(ROWS, ROWS + 1)
    )
    assert np.abs(values[-1] - values[-2]).max() > 0.1

    of_base = await base.GetStatus(base_pb2.GetStatusRequest())
    tokenizer = load_tokenizer(checkpoints / "tokenizer" / "low")
    assert of_base.status.fingerprints == {
        "encoder": encoder,
        "codebook": tokenizer.fingerprint["codebook"],
    }
    defaults = of_base.defaults
    assert (defaults.steps, defaults.guidance_scale, defaults.guidance_scale_start) == (12, 9, 9)
    assert (defaults.temperature, defaults.top_k) == (1, 0)
    assert defaults.choice_temperature == pytest.approx(24 / 11)

    # The empty text is what guidance leads away from by default, and what no prompt is.
    drawn = await tokens(base, prompt=prompt)
    np.testing.assert_array_equal(await tokens(base, prompt=prompt, negative_prompt=empty), drawn)
    assert (await tokens(base, prompt=prompt, negative_prompt=prompt) != drawn).any()
    unguided = {"guidance_scale": 0, "guidance_scale_start": 0, "steps": 3}
    np.testing.assert_array_equal(
        await tokens(base, sampling=unguided), await tokens(base, sampling=unguided, prompt=empty)
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_known_tokens_stay_and_a_mask_free_edit_changes_some(texts: Any, base: Any) -> None:
    prompt, other = await embeddings(texts, "a fox", "two horses on mars")
    request = base_pb2.GenerateRequest(prompt=prompt, progress=decoding_pb2.PROGRESS_DETAIL_STATES)
    *events, last = [event async for event in base.Generate(request)]
    assert [event.progress.step for event in events] == list(range(1, 13))
    drawn = last.result.tokens
    known = np.arange(256) % 3 > 0
    state = decoding_pb2.DecodeState(tokens=drawn, known=known.astype(np.uint8).tobytes())

    filled = await tokens(base, prompt=other, resume=state)
    edited = await tokens(
        base, prompt=other, resume=state, mask_free_edit={}, sampling={"steps": 5, "top_k": 3}
    )

    before = np.frombuffer(drawn.ids, "<u2")
    for changed in (filled.ravel(), edited.ravel()):
        np.testing.assert_array_equal(changed[known], before[known])
        assert (changed[~known] != before[~known]).any()
    # A decode that is resumed from the state after any step ends as it would have.
    rest = {"prompt": prompt, "resume": events[4].progress.state}
    np.testing.assert_array_equal((await tokens(base, **rest)).ravel(), before)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_embedding_without_all_rows_is_refused(texts: Any, base: Any) -> None:
    (prompt,) = await embeddings(texts, "a fox")
    short = pack_embedding(np.zeros((5, WIDTH), np.float32), prompt.encoder)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tokens(base, prompt=short)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "prompt.values: expected 78 rows, got 5" in (caught.value.details() or "")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_text_that_is_too_long_is_refused(texts: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embeddings(texts, "zq" * 38)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "texts[0]: expected at most 77 tokens" in (caught.value.details() or "")


def test_checkpoints_say_family_source_licence_and_golden_example(
    checkpoints: Path, source: Path
) -> None:
    families = {"text_encoder": "clip", "base": "uvit", "tokenizer/low": "vqgan"}
    for stage, family in families.items():
        folder = checkpoints / stage
        assert read_object(folder / "config.json")["family"] == family
        imported = read_object(folder / "training.json")["imported"]
        assert (imported["source"], imported["licence"]) == (str(source), "mit")
        assert read_golden(folder) is not None


def test_the_import_shows_the_licence_of_the_model_card(shown: str, tmp_path: Path) -> None:
    assert "32 px as 16 x 16 tokens of 64 codes. The licence of its weights is mit" in shown
    assert licence_of(tmp_path) == "openrail++"
    (tmp_path / "README.md").write_text("# A model\n")
    assert licence_of(tmp_path) == "openrail++"


def test_it_is_served_in_fewer_bits(checkpoints: Path) -> None:
    loaded = load_text_encoder(checkpoints / "text_encoder", dtype="bfloat16", weights="int8")
    encoder = TextEncoderEngine(loaded, max_batch_size=1)
    encoder.warm_up()  # the embeddings are those of the golden example, but for a tenth
    serving = default_serving_config(1, weights="int8", precision="bfloat16")
    engine = MaskedEngine.load(BASE, checkpoints / "base", serving)
    engine.pool.warm_up()

    golden = read_golden(checkpoints / "base")
    assert golden is not None
    same = engine.answer_golden(golden.inputs)["tokens"] == golden.outputs["tokens"]
    assert same.mean() > 0.8  # drawn weights are undecided: the likeliest codes are close


def test_one_device_has_all_of_it(checkpoints: Path) -> None:
    engine = MaskedEngine.load(BASE, checkpoints / "base", default_serving_config(1))
    with pytest.raises(ValueError, match=r"of the family uvit cannot be divided.*one of model=1"):
        check_divides(2, BASE.sharded(engine.config))


def test_a_hub_id_is_fetched_without_pickles(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["allow_patterns"]))
        return str(tmp_path / "empty")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError):
        import_amused("amused/amused-512@main", tmp_path / "out")
    assert asked == [("amused/amused-512", "main", list(FILES))]
    assert not any("bin" in name or "fp16" in name for name in FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "name", "reason"),
    [
        (404, "RepositoryNotFoundError", "no such repository"),
        (404, "RevisionNotFoundError", "no such revision"),
        (403, "GatedRepoError", "access is restricted"),
        (0, "LocalEntryNotFoundError", "cannot reach the hub"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_sentence(
    status: int, name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        kind = getattr(errors, name)
        response = httpx2.Response(status or 500, request=httpx2.Request("GET", "http://hub"))
        raise kind(reason) if name == "LocalEntryNotFoundError" else kind(reason, response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointNotFound, match=reason) as caught:
        import_amused("amused/amused-512@nowhere", tmp_path / "out")
    assert str(caught.value).startswith("amused/amused-512@nowhere is not on this machine")
    assert list(tmp_path.iterdir()) == []


def without(name: str) -> Callable[[Files], Files]:
    return lambda tensors: {each: value for each, value in tensors.items() if name not in each}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Files], Files]:
    return lambda tensors: {**tensors, name: change(tensors[name])}


MAPPER = "down_block.res_blocks.1.cond_embeds_mapper.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("norm1.norm"), r"2 \(transformer_layers.0.norm1.norm.weight, .*\) are missing"),
        (without("down_block."), r", \.\.\.\) are missing, and none is unknown"),
        (
            lambda tensors: {**tensors, "extra.weight": np.ones(2, np.float32)},
            r"none is missing, and 1 \(extra.weight\) is unknown",
        ),
        (changed(MAPPER, lambda matrix: matrix.T), r"mapper.weight \(32, 48\) has another shape"),
        (changed("embed.embeddings.weight", lambda rows: rows[:-1]), r"\(71, 28\) has another"),
        (changed("embed.conv.weight", lambda one: np.tile(one, (3, 3))), r"28, 3, 3\) has another"),
        (changed(MAPPER, lambda matrix: matrix * np.nan), "1536 of 1536 .* infinite or NaN"),
    ],
)
def test_wrong_tensors_are_one_sentence_and_leave_nothing(
    spoil: Callable[[Files], Files], message: str, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path / "source")
    tensors = {name: value.copy() for name, value in load_file(source / TRANSFORMER).items()}
    spoiled = {name: np.ascontiguousarray(value) for name, value in spoil(tensors).items()}
    save_file(spoiled, source / TRANSFORMER)
    refused(source, message)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("transformer/config.json", {"use_bias": True}, "expected use_bias False, got True"),
        ("transformer/config.json", {"upsample": True}, "expected upsample False, got True"),
        ("transformer/config.json", {"cond_embed_dim": 9}, "expected cond_embed_dim 20, got 9"),
        ("transformer/config.json", {"vocab_size": "many"}, "a number as vocab_size, got 'many'"),
        ("transformer/config.json", {"sample_size": None}, "is no aMUSEd: expected sample_size"),
        ("transformer/config.json", {"hidden_size": 24}, "channels must differ from hidden"),
        (
            "transformer/config.json",
            {"encoder_hidden_size": 9, "cond_embed_dim": 9},
            "size 20, .* got 9",
        ),
        ("scheduler/scheduler_config.json", {"mask_token_id": 5}, "mask_token_id 64 to 71"),
        ("scheduler/scheduler_config.json", {"masking_schedule": "linear"}, "'cosine', got 'lin"),
        ("vqvae/config.json", {"norm_num_groups": 16}, "expected norm_num_groups 32, got 16"),
        ("text_encoder/config.json", {"model_type": "t5"}, "expected model_type"),
    ],
)
def test_another_configuration_is_one_sentence_and_leaves_nothing(
    file: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path / "source")
    fields = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps({**fields, **change}))
    refused(source, message)


def test_a_codebook_of_another_size_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_pipeline(tmp_path / "source")
    tensors = drawn_vqgan("diffusers")
    codes = "quantize.embedding.weight"
    tensors[codes] = tensors[codes][:63].copy()
    fields = {**described("diffusers"), "num_vq_embeddings": 63}
    write_published(source / "vqvae", "diffusers", tensors, fields)
    refused(source, "expected a VQGAN of 64 codes, .* got one of 63")


def test_a_truncated_file_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_pipeline(tmp_path / "source")
    whole = (source / TRANSFORMER).read_bytes()
    (source / TRANSFORMER).write_bytes(whole[: len(whole) // 2])
    refused(source, "it may be truncated, fetch it again")


def test_a_pickle_that_asks_for_code_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = write_pipeline(tmp_path / "source")
    (source / TRANSFORMER).unlink()
    torch.save({"weight": print}, (source / TRANSFORMER).with_suffix(".bin"))
    refused(source, r"asks for .*print.* nothing of it was used")


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vqvae", "scheduler"])
def test_a_missing_part_is_one_sentence_and_leaves_nothing(part: str, tmp_path: Path) -> None:
    source = write_pipeline(tmp_path / "source")
    for each in (source / part).iterdir():
        each.unlink()
    refused(source, part)


def refused(source: Path, message: str) -> None:
    """Checks that the import of a folder ends with one sentence, and writes nothing beside it."""
    with pytest.raises(CheckpointError, match=message) as caught:
        import_amused(str(source), source.parent / "out")
    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in source.parent.iterdir()) == ["source"]


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="expected a folder of aMUSEd or a hub id"):
        import_amused(str(tmp_path / "no" / "folder"), tmp_path / "out")
    with pytest.raises(ValueError, match="expected a new folder to write"):
        import_amused("amused/amused-512", tmp_path)
