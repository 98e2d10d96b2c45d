"""Writes the golden examples of a system's checkpoints, which servers answer before they serve."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.base.spec import BASE
from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.masked.spec import Config, MaskedSpec
from services.runtime.checkpoints.golden import GOLDEN_FILE, Arrays, Golden, write_golden
from services.superres.spec import SUPERRES
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.engine import Tokenizers


def write_goldens(checkpoints: Path, prompt: str) -> list[Path]:
    """Has every stage answer what the stage before it answered, from a prompt on.

    Args:
        checkpoints: Folder of all stages' checkpoints; their former golden examples are replaced.
        prompt: Any that the text encoder takes.

    Returns:
        The files.

    Raises:
        CheckpointError: a stage has no checkpoint there, or one that cannot be served.
        PromptTooLong: the prompt has too many tokens.
    """
    places = ("text_encoder", "base", "superres", "tokenizer/low", "tokenizer/high")
    files = [checkpoints / place / GOLDEN_FILE for place in places]
    for file in files:
        file.unlink(missing_ok=True)
    encoder = TextEncoderEngine(load_text_encoder(checkpoints / "text_encoder"), max_batch_size=1)
    ids = np.array(encoder.tokenize(prompt), np.int32)
    text = _kept(encoder.loaded.folder, {"tokens": ids}, encoder.answer_golden)["text"]
    low = _tokens(BASE, checkpoints / "base", {"text": text})
    high = _tokens(SUPERRES, checkpoints / "superres", {"text": text, "low_tokens": low})
    tokenizers = Tokenizers(checkpoints / "tokenizer").engines
    for tokenizer, tokens in ((tokenizers["low"], low), (tokenizers["high"], high)):
        grid = tokenizer.config.grid
        _kept(
            tokenizer.checkpoint.folder,
            {"tokens": tokens.reshape(grid, grid)},
            tokenizer.answer_golden,
        )
    return files


def _tokens(spec: MaskedSpec[Config], folder: Path, inputs: Arrays) -> np.ndarray:
    engine = MaskedEngine.load(spec, folder, default_serving_config(1, precision="float32"))
    engine.warm_up()
    return _kept(folder, inputs, engine.answer_golden)["tokens"]


def _kept(folder: Path, inputs: Arrays, answer: Callable[[Arrays], Arrays]) -> Arrays:
    outputs = answer(inputs)
    write_golden(folder, Golden(inputs=inputs, outputs=outputs))
    return outputs
