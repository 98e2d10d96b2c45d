"""An imported VQGAN gives the tokens and the pixels of the library that it was published with."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array

from services.nn.parameters import with_parameters
from services.tokenizer.vqgan import Vqgan
from tests.drawn_tensors import drawn_image, drawn_tensors
from tests.training.public_weights.published import (
    LAYOUT_OF,
    golden,
    read_published,
    write_published,
)
from training.public_weights.layouts import PublishedVqgan, read_vqgan

TOLERANCE = 1e-4


def network(read: PublishedVqgan) -> Vqgan:
    """The network of a VQGAN that was read."""
    return with_parameters(lambda: Vqgan(read.config, rngs=nnx.Rngs(0)), read.parameters)


def assert_same(
    vqgan: Vqgan, image: np.ndarray, ids: np.ndarray, tokens: np.ndarray, pixels: np.ndarray
) -> None:
    """Compares both directions with a reference, whose pixels have the network's own range."""
    graph, state = nnx.split(vqgan)

    @jax.jit
    def both(state: nnx.State, image: Array, grid: Array) -> tuple[Array, Array]:
        model = nnx.merge(graph, state)
        return model.encode(image), model.decoder(model.quantizer.codes(grid))

    made_ids, made = both(state, image[None], tokens[None])
    np.testing.assert_array_equal(made_ids[0], ids)
    np.testing.assert_allclose(made[0], pixels, atol=TOLERANCE)


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_tokens_and_pixels_equal_the_committed_ones_of_the_library(
    name: str, tmp_path: Path
) -> None:
    answers = golden(name)
    vqgan = network(read_published(name, tmp_path))

    for index in range(2):
        ids, tokens, pixels = (answers[f"{kind}.{index}"] for kind in ("ids", "tokens", "pixels"))
        height, width = pixels.shape[:2]
        assert len(np.unique(ids)) > 6
        assert_same(vqgan, drawn_image(height, width, seed=index), ids, tokens, pixels)


LOWEST = {
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
}
OF_AMUSED = {  # f16 without attention, as aMUSEd's; with channels enough for Winograd's products
    "block_out_channels": [32, 32, 64, 64, 128],
    "layers_per_block": 1,
    "down_block_types": 5 * ["DownEncoderBlock2D"],
    "up_block_types": 5 * ["UpDecoderBlock2D"],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mid_block_add_attention": True, **LOWEST},
        {"block_out_channels": [32, 160], "layers_per_block": 1, "latent_channels": 8},
        OF_AMUSED,
    ],
)
def test_tokens_and_pixels_equal_those_of_diffusers_where_it_is_installed(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from tests.goldens.vqgan.regenerate import diffusers_reference

    reference = diffusers_reference(**changes)
    source = write_published(
        tmp_path, "diffusers", drawn_tensors(reference.shapes), dict(reference.described)
    )
    vqgan = network(read_vqgan(source, "diffusers", image_size=16, pixels="unsigned"))

    for height, width in ((16, 16), (32, 48)):
        image = drawn_image(height, width, seed=height)
        ids = reference.encode(image)
        tokens = np.random.RandomState(width).randint(0, vqgan.config.codebook_size, ids.shape)
        assert_same(vqgan, image, ids, tokens, reference.decode(tokens))
