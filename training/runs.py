"""Puts each stage's task together: its data, its frozen predecessors, its recipe.

A run reads the checkpoints of the stages before its own from one root, the folder that
`--checkpoints` of the services names, and exports its own there:

    text_encoder/   tokenizer/low/   tokenizer/high/   base/   superres/
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from flax import nnx
from jaxtyping import UInt8
from rich.progress import track

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.parameters import check_parameters, parameters_of
from services.pictures.low_resolution import low_resolution_view
from services.presets import Preset
from services.runtime.checkpoints.adapters import LowRank
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import Checkpoint, load_checkpoint
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.known_words import known_words
from services.text_encoder.loading import LoadedTextEncoder, load_text_encoder
from services.tokenizer.config import TokenizerConfig
from training.data.crops import busy_crops
from training.data.sources import ImageSource, open_source
from training.mesh import Execution, one_device
from training.perceptual.files import read_lpips
from training.precompute.examples import PrecomputedExamples, PrecomputedSource
from training.precompute.shards import ShardError
from training.recipe_changes import NO_CHANGES, NO_LOSS_CHANGES, LossChanges, RecipeChanges
from training.recipes import RECIPES
from training.tasks.adapters import AdapterTask
from training.tasks.embedding_whitening import whitening_init
from training.tasks.frozen import Examples, FrozenStages, load_frozen_stages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask
from training.tasks.text_encoder import TextEncoderTask, vocabulary_for
from training.tasks.token_store import BLOCK, TokenStore, fresh_examples
from training.tasks.tokenizer import TokenizerTask

logger = logging.getLogger(__name__)
DECODER_SHAPE = ("decoder_base_channels", "decoder_residual_blocks", "repeat_first")
MEASURED_CAPTIONS = 2048  # captions whose embeddings give the initial text projection


def tokenizer_task(
    preset: Preset,
    data: Path,
    *,
    resolution: str,
    seed: int,
    changes: RecipeChanges = NO_CHANGES,
    loss_changes: LossChanges = NO_LOSS_CHANGES,
    decoder_base_channels: int | None = None,
    decoder_residual_blocks: int | None = None,
    initialize_from: Path | None = None,
    finetune_decoder: bool = False,
    perceptual: Path | None = None,
    execution: Execution | None = None,
) -> TokenizerTask:
    """Returns the task that trains one of the two tokenizers, or a new decoder for it.

    Args:
        preset: The system it belongs to.
        data: Folder of sprites or of WebDataset tars.
        resolution: "low" for the base's tokenizer, "high" for the superres's.
        seed: Of the data and the initial parameters.
        changes: Of the preset's recipe.
        loss_changes: Of the preset's losses.
        decoder_base_channels: Channels of the decoder at full resolution, if not the preset's.
        decoder_residual_blocks: Residual blocks a resolution of the decoder, if not the preset's.
        initialize_from: Checkpoint folder of a tokenizer to start from: of the same shape, or if
            its decoder is fine-tuned with any decoder.
        finetune_decoder: Whether only the decoder is trained: `initialize_from` gives encoder and
            codebook, and the decoder too if it has the same shape.
        perceptual: LPIPS file of the perceptual loss; None leaves that loss out, with a warning.
        execution: Devices and parts of a batch; by default one device.

    Raises:
        CheckpointError: `initialize_from` holds no checkpoint of a tokenizer of that shape.
        LpipsError: the LPIPS file is missing or wrong.
        ValueError: a change is not valid, or a decoder is to be fine-tuned of no checkpoint.
    """
    distance = None if perceptual is None else read_lpips(perceptual)
    recipes = RECIPES[preset.name]
    low = resolution == "low"
    config = preset.low_tokenizer if low else preset.high_tokenizer
    if decoder_base_channels is not None:
        config = replace(config, decoder_base_channels=decoder_base_channels)
    if decoder_residual_blocks is not None:
        config = replace(config, decoder_residual_blocks=decoder_residual_blocks)
    recipe = changes.applied(
        recipes.low_tokenizer if low else recipes.high_tokenizer, with_losses=True
    )
    losses = loss_changes.applied(recipes.tokenizer_losses, changes.recipe)
    if distance is None and losses.perceptual > 0:
        logger.warning(
            "the recipe gives the perceptual loss a weight of %g and no network was given, so the "
            "tokenizer learns without it: docs/training.md, section 'Perceptual loss', says how to "
            "get one for --perceptual; --losses.perceptual 0 silences this",
            losses.perceptual,
        )
    if initialize_from is not None:
        initial, frozen = _tokenizer_parameters(initialize_from, config, finetune_decoder)
    elif finetune_decoder:
        raise ValueError(
            "--finetune-decoder expects the checkpoint of a trained tokenizer, got none: name its "
            "folder with --from"
        )
    else:
        initial, frozen = {}, {}
    source = _source(preset, data, recipe.batch_size, seed)

    def images(step: int) -> UInt8[np.ndarray, "B h w 3"]:
        views = [low_resolution_view(image, config.image_size) for image in source.images(step)]
        return busy_crops(
            np.stack(views),
            config.image_size // recipes.tokenizer_crop,
            step_px=config.factor,
            random=np.random.default_rng([seed, step]),
        )

    return TokenizerTask(
        config,
        recipe,
        losses,
        images,
        resolution=resolution,
        seed=seed,
        perceptual=distance,
        initial=initial,
        frozen=frozen,
        execution=execution,
    )


def _tokenizer_parameters(
    folder: Path, config: TokenizerConfig, finetune_decoder: bool
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Returns the parameters to start from, and those to keep as they are."""
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


