"""aMUSEd beside diffusers and transformers, where they are installed."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.base.families import UVIT_FAMILY, build_base
from services.base.spec import BASE
from services.base.uvit_config import UVitConfig
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.state import Sampling, fresh_row
from services.nn.parameters import with_parameters
from services.runtime.checkpoints.serialization import load_checkpoint
from services.text_encoder.clip_vocabulary import ClipVocabulary
from services.text_encoder.families import build_text_encoder
from services.text_encoder.loading import load_text_encoder
from tests.drawn_tensors import drawn_tensors
from tests.training.public_weights.amused import VOCABULARY, golden, write_text_encoder
from tests.training.public_weights.published import described
from training.public_weights.amused import import_amused
from training.public_weights.clip import read_clip
from training.public_weights.uvit import uvit_config, uvit_parameters

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

PROMPT, STEPS, SEED = "A photo of an astronaut: don't ride a horse, on mars!", 16, 3


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """transformers' vocabulary of the goldens."""
    from transformers import CLIPTokenizer

    ids = json.loads((VOCABULARY / "vocab.json").read_text("utf-8"))
    lines = (VOCABULARY / "merges.txt").read_text("utf-8").splitlines()[1:]
    merges = [tuple(line.split()) for line in lines]
    return CLIPTokenizer(vocab=ids, merges=merges, pad_token="!", model_max_length=77)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_res_blocks": 1, "num_hidden_layers": 1, "in_channels": 16},
        {"downsample": True, "upsample": True, "num_res_blocks": 3, "block_out_channels": 36},
        {"num_hidden_layers": 9, "num_attention_heads": 4, "hidden_size": 64},  # a scanned stack
    ],
)
def test_logits_are_those_of_diffusers(changes: dict[str, Any]) -> None:
    from tests.goldens.amused.regenerate_uvit import SHAPES, drawn_texts, drawn_uvit, logits

    fields = {**SHAPES["uvit_256"], **changes, "sample_size": 6}
    theirs, shapes = drawn_uvit(fields)
    config = uvit_config(fields, Path("config.json"), image_size=96, positions=5)
    rows = fields["vocab_size"]
    parameters = uvit_parameters(
        drawn_tensors(shapes), config, rows=rows, mask_id=rows - 1, source=Path("file")
    )
    texts = drawn_texts(config.text_hidden)
    parameters["no_text"] = texts[1]
    ours = with_parameters(lambda: build_base(config, jnp.float32), parameters)
    tokens = np.random.RandomState(0).randint(0, config.vocabulary, (2, 6, 6))

    found = jax.jit(
        lambda texts: ours.logits(
            tokens.reshape(2, -1),
            ours.context(texts, jnp.ones(texts.shape[:2], bool)),
            jnp.ones(2, bool),
        )
    )(texts)

    expected = logits(theirs, tokens, texts, 96).permute(0, 2, 3, 1).flatten(1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 9, "hidden_act": "quick_gelu"},
        {"hidden_size": 48, "projection_dim": 48, "num_attention_heads": 6, "eos_token_id": 2},
    ],
)
def test_embeddings_are_those_of_transformers(
    changes: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    from tests.goldens.amused.regenerate_clip import drawn_clip, embeddings

    fields = {**golden("clip")["fields"], **changes}
    theirs, _ = drawn_clip({name: value for name, value in fields.items() if name != "model_type"})
    theirs.save_pretrained(tmp_path)
    read = read_clip(tmp_path, VOCABULARY)
    ours = with_parameters(
        lambda: build_text_encoder(read.config, dtype=jnp.float32, param_dtype=jnp.float32),
        read.parameters,
    )
    ids = np.array(tokenizer(["", PROMPT], padding="max_length")["input_ids"])

    found = jax.jit(ours.__call__)(ids, ids != 0)

    np.testing.assert_allclose(found, embeddings(theirs, ids), atol=1e-4)


def test_any_text_has_the_ids_of_transformers(tokenizer: Any, tmp_path: Path) -> None:
    read = read_clip(write_text_encoder(tmp_path), VOCABULARY)
    vocabulary = ClipVocabulary(read.vocabulary, read.config)
    random = np.random.RandomState(0)
    pieces = [*"abeinorst'!?.,_-0123½²Ⅷ \n\x1d\xa0éßİς日本กำ🦊ﬁ\u200d"]
    pieces += ["  ", "e\u0301", "'ve", "<|endoftext|>", "on", "the"]
    for _ in range(500):
        text = "".join(random.choice(pieces, random.randint(1, 14)))
        expected = tokenizer(text, padding="max_length")["input_ids"]
        assert vocabulary.encode(text) == expected, repr(text)


def test_the_pipeline_of_diffusers_draws_the_same_tokens(tmp_path: Path, tokenizer: Any) -> None:
    from diffusers import AmusedPipeline, AmusedScheduler, VQModel

    from tests.goldens.amused import regenerate_clip, regenerate_uvit

    class WithOurNoise(AmusedScheduler):
        """Draws the random numbers of our sampler."""

        def step(self, model_output: Any, timestep: Any, sample: Any, *_: Any, **__: Any) -> Any:
            step = len(self.timesteps) - 1 - int(timestep)
            with regenerate_uvit.our_noise(SEED, step, 256):
                return super().step(model_output, timestep, sample)

    fields = golden("clip")["fields"]
    fields.pop("model_type")
    transformer, _ = regenerate_uvit.drawn_uvit(regenerate_uvit.SHAPES["uvit_256"])
    tokenizer_fields = described("diffusers")
    tokenizer_fields.pop("_class_name")
    pipeline = AmusedPipeline(
        vqvae=VQModel(**tokenizer_fields),
        tokenizer=tokenizer,
        text_encoder=regenerate_clip.drawn_clip(fields)[0],
        transformer=transformer,
        scheduler=AmusedScheduler(mask_token_id=regenerate_uvit.MASK_ID),
    )
    pipeline.save_pretrained(tmp_path / "source")
    pipeline.scheduler = WithOurNoise(mask_token_id=regenerate_uvit.MASK_ID)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(PROMPT, num_inference_steps=STEPS, output_type="latent").images

    import_amused(str(tmp_path / "source"), tmp_path / "out")
    loaded = load_text_encoder(tmp_path / "out" / "text_encoder")
    ids = np.array([loaded.vocabulary.encode(each) for each in (PROMPT, "")])
    # In float32: what travels between the services is rounded to bfloat16, for a T5 as well.
    text, no_text = np.asarray(loaded.encoder(ids, ids != 0))
    base = load_checkpoint(
        tmp_path / "out" / "base", stage="base", config_type=UVitConfig, family=UVIT_FAMILY
    )
    config = base.config
    pool = DecodePool(
        with_parameters(
            lambda: build_base(config, jnp.float32), {**base.parameters, "no_text": no_text}
        ),
        inputs=BASE.input_shapes(config),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=1,
    )
    pool.warm_up()
    sampling = Sampling(
        steps=STEPS,
        guidance_scale=9.0,
        guidance_scale_start=9.0,
        choice_temperature=2 * STEPS / (STEPS - 1),
        seed=SEED,
    )
    inputs = text, np.ones(config.text_length, bool)
    row = fresh_row(config.tokens, sampling)
    pool.admit(0, DecodeRequest(inputs=inputs, negative_inputs=None, row=row))

    found = pool.advance(STEPS, [0])[0].tokens

    np.testing.assert_array_equal(found.reshape(16, 16), np.asarray(expected)[0])
