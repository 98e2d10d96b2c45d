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
from jaxtyping import UInt8
from rich.progress import track

from services.pictures.low_resolution import low_resolution_view
from services.presets import Preset
from services.runtime.checkpoints.adapters import LowRank
from services.text_encoder.known_words import known_words
from training.data.crops import busy_crops
from training.data.sources import NO_DATA_FLAGS, DataFlags, ImageSource, open_source
from training.mesh import Execution, one_device
from training.perceptual.files import read_lpips
from training.precompute.examples import PrecomputedExamples, PrecomputedSource
from training.precompute.shards import ShardError
from training.recipe_changes import NO_CHANGES, NO_LOSS_CHANGES, LossChanges, RecipeChanges
from training.recipes import RECIPES
from training.starting import (
    check_fingerprint,
    encoder_parameters,
    encoder_start,
    tokenizer_start,
    transformer_start,
)
from training.tasks.adapters import AdapterTask
from training.tasks.embedding_whitening import whitening_init
from training.tasks.frozen import Examples, FrozenStages, load_frozen_stages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask
from training.tasks.text_encoder import TextEncoderTask, vocabulary_for
from training.tasks.token_store import BLOCK, TokenStore, fresh_examples
from training.tasks.tokenizer import TokenizerTask

logger = logging.getLogger(__name__)
MEASURED_CAPTIONS = 2048  # captions whose embeddings give the initial text projection