def text_encoder_task(
    preset: Preset,
    data: Path,
    out: Path,
    *,
    seed: int,
    changes: RecipeChanges = NO_CHANGES,
    initialize_from: Path | None = None,
) -> TextEncoderTask:
    """Returns the task that trains a small text encoder on captions.

    Args:
        preset: The system it belongs to.
        data: Folder of sprites or of WebDataset tars.
        out: Folder of the run, where its vocabulary is kept.
        seed: Of the captions, the initial parameters and the spans.
        changes: Of the preset's recipe.
        initialize_from: Checkpoint of a text encoder of the same shape to start from, and to take
            the vocabulary of.

    Raises:
        CheckpointError: the checkpoint to start from is missing or of another shape.
        ValueError: the preset's text encoder is T5's own, which is not trained here.
    """
    recipe = RECIPES[preset.name].text_encoder
    if recipe is None:
        trained = [name for name, recipes in RECIPES.items() if recipes.text_encoder is not None]
        raise ValueError(
            f"preset {preset.name!r} has T5's own text encoder, which is not trained here: "
            f"expected one of {', '.join(trained)}"
        )
    recipe = changes.applied(recipe)
    start = None if initialize_from is None else _encoder(initialize_from, preset.text_encoder)
    source = _source(preset, data, recipe.batch_size, seed)
    vocabulary = vocabulary_for(
        out,
        source.captions,
        preset.text_encoder.vocabulary_size,
        seed=seed,
        given=start.vocabulary if start else None,
    )
    known = known_words((caption.text for caption in source.captions(seed)), source.subjects)
    if start is not None:
        known = start.known_words and known and start.known_words.joined(known)
    return TextEncoderTask(
        preset.text_encoder,
        recipe,
        source.captions,
        vocabulary,
        label_classes=source.label_classes,
        known_words=known,
        seed=seed,
        initial=_encoder_parameters(start) if start else None,
    )


