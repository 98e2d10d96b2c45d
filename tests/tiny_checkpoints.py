"""Random checkpoints of every stage, of the smallest preset: made in seconds, served as others."""

from pathlib import Path

import numpy as np
from flax import nnx

from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.serialization import (
    codebook_fingerprint,
    parameters_fingerprint,
    save_checkpoint,
)
from services.superres.model import SuperresTransformer
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import FILE_NAME, train_vocabulary
from services.tokenizer.model import Tokenizer

TINY = preset("tiny")


def write_tiny_checkpoints(root: Path) -> dict[str, str]:
    """Writes a checkpoint of every stage under a folder.

    Returns:
        The fingerprints: "encoder", "low_codebook" and "codebook".
    """
    codebooks = {}
    for place, config, seed in (("low", TINY.low_tokenizer, 1), ("high", TINY.high_tokenizer, 2)):
        tokenizer = Tokenizer(config, rngs=nnx.Rngs(seed))
        values = [v for name, v in parameters_of(tokenizer).items() if "codebook" in name]
        codebooks[place] = codebook_fingerprint(np.asarray(values[0]))
        _save(root, f"tokenizer/{place}", config, tokenizer, {"codebook": codebooks[place]})
    encoder = TextEncoder(TINY.text_encoder, rngs=nnx.Rngs(3))
    vocabulary = train_vocabulary(
        ["a fox", "two keys and a sun"] * 5, TINY.text_encoder.vocabulary_size
    )
    parameters = {name: np.asarray(value) for name, value in parameters_of(encoder).items()}
    name = parameters_fingerprint("t5", parameters, vocabulary.model)
    _save(root, "text_encoder", TINY.text_encoder, encoder, {"encoder": name})
    (root / "text_encoder" / FILE_NAME).write_bytes(vocabulary.model)
    base = BaseTransformer(TINY.base, rngs=nnx.Rngs(4))
    _save(root, "base", TINY.base, base, {"encoder": name, "codebook": codebooks["low"]})
    superres = SuperresTransformer(TINY.superres, rngs=nnx.Rngs(5))
    needs = {"encoder": name, "low_codebook": codebooks["low"], "codebook": codebooks["high"]}
    _save(root, "superres", TINY.superres, superres, needs)
    return needs


def _save(
    root: Path, place: str, config: object, module: nnx.Module, fingerprint: dict[str, str]
) -> None:
    parameters = {name: np.asarray(value) for name, value in parameters_of(module).items()}
    save_checkpoint(
        root / place,
        stage=place.split("/")[0],
        config=config,
        parameters=parameters,
        fingerprint=fingerprint,
        record={"preset": "tiny"},
    )
