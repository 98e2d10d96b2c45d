"""Makes the goldens of aMUSEd's transformer from diffusers' `UVit2DModel` and `AmusedScheduler`.

    python -m tests.goldens.amused.regenerate_uvit

Needs torch and diffusers (the extra muse[parity]). Writes beside itself a file for each shape:
config.json, names and shapes of the tensors, whose values `drawn_tensors` draws, the logits of a
grid of tokens with and without text, and the tokens after each step of whole decodes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from diffusers import AmusedScheduler, UVit2DModel
from diffusers.schedulers import scheduling_amused
from jaxtyping import Float, Int

from services.decoding.sampler import step_keys
from services.sampling import SEEDS
from tests.drawn_tensors import drawn_tensors

FOLDER = Path(__file__).parent
POSITIONS, PIXELS = 5, 16  # of a text; of a token along one side
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "encoder_hidden_size": 20,
    "cond_embed_dim": 20,
    "micro_cond_encode_dim": 8,
    "micro_cond_embed_dim": 40,
    "in_channels": 28,
    "block_out_channels": 24,
    "block_num_heads": 2,
    "num_res_blocks": 2,
    "codebook_size": 64,  # as the golden of diffusers' VQGAN has
    "vocab_size": 72,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "uvit_256": {**SHAPE, "sample_size": 16, "downsample": False, "upsample": False},
    "uvit_512": {**SHAPE, "sample_size": 32, "downsample": True, "upsample": True},
}
MASK_ID = SHAPE["vocab_size"] - 1
GUIDANCE = 10.0
# Steps, seed, and whether the schedule is counted in float64, as ours is: in float32 256 cos(pi/3)
# is less than 128, so the eighth of twelve steps leaves one token less.
DECODES = ((16, 7, False), (12, 2**40 + 3, True))


def drawn_uvit(fields: Mapping[str, Any]) -> tuple[UVit2DModel, dict[str, tuple[int, ...]]]:
    """Returns diffusers' network with drawn weights, and their shapes."""
    model = UVit2DModel(**fields).eval()
    shapes = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    drawn = {name: torch.from_numpy(each) for name, each in drawn_tensors(shapes).items()}
    model.load_state_dict(drawn)
    return model, shapes


def drawn_texts(width: int) -> Float[np.ndarray, "2 T D"]:
    """Draws a text and the empty one: an embedding of each position, and the pooled vector."""
    random = np.random.RandomState(0)
    return random.standard_normal((2, POSITIONS + 1, width)).astype(np.float32)


def logits(
    model: UVit2DModel,
    tokens: Int[np.ndarray, "B h w"],
    texts: Float[np.ndarray, "B T D"],
    image_size: int,
) -> Float[torch.Tensor, "B V h w"]:
    """Returns the logits of tokens, of which those of [MASK] are MASK_ID, as the pipeline does."""
    micro_conds = torch.tensor([[image_size, image_size, 0, 0, 6]], dtype=torch.float32)
    given = torch.from_numpy(texts)
    with torch.no_grad():
        return model(
            torch.from_numpy(tokens).long(),
            encoder_hidden_states=given[:, :-1],
            pooled_text_emb=given[:, -1],
            micro_conds=micro_conds.expand(len(tokens), -1),
        )


def decode(
    model: UVit2DModel,
    texts: Float[np.ndarray, "2 T D"],
    *,
    side: int,
    steps: int,
    seed: int,
    exact: bool,
) -> Int[np.ndarray, "steps side*side"]:
    """Returns the tokens after each step of diffusers' pipeline, given our noise."""
    scheduler = AmusedScheduler(mask_token_id=MASK_ID)
    scheduler.set_timesteps(steps, (2, 0))
    sample, after = torch.full((1, side, side), MASK_ID), []
    for step, timestep in enumerate(scheduler.timesteps):
        found = logits(model, np.repeat(sample.numpy(), 2, axis=0), texts, side * PIXELS)
        cond, uncond = found.chunk(2)
        guided = uncond + GUIDANCE * (cond - uncond)
        with our_noise(seed, step, side * side), counted_in(torch.float64 if exact else None):
            sample = scheduler.step(guided, timestep, sample).prev_sample
        after.append(sample.numpy().reshape(-1))
    return np.stack(after).astype(np.int32)


@contextmanager
def our_noise(seed: int, step: int, tokens: int) -> Iterator[None]:
    """Gives the scheduler the random numbers that our sampler draws in a step."""
    words = np.array(divmod(seed % SEEDS, 2**32), np.uint32)
    of_ids, of_choice = step_keys(words, step)
    uniform = np.asarray(jax.random.uniform(of_ids, (tokens,)), np.float64)
    gumbel = np.array(jax.random.gumbel(of_choice, (tokens,)))

    def drawn(shares: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        sums = shares.double().numpy().cumsum(axis=-1)
        return torch.from_numpy((sums <= uniform[:, None] * sums[:, -1:]).sum(axis=-1))[:, None]

    kept = torch.multinomial, scheduling_amused.gumbel_noise
    torch.multinomial = drawn
    scheduling_amused.gumbel_noise = lambda *_, **__: torch.from_numpy(gumbel)[None]
    try:
        yield
    finally:
        torch.multinomial, scheduling_amused.gumbel_noise = kept


@contextmanager
def counted_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Has the scheduler divide its steps in a type; None is its own, float32."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype or kept)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


def main() -> None:
    """Writes both shapes."""
    for name, fields in SHAPES.items():
        model, shapes = drawn_uvit(fields)
        texts = drawn_texts(fields["encoder_hidden_size"])
        side = 8 if fields["downsample"] else 4  # of the grid whose logits are kept
        tokens = np.random.RandomState(1).randint(0, SHAPE["codebook_size"], (2, side, side))
        tokens[:, ::2, 1::2] = MASK_ID
        found = logits(model, tokens, texts, fields["sample_size"] * PIXELS)
        arrays = {
            "fields": np.array(json.dumps({"_class_name": "UVit2DModel", **fields})),
            "shapes": np.array(json.dumps(shapes)),
            "tokens": tokens.reshape(2, -1).astype(np.int32),
            "logits": found.permute(0, 2, 3, 1).flatten(1, 2).numpy(),
        }
        for steps, seed, exact in DECODES:
            arrays[f"decode.{steps}"] = decode(
                model, texts, side=fields["sample_size"], steps=steps, seed=seed, exact=exact
            ).astype(np.uint8)
        with (FOLDER / f"{name}.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