def transformer_task(
    preset: Preset,
    stage: Literal["base", "superres"],
    data: Path,
    checkpoints: Path,
    out: Path,
    *,
    seed: int,
    changes: RecipeChanges = NO_CHANGES,
    precomputed: Path | None = None,
    workers: int | None = None,
    initialize_from: Path | None = None,
    low_rank: LowRank | None = None,
    execution: Execution | None = None,
) -> MaskedTokensTask | AdapterTask:
    """Returns the task that trains the base or the super-resolution transformer, or an adapter.

    Args:
        preset: The system it belongs to.
        stage: Which of the two.
        data: Folder of sprites or of WebDataset tars.
        checkpoints: Root of the frozen stages.
        out: Folder of the run, where the tokens of examples that come again are kept.
        seed: Of the data, the initial parameters and the masks.
        changes: Of the preset's recipe.
        precomputed: Folder of shards of the same data, instead of computing its tokens and
            embeddings at each step.
        workers: Processes that compose all examples that come again before the first step; by
            default each is composed when it first comes.
        initialize_from: Checkpoint of the same stage and shape to start from.
        low_rank: Size of an adapter that is trained instead, for the checkpoint to start from.
        execution: Devices, parts of a batch, remat; by default one device.

    Raises:
        CheckpointError: a checkpoint is missing, of another format or of another shape, or an
            adapter's was trained for other frozen stages.
        ShardError: the shards are incomplete, or were made by other stages.
        ValueError: the recipe's batch size does not divide the blocks that examples are kept in,
            or an adapter has no checkpoint or too high a rank.
    """
    if low_rank is not None and initialize_from is None:
        raise ValueError(
            "an adapter belongs to a checkpoint: expected --from beside --adapter-rank, got none"
        )
    high = stage == "superres"
    config = preset.superres if high else preset.base
    recipes = RECIPES[preset.name]
    recipe = changes.applied(recipes.superres if high else recipes.base)
    frozen = load_frozen_stages(checkpoints, high=high)
    start = None
    if initialize_from is not None:
        start = _transformer(initialize_from, stage, config)
        _check_fingerprint(start, frozen, whole=low_rank is None)
    source = _source(preset, data, recipe.batch_size, seed)
    initial: Mapping[str, np.ndarray]
    if start is None:
        captions = [caption.text for caption in islice(source.captions(seed), MEASURED_CAPTIONS)]
        vectors, words = frozen.text_encoder.words(captions)
        kernel = whitening_init(vectors, words, config.hidden, seed=seed)
        initial = {"text_projection.kernel": kernel}
    else:
        initial = start.parameters
    examples: Callable[[int], Examples]
    if precomputed is not None:
        examples = _precomputed(precomputed, frozen, recipe.batch_size, seed)
    elif recipe.distinct_examples is None:
        examples = fresh_examples(frozen, source.captioned)
    else:
        store = TokenStore(
            frozen=frozen,
            images=_source(preset, data, BLOCK, seed).captioned,
            folder=out / "tokens",
            blocks=-(-recipe.distinct_examples // BLOCK),
            batch_size=recipe.batch_size,
            seed=seed,
        )
        if workers is not None:
            for _ in track(store.fill(workers), "composing", total=None):
                pass
        examples = store
    execution = execution or one_device()
    if low_rank is not None and start is not None:
        return AdapterTask(start, low_rank, recipe, execution, frozen, examples, seed=seed)
    step = MaskedTokensStep(config, recipe, execution, seed=seed, initial=initial)
    return MaskedTokensTask(step, frozen, examples)


def _transformer(
    folder: Path, stage: str, config: BaseConfig | SuperresConfig
) -> Checkpoint[BaseConfig | SuperresConfig]:
    checkpoint = load_checkpoint(folder, stage=stage, config_type=type(config))
    if checkpoint.config != config:
        raise CheckpointMismatch(
            f"{folder} holds a {stage} of another shape, {checkpoint.config}: expected {config}"
        )

    def build() -> BaseTransformer | SuperresTransformer:
        if isinstance(config, BaseConfig):
            return BaseTransformer(config, rngs=nnx.Rngs(0))
        return SuperresTransformer(config, rngs=nnx.Rngs(0))

    check_parameters(nnx.eval_shape(build), checkpoint.parameters)
    return checkpoint


def _check_fingerprint(start: Checkpoint, frozen: FrozenStages, *, whole: bool) -> None:
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


def _encoder(folder: Path, config: TextEncoderConfig) -> LoadedTextEncoder:
    loaded = load_text_encoder(folder)
    if loaded.config != config:
        raise CheckpointMismatch(
            f"{folder} holds a text encoder of another shape, {loaded.config}: expected {config}"
        )
    return loaded


def _encoder_parameters(loaded: LoadedTextEncoder) -> Mapping[str, np.ndarray]:
    """Returns the encoder's parameters as training names them, beside a decoder's."""
    parameters = parameters_of(loaded.encoder)
    return {f"encoder.{name}": np.asarray(value) for name, value in parameters.items()}


def _precomputed(
    folder: Path, frozen: FrozenStages, batch_size: int, seed: int
) -> PrecomputedExamples:
    source, high = PrecomputedSource(folder), frozen.high is not None
    low_name = "low_codebook" if high else "codebook"
    wanted = frozen.fingerprint()
    names = {"encoder": "encoder", low_name: "low_codebook"} | (
        {"codebook": "codebook"} if high else {}
    )
    for name, called in names.items():
        if source.made_by[called] != wanted[name]:
            raise ShardError(
                f"{folder}: expected what {wanted[name]} makes, got what {source.made_by[called]} "
                "made: run `python -m training.precompute` again, into another folder"
            )
    return PrecomputedExamples(
        source,
        high=high,
        maximum_length=frozen.text_encoder.maximum_length,
        batch_size=batch_size,
        seed=seed,
    )


def _source(preset: Preset, data: Path, batch_size: int, seed: int) -> ImageSource:
    recipes = RECIPES[preset.name]
    return open_source(
        data,
        side_px=preset.high_tokenizer.image_size,
        batch_size=batch_size,
        seed=seed,
        board=recipes.board,
        objects=recipes.objects,
    )
