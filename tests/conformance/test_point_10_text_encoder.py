"""Point 10 of the method: the T5 v1.1 encoder, against hand-written arithmetic; masked padding."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.presets import preset
from services.superres.model import SuperresTransformer
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.loading import load_text_encoder
from services.text_encoder.model import TextEncoder, relative_buckets

TINY_SUPERRES = preset("tiny").superres
CONFIG = TextEncoderConfig(
    vocabulary_size=40,
    hidden=16,
    layers=3,
    heads=2,
    head_dim=4,  # heads * head_dim differs from hidden, as T5 v1.1 allows
    mlp=24,
    relative_buckets=8,
    relative_max_distance=16,
    maximum_length=32,
)
IDS = np.random.default_rng(0).integers(2, 40, (2, 9))
MASK = np.arange(9)[None, :] < np.array([[6], [9]])


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    """Random everywhere, also where a fresh encoder is all ones."""
    encoder = TextEncoder(CONFIG, rngs=nnx.Rngs(0))
    graph, state = nnx.split(encoder)
    keys = iter(jax.random.split(jax.random.key(1), 64))
    varied = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), state
    )
    return nnx.merge(graph, varied)


def by_hand(weights: dict[str, np.ndarray], ids: np.ndarray, buckets: np.ndarray) -> np.ndarray:
    """One text, no padding, float64, loops over layers and heads."""

    def norm(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-6) * scale

    def gelu(rows: np.ndarray) -> np.ndarray:
        return 0.5 * rows * (1 + np.tanh(np.sqrt(2 / np.pi) * (rows + 0.044715 * rows**3)))

    bias = weights["relative_bias"][buckets]  # the same one in every layer
    rows = weights["embedding"][ids]
    for layer in range(CONFIG.layers):
        own = {
            name.removeprefix("blocks."): value[layer]
            for name, value in weights.items()
            if name.startswith("blocks.")
        }
        normal = norm(rows, own["attention_norm.scale"])
        mixed = []
        for head in range(CONFIG.heads):
            part = slice(head * CONFIG.head_dim, (head + 1) * CONFIG.head_dim)
            query, key, value = (
                normal @ own[f"attention.{name}"][:, part] for name in ("query", "key", "value")
            )
            logits = query @ key.T + bias[:, :, head]  # not divided by anything
            chances = np.exp(logits - logits.max(-1, keepdims=True))
            mixed.append(chances / chances.sum(-1, keepdims=True) @ value)
        rows = rows + np.concatenate(mixed, -1) @ own["attention.output"]
        normal = norm(rows, own["mlp_norm.scale"])
        gated = gelu(normal @ own["mlp.gate"]) * (normal @ own["mlp.linear"])
        rows = rows + gated @ own["mlp.output"]
    return norm(rows, weights["final_norm.scale"])


def test_it_is_t5s_arithmetic_layer_by_layer(encoder: TextEncoder) -> None:
    weights = {
        name: np.asarray(value, np.float64) for name, value in parameters_of(encoder).items()
    }
    buckets = relative_buckets(
        9,
        9,
        buckets=CONFIG.relative_buckets,
        maximum_distance=CONFIG.relative_max_distance,
        bidirectional=True,
    )

    found = encoder(jnp.asarray(IDS[1:]), jnp.ones((1, 9), bool))[0]

    np.testing.assert_allclose(found, by_hand(weights, IDS[1], buckets), atol=2e-4)


def test_there_is_one_position_bias_and_no_other_bias(encoder: TextEncoder) -> None:
    shapes = {name: value.shape for name, value in parameters_of(encoder).items()}

    assert [name for name in shapes if "bias" in name] == ["relative_bias"]
    assert shapes["relative_bias"] == (CONFIG.relative_buckets, CONFIG.heads)
    scales = {name: shape for name, shape in shapes.items() if len(shape) < 2 or "norm" in name}
    assert all(name.endswith("norm.scale") for name in scales)


def test_the_norm_takes_no_mean_away(encoder: TextEncoder) -> None:
    rows = jnp.full((1, CONFIG.hidden), 3.0)

    normal = encoder.final_norm(rows)

    np.testing.assert_allclose(normal[0], encoder.final_norm.scale[...], rtol=1e-5)


def test_float16_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float32 or bfloat16, got float16"):
        load_text_encoder(tmp_path, dtype=jnp.float16)


def test_what_lies_in_the_padding_moves_no_embedding(encoder: TextEncoder) -> None:
    other = np.where(MASK, IDS, 3)

    np.testing.assert_array_equal(encoder(IDS, MASK), encoder(other, MASK))
    assert not np.any(np.asarray(encoder(IDS, MASK))[~MASK])


def conditional_logits(model: Any, text: jax.Array, mask: jax.Array, *low: jax.Array) -> jax.Array:
    """Logits of a grid that is unknown all over."""
    config = model.config
    tokens = jnp.full((text.shape[0], config.grid**2), config.vocabulary)
    return model.logits(tokens, model.context(*low, text, mask), jnp.ones(text.shape[0], bool))


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_padding_is_masked_in_every_cross_attention(stage: str) -> None:
    low: tuple[jax.Array, ...] = ()
    model: Any
    if stage == "base":
        config = BaseConfig(
            grid=4,
            vocabulary=8,
            hidden=16,
            layers=2,
            heads=2,
            mlp=32,
            text_hidden=16,
            text_length=9,
        )
        model = BaseTransformer(config, rngs=nnx.Rngs(0))
    else:
        model = SuperresTransformer(TINY_SUPERRES, rngs=nnx.Rngs(0))
        low = (jnp.zeros((2, TINY_SUPERRES.low_grid**2), jnp.int32),)
    text = jax.random.normal(jax.random.key(2), (2, 9, 16))
    mask = jnp.asarray(MASK)

    plain = conditional_logits(model, text, mask, *low)
    padding_changed = conditional_logits(model, jnp.where(mask[..., None], text, 100.0), mask, *low)
    text_changed = conditional_logits(model, text.at[:, 5].add(1.0), mask, *low)

    np.testing.assert_allclose(padding_changed, plain, atol=1e-6)
    assert np.max(np.abs(text_changed - plain)) > 1e-5