def tokenizer_task(
    preset: Preset,
    data: str | Path,
    out: Path,
    *,
    resolution: str,
    seed: int,
    data_flags: DataFlags = NO_DATA_FLAGS,
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
        data: Folder of sprites, or folder or URL of captioned pictures; captions are not read.
        out: Folder of the run, where skipped pictures are named.
        resolution: "low" for the base's tokenizer, "high" for the superres's.
        seed: Of the data and the initial parameters.
        data_flags: How to read captioned pictures.
        changes: Of the preset's recipe.
        loss_changes: Of the preset's losses.
        decoder_base_channels: Channels of the decoder at full resolution, if not the preset's.
        decoder_residual_blocks: Residual blocks a resolution of the decoder, if not the preset's.
        initialize_from: Checkpoint folder of a tokenizer to start from: of the same shape, or if
            its decoder is fine-tuned with any decoder.
        finetune_decoder: Whether only the decoder is trained: `initialize_from` gives encoder and
            codebook, and the decoder too if it has the same shape.
        perceptual: LPIPS file of the perceptual loss; None leaves that loss out, with a warning.
        execution: Devices, parts of a batch, remat; by default one device.

    Raises:
        CheckpointError: `initialize_from` holds no checkpoint of a tokenizer of that shape.
        LpipsError: the LPIPS file is missing or wrong.
        ValueError: a change is not valid, a decoder is to be fine-tuned of no checkpoint, or the
            mesh is none of tokenizers.
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
        initial, frozen = tokenizer_start(initialize_from, config, finetune_decoder)
    elif finetune_decoder:
        raise ValueError(
            "--finetune-decoder expects the checkpoint of a trained tokenizer, got none: name its "
            "folder with --from"
        )
    else:
        initial, frozen = {}, {}
    execution = execution or one_device()
    rows = execution.local_rows(recipe.batch_size)
    source = _source(
        preset, data, out, data_flags, batch_size=recipe.batch_size, seed=seed, rows=rows
    )

    def images(step: int) -> UInt8[np.ndarray, "B h w 3"]:
        views = [low_resolution_view(image, config.image_size) for image in source.images(step)]
        return busy_crops(
            np.stack(views),
            config.image_size // recipes.tokenizer_crop,
            step_px=config.factor,
            random=np.random.default_rng([seed, step]),
            skipped=rows.start,
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


def text_encoder_task(
    preset: Preset,
    data: str | Path,
    out: Path,
    *,
    seed: int,
    data_flags: DataFlags = NO_DATA_FLAGS,
    changes: RecipeChanges = NO_CHANGES,
    initialize_from: Path | None = None,
    execution: Execution | None = None,
) -> TextEncoderTask:
    """Returns the task that trains a small text encoder on captions.

    Args:
        preset: The system it belongs to.
        data: Folder of sprites, or folder or URL of captioned pictures, which are not read.
        out: Folder of the run, where its vocabulary is kept.
        seed: Of the captions, the initial parameters and the spans.
        data_flags: How to read captions.
        changes: Of the preset's recipe.
        initialize_from: Checkpoint of a text encoder of the same shape to start from, and to take
            the vocabulary of.
        execution: Devices; by default one.

    Raises:
        CheckpointError: the checkpoint to start from is missing or of another shape.
        ValueError: the preset's text encoder is T5's own, which is not trained here, or the batch
            is to be computed in parts.
    """
    recipe = RECIPES[preset.name].text_encoder
    if recipe is None:
        trained = [name for name, recipes in RECIPES.items() if recipes.text_encoder is not None]
        raise ValueError(
            f"preset {preset.name!r} has T5's own text encoder, which is not trained here: "
            f"expected one of {', '.join(trained)}"
        )
    recipe = changes.applied(recipe)
    execution = execution or one_device()
    if execution.accumulate > 1 or execution.remat:
        raise ValueError(
            "the text encoders that are trained here are small: expected neither --accumulate nor "
            "--remat"
        )
    start = None if initialize_from is None else encoder_start(initialize_from, preset.text_encoder)
    source = _source(preset, data, out, data_flags, batch_size=recipe.batch_size, seed=seed)
    vocabulary = vocabulary_for(
        out,
        source.captions,
        preset.text_encoder.vocabulary_size,
        seed=seed,
        given=start.pieces if start else None,
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
        initial=encoder_parameters(start) if start else None,
        rows=execution.local_rows(recipe.batch_size),
    )


def transformer_task(
    preset: Preset,
    stage: Literal["base", "superres"],
    data: str | Path,
    checkpoints: Path,
    out: Path,
    *,
    seed: int,
    data_flags: DataFlags = NO_DATA_FLAGS,
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
        data: Folder of sprites, or folder or URL of captioned pictures.
        checkpoints: Root of the frozen stages.
        out: Folder of the run, where the tokens of examples that come again are kept.
        seed: Of the data, the initial parameters and the masks.
        data_flags: How to read captioned pictures.
        changes: Of the preset's recipe.
        precomputed: Folder of shards of the same data, instead of computing its tokens and
            embeddings at each step.
        workers: Processes that compose all examples that come again before the first step; by
            default each is composed when it first comes.
        initialize_from: Checkpoint of the same stage to start from: of the preset's shape, or of
            another family, whose shape is its own.
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
    shape = preset.superres if high else preset.base
    recipes = RECIPES[preset.name]
    recipe = changes.applied(recipes.superres if high else recipes.base)
    execution = execution or one_device()
    frozen = load_frozen_stages(checkpoints, high=high)
    start = None
    if initialize_from is not None:
        start = transformer_start(initialize_from, stage, shape)
        check_fingerprint(start, frozen, whole=low_rank is None)
    rows = execution.local_rows(recipe.batch_size)
    fresh = precomputed is None and recipe.distinct_examples is None
    config = shape if start is None else start.config
    source = _source(
        preset,
        data,
        out,
        data_flags,
        side_px=max(preset.side_px, frozen.low.config.image_size),
        batch_size=recipe.batch_size if fresh else BLOCK,
        seed=seed,
        rows=rows if fresh else slice(None),
    )
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
        examples = _precomputed(precomputed, frozen, data_flags, recipe.batch_size, seed, rows)
    elif recipe.distinct_examples is None:
        examples = fresh_examples(frozen, source.captioned)
    else:
        store = TokenStore(
            frozen=frozen,
            images=source.captioned,
            folder=out / "tokens",
            blocks=-(-recipe.distinct_examples // BLOCK),
            batch_size=recipe.batch_size,
            seed=seed,
            rows=rows,
        )
        if workers is not None:
            for _ in track(store.fill(workers), "composing", total=None):
                pass
        examples = store
    if low_rank is not None and start is not None:
        return AdapterTask(start, low_rank, recipe, execution, frozen, examples, seed=seed)
    step = MaskedTokensStep(config, recipe, execution, seed=seed, initial=initial)
    return MaskedTokensTask(step, frozen, examples, started_from=initialize_from)


def _precomputed(
    folder: Path,
    frozen: FrozenStages,
    data_flags: DataFlags,
    batch_size: int,
    seed: int,
    rows: slice,
) -> PrecomputedExamples:
    source, high = PrecomputedSource(folder), frozen.high is not None
    low_name = "low_codebook" if high else "codebook"
    wanted = frozen.fingerprint()
    names = {"encoder": "encoder", low_name: "low_codebook"} | (
        {"codebook": "codebook"} if high else {}
    )
    for name, called in names.items():
        if (made_by := source.made_by.get(called, "nothing")) != wanted[name]:
            raise ShardError(
                f"{folder}: expected what {wanted[name]} makes, got what {made_by} made: run "
                "`python -m training.precompute` again, into another folder"
            )
    if source.filters != data_flags.filters.description():
        raise ShardError(
            f"{folder}: expected the filters of the shards, {source.filters or 'none'}, got "
            f"{data_flags.filters.description() or 'none'}"
        )
    return PrecomputedExamples(
        source,
        high=high,
        maximum_rows=frozen.text_encoder.maximum_rows,
        batch_size=batch_size,
        seed=seed,
        rows=rows,
    )


def _source(
    preset: Preset,
    data: str | Path,
    out: Path,
    flags: DataFlags,
    *,
    batch_size: int,
    seed: int,
    side_px: int | None = None,
    rows: slice = slice(None),
) -> ImageSource:
    recipes = RECIPES[preset.name]
    return open_source(
        str(data),
        out=out,
        flags=flags,
        side_px=side_px or preset.side_px,
        batch_size=batch_size,
        seed=seed,
        board=recipes.board,
        objects=recipes.objects,
        rows=rows,
    )
