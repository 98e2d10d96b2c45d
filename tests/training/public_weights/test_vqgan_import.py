"""`python -m training import vqgan`: what it writes is served, and bad input writes nothing."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.presets import preset
from services.runtime.checkpoints.errors import CheckpointError, CheckpointMismatch
from services.runtime.checkpoints.golden import read_golden
from services.runtime.checkpoints.serialization import codebook_fingerprint
from services.runtime.server.process import running_server
from services.runtime.wire.tensors import pack_grid, pack_tensor, unpack_grid
from services.tokenizer import __main__ as tokenizer_server
from services.tokenizer.engine import Tokenizers
from services.tokenizer.families import load_tokenizer
from services.tokenizer.model import CODEBOOK
from tests.drawn_tensors import drawn_image
from tests.training.public_weights.published import described, drawn, golden, write_published
from tools.description.chips import chip
from tools.description.command import describe
from tools.description.description import describe as describe_system
from training.__main__ import app
from training.public_weights.layouts import located
from training.public_weights.vqgan import import_vqgan
from training.starting import tokenizer_start
from training.tasks.frozen import FrozenTokenizer

SIDE, GRID = 8, 4
Files = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """aMUSEd's kind of network as the low tokenizer, MaskGIT's as the high one."""
    root = tmp_path_factory.mktemp("published")
    for place, layout in (("low", "diffusers"), ("high", "maskgit")):
        source = write_published(root / layout, layout)
        pixels = ["--pixels", "unsigned"] if layout == "diffusers" else []
        out = str(root / "checkpoints" / "tokenizer" / place)
        command = ["import", "vqgan", str(source), "--layout", layout, "--out", out]
        app([*command, "--image-size", str(SIDE), *pixels], result_action="return_value")
    return root / "checkpoints"


@pytest.fixture(scope="module")
async def stub(checkpoints: Path) -> AsyncIterator[Any]:
    settings = tokenizer_server.Settings(checkpoints=checkpoints, port=0, precision="float32")
    async with (
        running_server(await tokenizer_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield tokenizer_pb2_grpc.TokenizerServiceStub(channel)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("place", "name"), [("low", "diffusers"), ("high", "maskgit")])
async def test_an_imported_tokenizer_is_served_as_the_library_computes_it(
    place: str, name: str, stub: Any, checkpoints: Path
) -> None:
    answers = golden(name)
    (codes,) = (each for part, each in drawn(name).items() if "codebook" in part or "embed" in part)
    codebook = codebook_fingerprint(codes)
    status = await stub.GetStatus(tokenizer_pb2.GetStatusRequest())
    role = {"low": "low_codebook", "high": "codebook"}[place]
    assert status.status.fingerprints[role] == codebook
    assert (status.resolutions[role].side_px, status.resolutions[role].grid) == (SIDE, GRID)

    decoded = await stub.Decode(
        tokenizer_pb2.DecodeRequest(tokens=pack_grid(answers["tokens.0"], codebook))
    )
    pixels = np.frombuffer(decoded.pixels.data, np.uint8).reshape(SIDE, SIDE, 3)
    shown = np.clip(answers["pixels.0"], 0, 1) * 255  # both have pixels in [0, 1]
    np.testing.assert_allclose(pixels, shown, atol=0.51)

    image = np.round((drawn_image(SIDE, SIDE, seed=0) + 1) * 127.5).astype(np.uint8)
    encoded = await stub.Encode(
        tokenizer_pb2.EncodeRequest(pixels=pack_tensor(image), codebook=codebook)
    )
    ids = unpack_grid(encoded.tokens, field="tokens", codebook=codebook, codebook_size=64)
    assert np.mean(ids == answers["ids.0"]) > 0.9  # the library saw the picture before rounding
    frozen = FrozenTokenizer(checkpoints / "tokenizer" / place)
    np.testing.assert_array_equal(frozen.ids(image[None])[0], ids.ravel())


def test_a_checkpoint_says_its_family_source_and_golden_example(checkpoints: Path) -> None:
    folder = checkpoints / "tokenizer" / "low"
    header = json.loads((folder / "config.json").read_text())
    assert (header["stage"], header["family"]) == ("tokenizer", "vqgan")
    loaded = load_tokenizer(folder)
    imported = loaded.record["imported"]
    assert (imported["layout"], imported["file"]) == (
        "diffusers",
        "diffusion_pytorch_model.safetensors",
    )
    assert (loaded.config.factor, loaded.config.codebook_size) == (2, 64)
    kept = read_golden(folder)
    assert kept is not None
    assert kept.inputs["tokens"].shape == (GRID, GRID)


def test_describe_takes_imported_tokenizers_in_place_of_a_preset_s(
    checkpoints: Path,
) -> None:
    folder = checkpoints / "tokenizer"
    low, high = (load_tokenizer(folder / name).config for name in ("low", "high"))
    system = preset("tiny")
    assert system.superres_part is not None
    superres = replace(system.superres, grid=GRID, vocabulary=64)
    fitting = replace(
        system,
        base=replace(system.base, grid=GRID, vocabulary=64),
        superres_part=replace(system.superres_part, config=superres),
    )
    networks = {"low": low, "high": high}
    written = describe_system(fitting, chip("cpu"), tokenizers=networks).to_json()
    tokenizer = written["stages"]["tokenizer"]
    assert tokenizer["low"]["configuration"]["codebook_size"] == 64
    assert tokenizer["token_grid"] == [GRID, GRID]
    sizes = {name: each.size for name, each in load_tokenizer(folder / "low").parameters.items()}
    assert tokenizer["low"]["parameters"] == sum(sizes.values())

    with pytest.raises(
        ValueError, match="the low tokenizer makes 4x4 tokens of 64 codes: expected"
    ):
        describe(preset="tiny", chip="cpu", tokenizers=folder)
    with pytest.raises(ValueError, match="--tokenizers: no tokenizer checkpoint in"):
        describe(preset="tiny", chip="cpu", tokenizers=folder / "nowhere")


def test_codes_of_llamagen_have_length_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(each) for name, each in drawn("llamagen").items()}
    weights["quantize.codebook_used"] = torch.zeros(8)
    torch.save({"model": weights, "steps": 3}, tmp_path / "vq.pt")
    import_vqgan(tmp_path / "vq.pt", "llamagen", tmp_path / "out", image_size=SIDE)
    codes = load_tokenizer(tmp_path / "out").parameters[CODEBOOK]
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)


def test_a_stage_refuses_a_family_that_it_cannot_serve(checkpoints: Path, tmp_path: Path) -> None:
    source, file = checkpoints / "tokenizer" / "low", tmp_path / "config.json"
    for each in source.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    header = json.loads(file.read_text())
    for family in ("movq", ["vqgan"]):
        file.write_text(json.dumps({**header, "family": family}))
        with pytest.raises(CheckpointMismatch, match="this stage serves muse and vqgan"):
            load_tokenizer(tmp_path)


def test_one_network_as_both_tokenizers_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / name).symlink_to(checkpoints / "tokenizer" / "low")
    with pytest.raises(CheckpointMismatch, match=r"low and high in .* have the same codebook"):
        Tokenizers(tmp_path)


def test_training_does_not_start_from_a_published_network(checkpoints: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="of the family 'vqgan': expected 'muse'"):
        tokenizer_start(checkpoints / "tokenizer" / "low", preset("tiny").low_tokenizer, False)


def without(name: str) -> Callable[[Files], Files]:
    return lambda tensors: {each: value for each, value in tensors.items() if name not in each}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Files], Files]:
    return lambda tensors: {**tensors, name: change(tensors[name])}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("encoder.mid_block.resnets.0.conv1"), "2 .*resnets.0.conv1.bias, .* are missing"),
        (
            without("decoder."),
            r"\(decoder.conv_in.bias, .*, \.\.\.\) are missing, and none is unkn",
        ),
        (
            lambda tensors: {**tensors, "extra.weight": np.ones(2, np.float32)},
            "1 .extra.weight. is unk",
        ),
        (changed("quant_conv.bias", lambda bias: bias[:-1]), r"shape \(7,\), where .* has \(8,\)"),
        (changed("quantize.embedding.weight", lambda codes: codes[:-1]), r"\(63, 8\), where .*64"),
        (
            changed("decoder.conv_in.bias", lambda bias: bias * np.nan),
            "64 of 64 .* infinite or NaN",
        ),
    ],
)
def test_wrong_tensors_are_one_sentence_and_leave_nothing(
    spoil: Callable[[Files], Files], message: str, tmp_path: Path
) -> None:
    source = write_published(tmp_path / "source", "diffusers", spoil(drawn("diffusers")))

    with pytest.raises(CheckpointError, match=message) as caught:
        import_vqgan(source, "diffusers", tmp_path / "out", image_size=SIDE, pixels="unsigned")

    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 16}, "expected norm_num_groups 32, got 16"),
        ({"_class_name": "AutoencoderKL"}, "expected _class_name 'VQModel', got 'AutoencoderKL'"),
        ({"block_out_channels": "many"}, "expected a list as block_out_channels, got 'many'"),
        ({"layers_per_block": "2"}, "does not describe a VQGAN"),
        ({"latent_channels": 2.5}, "latent_channels must be int, got 2.5"),
        (
            {"up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]},
            "at the same resolutions",
        ),
        ({"block_out_channels": [32, 40]}, "multiples of 32"),
    ],
)
def test_a_configuration_of_another_network_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fields = {**described("diffusers"), **change}
    source = write_published(tmp_path, "diffusers", fields=fields)
    with pytest.raises(CheckpointMismatch, match=message):
        import_vqgan(source, "diffusers", tmp_path / "out", image_size=SIDE, pixels="signed")


def test_the_layout_of_diffusers_needs_the_range_of_pixels(tmp_path: Path) -> None:
    source = write_published(tmp_path, "diffusers")
    with pytest.raises(ValueError, match="expected --pixels unsigned, as for aMUSEd"):
        import_vqgan(source, "diffusers", tmp_path / "out", image_size=SIDE)


def test_a_hub_id_is_fetched_by_the_hub_s_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_published(tmp_path / "vqvae", "diffusers")
    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["allow_patterns"][:2]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    place = located("amused/amused-512/vqvae@main", "diffusers")
    assert place == tmp_path / "vqvae"
    wanted = ["vqvae/config.json", "vqvae/diffusion_pytorch_model.safetensors"]
    assert asked == [("amused/amused-512", "main", wanted)]
    assert located(str(tmp_path), "taming") == tmp_path
    assert located("last.ckpt", "taming") == Path("last.ckpt")


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", "openmuse")
    with pytest.raises(ValueError, match=r"expected a new folder to write, got .*source"):
        import_vqgan(source, "openmuse", source, image_size=SIDE)
    assert len(list(source.iterdir())) == 2


def test_attention_that_open_muse_leaves_out_is_refused(tmp_path: Path) -> None:
    fields = {**described("openmuse"), "num_res_blocks": 1}
    source = write_published(tmp_path, "openmuse", fields=fields)
    with pytest.raises(CheckpointMismatch, match="expected num_res_blocks of 2 or more"):
        import_vqgan(source, "openmuse", tmp_path / "out", image_size=SIDE)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("openmuse", "openmuse"), ("maskgit", "maskgit"), ("diffusers", "diffusers")],
)
def test_a_truncated_file_is_refused(name: str, layout: Any, tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", name)
    file = source if source.is_file() else next(source.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointMismatch, match="it may be truncated") as caught:
        import_vqgan(source, layout, tmp_path / "out", image_size=SIDE, pixels="unsigned")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_network_of_jax_is_refused(tmp_path: Path) -> None:
    tensors = without("encoder.ResBlock_3")(drawn("maskgit"))
    source = write_published(tmp_path, "maskgit", tensors)
    with pytest.raises(CheckpointMismatch, match="expected MaskGIT's tokenizer"):
        import_vqgan(source, "maskgit", tmp_path / "out", image_size=SIDE)
    source = write_published(tmp_path, "maskgit", without("GroupNorm_0.scale")(drawn("maskgit")))
    with pytest.raises(CheckpointMismatch, match=r"decoder.mid.0.norm1.weight, .* are missing"):
        import_vqgan(source, "maskgit", tmp_path / "out", image_size=SIDE)


def test_a_size_that_tokens_do_not_divide_is_refused(tmp_path: Path) -> None:
    source = write_published(tmp_path, "openmuse")
    with pytest.raises(CheckpointMismatch, match="image_size must be a multiple of the factor 2"):
        import_vqgan(source, "openmuse", tmp_path / "out", image_size=SIDE + 1)


def test_a_configuration_of_a_vqgan_is_checked(checkpoints: Path) -> None:
    config = load_tokenizer(checkpoints / "tokenizer" / "high").config
    assert config.grid == GRID
    for change, message in (
        ({"attention_levels": (2,)}, "attention_levels must be less than 2"),
        ({"channels": ()}, "multiples of 32"),
        ({"codebook_size": 0}, "codebook_size must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **change)
