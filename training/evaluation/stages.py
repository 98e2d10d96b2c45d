"""The base alone and the super-resolution alone, decoded in this process by the served engines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from services.base.spec import BASE
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.serving import default_serving_config
from services.decoding.state import Sampling, fresh_row
from services.masked.defaults import checkpoint_defaults
from services.masked.engine import MaskedEngine
from services.masked.requests import read_sampling
from services.presets import Preset
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.superres.spec import SUPERRES
from training.evaluation.scenes import PromptCase
from training.evaluation.testbed import Testbed
from training.evaluation.tokenizers import view_of
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer, load_frozen_stages

_SLOTS = 8


class BaseAlone:
    """Generates low-resolution pictures: the base, then the low-resolution tokenizer."""

    def __init__(self, checkpoint: Path, checkpoints: Path, preset: Preset) -> None:
        """Loads the base and the stages it was trained for.

        Args:
            checkpoint: Of the base.
            checkpoints: Root of the text encoder and the tokenizers.
            preset: Gives the steps of a decode.

        Raises:
            CheckpointError: a checkpoint is missing, of another format, or was trained for another
                text encoder or codebook.
        """
        frozen = load_frozen_stages(checkpoints, high=False)
        self._text_encoder, self._low = frozen.text_encoder, frozen.low
        self._engine = MaskedEngine.load(BASE, checkpoint, default_serving_config(_SLOTS))
        _check_fingerprint(checkpoint, self._engine.checkpoint.fingerprint, frozen.fingerprint())
        self.sampling = default_sampling(checkpoint, steps=preset.base_steps)
        self._engine.warm_up()

    def generate_all(
        self, cases: Sequence[PromptCase], sampling: Sampling
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yields the low-resolution picture of each case.

        Args:
            cases: What to generate.
            sampling: Sampling parameters; the seed is each case's own.
        """
        for start in range(0, len(cases), _SLOTS):
            requests = [
                self._engine.decode_request(
                    fresh_row(self._engine.config.tokens, replace(sampling, seed=case.seed)),
                    _embedding(self._text_encoder, case.prompt),
                )
                for case in cases[start : start + _SLOTS]
            ]
            yield from self._low.pictures(jnp.asarray(decode(self._engine.pool, requests)))


class SuperresAlone:
    """Generates pictures from the true low-resolution tokens of composed scenes."""

    def __init__(self, checkpoint: Path, checkpoints: Path, preset: Preset) -> None:
        """Loads the super-resolution and the stages it was trained for.

        Args:
            checkpoint: Of the super-resolution transformer.
            checkpoints: Root of the text encoder and the tokenizers.
            preset: Gives the steps of a decode.

        Raises:
            CheckpointError: a checkpoint is missing, of another format, or was trained for another
                text encoder or codebook.
        """
        frozen = load_frozen_stages(checkpoints, high=True)
        assert frozen.high is not None
        self._text_encoder, self._low, self._high = frozen.text_encoder, frozen.low, frozen.high
        self._engine = MaskedEngine.load(SUPERRES, checkpoint, default_serving_config(_SLOTS))
        _check_fingerprint(checkpoint, self._engine.checkpoint.fingerprint, frozen.fingerprint())
        self.sampling = default_sampling(checkpoint, steps=preset.superres_steps)
        self._engine.warm_up()

    def generate_all(
        self, cases: Sequence[PromptCase], sampling: Sampling, testbed: Testbed
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yields the picture of each case.

        Args:
            cases: What the pictures show; their scenes give the low-resolution tokens.
            sampling: Sampling parameters; the seed is each case's own.
            testbed: Draws the scenes.
        """
        for start in range(0, len(cases), _SLOTS):
            batch = cases[start : start + _SLOTS]
            lows = _low_tokens(self._low, batch, testbed)
            requests = [
                self._engine.decode_request(
                    fresh_row(self._engine.config.tokens, replace(sampling, seed=case.seed)),
                    _embedding(self._text_encoder, case.prompt),
                    low,
                )
                for case, low in zip(batch, lows, strict=True)
            ]
            yield from self._high.pictures(jnp.asarray(decode(self._engine.pool, requests)))


def default_sampling(checkpoint: Path, *, steps: int) -> Sampling:
    """Returns the sampling parameters that a server of a checkpoint uses by default.

    Args:
        checkpoint: Folder of a base or a super-resolution.
        steps: Of a decode, unless the checkpoint names another number.

    Raises:
        CheckpointMismatch: its sampling.json holds something else.
    """
    defaults = checkpoint_defaults(checkpoint, steps=steps)
    return read_sampling(defaults, defaults)


def decode(pool: DecodePool, requests: Sequence[DecodeRequest]) -> Int[np.ndarray, "B N"]:
    """Runs as many decodes as a pool has slots, or fewer, to their ends.

    Args:
        pool: Warmed up, all slots free.
        requests: At least one.
    """
    for slot, request in enumerate(requests):
        pool.admit(slot, request)
    progress = pool.advance(max(request.steps_left for request in requests), range(len(requests)))
    return np.stack([progress[slot].tokens for slot in range(len(requests))])


def _embedding(encoder: FrozenTextEncoder, prompt: str) -> Float[np.ndarray, "T D"]:
    values, mask = encoder.embeddings([prompt])
    return np.asarray(values)[0][np.asarray(mask)[0]]


def _low_tokens(
    tokenizer: FrozenTokenizer, cases: Sequence[PromptCase], testbed: Testbed
) -> Int[np.ndarray, "B Nl"]:
    views = [view_of(case.scene, testbed, tokenizer.config.image_size) for case in cases]
    return np.asarray(tokenizer.ids(np.stack(views)))


def _check_fingerprint(folder: Path, named: Mapping[str, str], loaded: Mapping[str, str]) -> None:
    for name, fingerprint in loaded.items():
        if named[name] != fingerprint:
            raise CheckpointMismatch(
                f"{folder} was trained for the {name} {named[name]}, "
                f"the checkpoint root has {fingerprint}: name the root that it was trained on"
            )
