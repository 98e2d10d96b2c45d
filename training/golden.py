"""Writes the golden examples of a system's checkpoints, which servers answer before they serve."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.base.spec import BASE
from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.masked.spec import Config, MaskedSpec
from services.runtime.checkpoints.errors import CheckpointNotFound
from services.runtime.checkpoints.golden import GOLDEN_FILE, Arrays, Golden, write_golden
from services.superres.spec import SUPERRES
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.engine import Tokenizers


def write_goldens(checkpoints: Path, prompt: str) -> list[Path]:
    """Has every stage answer what the stage before it answered, from a prompt on.

    Args:
        checkpoints: Folder of all stages' checkpoints, without a superres if the system has none;
            their former golden examples are replaced.
        prompt: Any that the text encoder takes.

    Returns:
        The files.

    Raises:
        CheckpointError: a stage has no checkpoint there, or one that cannot be served.
        PromptTooLong: the prompt has too many tokens.
    """
    encoder = TextEncoderEngine(load_text_encoder(checkpoints / "text_encoder"), max_batch_size=1)
    tokenizers = Tokenizers(checkpoints / "tokenizer").engines
    if "high" not in tokenizers and (checkpoints / "superres").exists():
        raise CheckpointNotFound(
            f"{checkpoints} has a superres and no tokenizer/high, which decodes its tokens: "
            "expected both or neither"
        )
    masked = ("base", "superres") if "high" in tokenizers else ("base",)
    places = ("text_encoder", *masked, *(f"tokenizer/{name}" for name in tokenizers))
    files = [checkpoints / place / GOLDEN_FILE for place in places]
    for file in files:
        file.unlink(missing_ok=True)
    ids = np.array(encoder.tokenize(prompt), np.int32)
    text = keep_golden(encoder.loaded.folder, {"tokens": ids}, encoder.answer_golden)["text"]
    low = golden_tokens(BASE, checkpoints / "base", {"text": text})
    tokens_of = {"low": low}
    if "high" in tokenizers:
        inputs = {"text": text, "low_tokens": low}
        tokens_of["high"] = golden_tokens(SUPERRES, checkpoints / "superres", inputs)
    for name, tokens in tokens_of.items():
        tokenizer = tokenizers[name]
        grid = tokenizer.config.grid
        keep_golden(
            tokenizer.checkpoint.folder,
            {"tokens": tokens.reshape(grid, grid)},
            tokenizer.answer_golden,
        )
    return files


def golden_tokens(spec: MaskedSpec[Config], folder: Path, inputs: Arrays) -> np.ndarray:
    """Writes the golden example of a masked stage's checkpoint; returns its tokens.

    Raises:
        CheckpointError: the checkpoint cannot be served.
    """
    engine = MaskedEngine.load(spec, folder, default_serving_config(1, precision="float32"))
    engine.warm_up()
    return keep_golden(folder, inputs, engine.answer_golden)["tokens"]


def keep_golden(folder: Path, inputs: Arrays, answer: Callable[[Arrays], Arrays]) -> Arrays:
    """Writes the golden example of a checkpoint; returns the answer to its inputs."""
    outputs = answer(inputs)
    write_golden(folder, Golden(inputs=inputs, outputs=outputs))
    return outputs
