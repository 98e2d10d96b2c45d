"""The base alone and the super-resolution alone, decoded in this process by the served engines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from services.base.engine import BaseEngine
from services.decoding.pool import DecodePool, Job
from services.decoding.serving import layout_here
from services.decoding.state import Sampling, fresh_row
from services.masked.defaults import checkpoint_defaults
from services.masked.requests import read_sampling
from services.presets import Preset
from services.runtime.checkpoints import CheckpointMismatch
from services.superres.engine import SuperresEngine
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
        self._engine = BaseEngine.load(checkpoint, layout_here(_SLOTS))
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
            jobs = [
                self._engine.job(
                    _embedding(self._text_encoder, case.prompt),
                    fresh_row(self._engine.config.tokens, replace(sampling, seed=case.seed)),
                )
                for case in cases[start : start + _SLOTS]
            ]
            yield from self._low.pictures(jnp.asarray(decode(self._engine.pool, jobs)))


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
        self._engine = SuperresEngine.load(checkpoint, layout_here(_SLOTS))
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
            jobs = [
                self._engine.job(
                    low,
                    _embedding(self._text_encoder, case.prompt),
                    fresh_row(self._engine.config.tokens, replace(sampling, seed=case.seed)),
                )
                for case, low in zip(batch, lows, strict=True)
            ]
            yield from self._high.pictures(jnp.asarray(decode(self._engine.pool, jobs)))


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


def decode(pool: DecodePool, jobs: Sequence[Job]) -> Int[np.ndarray, "B N"]:
    """Runs as many decodes as a pool has slots, or fewer, to their ends.

    Args:
        pool: Warmed up, all slots free.
        jobs: At least one.
    """
    for slot, job in enumerate(jobs):
        pool.admit(slot, job)
    progress = pool.advance(max(job.steps_left for job in jobs), range(len(jobs)))
    return np.stack([progress[slot].tokens for slot in range(len(jobs))])


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
