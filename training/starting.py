"""Checkpoints that a run starts from, checked to be of the stage and the shape that it trains."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from services.base.config import BaseConfig
from services.base.families import CONFIG_TYPES, AnyBaseConfig, build_base
from services.base.model import BaseTransformer
from services.base.uvit import UVit
from services.nn.parameters import check_parameters, parameters_of
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.serialization import OWN_FAMILY, Checkpoint, load_checkpoint
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.loading import LoadedTextEncoder, load_text_encoder
from services.tokenizer.config import TokenizerConfig
from training.tasks.frozen import FrozenStages

logger = logging.getLogger(__name__)
DECODER_SHAPE = ("decoder_base_channels", "decoder_residual_blocks", "repeat_first")


def tokenizer_start(
    folder: Path, config: TokenizerConfig, finetune_decoder: bool
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Returns the parameters of a tokenizer to start from, and those to keep as they are.

    Args:
        folder: Checkpoint of the tokenizer.
        config: Shape of the one that is trained.
        finetune_decoder: Whether only its decoder is, so that encoder and codebook stay.

    Raises:
        CheckpointError: the checkpoint is missing, or of another shape.
    """
    checkpoint = load_checkpoint(folder, stage="tokenizer", config_type=TokenizerConfig)
    found, parameters = checkpoint.config, checkpoint.parameters
    wanted = config
    if finetune_decoder:  # with any decoder
        decoder = {name: getattr(found, name) for name in DECODER_SHAPE}
        wanted = replace(config, **decoder)
    if found != wanted:
        raise CheckpointMismatch(
            f"{folder} holds a tokenizer of another shape, {found}: expected {wanted}"
        )
    if not finetune_decoder:
        return parameters, {}
    decoders = {name for name in parameters if name.startswith("decoder.")}
    initial = {name: parameters[name] for name in decoders} if found == config else {}
    return initial, {name: parameters[name] for name in parameters.keys() - decoders}


def transformer_start(
    folder: Path, stage: str, config: BaseConfig | SuperresConfig
) -> Checkpoint[AnyBaseConfig | SuperresConfig]:
    """Returns the checkpoint of a transformer of a shape, or of a base of another family.

    Raises:
        CheckpointError: it is missing, or of another shape.
    """
    families: Mapping[str, type[AnyBaseConfig | SuperresConfig]] = (
        CONFIG_TYPES if isinstance(config, BaseConfig) else {OWN_FAMILY: SuperresConfig}
    )
    checkpoint = load_family(folder, stage=stage, config_types=families)
    found = checkpoint.config
    if isinstance(found, type(config)) and found != config:
        raise CheckpointMismatch(
            f"{folder} holds a {stage} of another shape, {checkpoint.config}: expected {config}"
        )

    def build() -> BaseTransformer | UVit | SuperresTransformer:
        if isinstance(found, SuperresConfig):
            return SuperresTransformer(found, rngs=nnx.Rngs(0))
        return build_base(found, jnp.float32)

    check_parameters(nnx.eval_shape(build), checkpoint.parameters)
    return checkpoint


def check_fingerprint(start: Checkpoint, frozen: FrozenStages, *, whole: bool) -> None:
    """Checks that a transformer was trained for the frozen stages.

    A transformer that learns as a whole can learn another encoder or codebook too, so it may start
    from there; an adapter cannot.
    """
    if start.fingerprint == dict(frozen.fingerprint()):
        return
    mismatch = (
        f"{start.folder} was trained for {start.fingerprint}, the stages in --checkpoints are "
        f"{dict(frozen.fingerprint())}"
    )
    if not whole:
        raise CheckpointMismatch(f"{mismatch}: an adapter needs those of its checkpoint")
    logger.warning("%s: the transformer has to learn what their tokens and texts mean", mismatch)


def encoder_start(folder: Path, config: TextEncoderConfig) -> LoadedTextEncoder:
    """Returns a text encoder of a shape.

    Raises:
        CheckpointError: it is missing, or of another shape.
    """
    loaded = load_text_encoder(folder)
    if loaded.config != config:
        raise CheckpointMismatch(
            f"{folder} holds a text encoder of another shape, {loaded.config}: expected {config}"
        )
    return loaded


def encoder_parameters(loaded: LoadedTextEncoder) -> Mapping[str, np.ndarray]:
    """Returns the encoder's parameters as training names them, beside a decoder's."""
    parameters = parameters_of(loaded.encoder)
    return {f"encoder.{name}": np.asarray(value) for name, value in parameters.items()}
