"""The vocabulary of an encoder on disk: spiece.model, or the tokenizer.json that stands for it.

transformers 5 saves tokenizer.json alone. It has the pieces and scores of the SentencePiece model
that it was made of, and its table of normalised characters: the model is put together from these.

Source: huggingface/transformers, models/t5/tokenization_t5.py; google/sentencepiece,
src/sentencepiece_model.proto.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import (  # type: ignore[attr-defined]
    ModelProto,
    TrainerSpec,
)

from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.text_encoder.folders import file_beside
from services.text_encoder.vocabulary import END, FILE_NAME, PADDING, UNKNOWN

TOKENIZER_FILE = "tokenizer.json"
_SENTINEL = re.compile(r"<extra_id_\d+>")


def vocabulary_model(folder: Path) -> bytes | None:
    """Returns the SentencePiece model of an encoder's vocabulary; None if the folder has none.

    Raises:
        CheckpointMismatch: there is a tokenizer.json alone, and it is not of a T5.
    """
    model = file_beside(folder, FILE_NAME)
    if model is not None:
        return model.read_bytes()
    file = file_beside(folder, TOKENIZER_FILE)
    if file is None:
        return None
    try:
        return _model_of(read_object(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointMismatch(
            f"{file} is no vocabulary of a T5: expected a Unigram model with the ids 0, 1 and 2 "
            f"for padding, end and unknown, got {error!r}; put T5's {FILE_NAME} beside it"
        ) from error


def _model_of(content: Mapping[str, Any]) -> bytes:
    model = content["model"]
    if (model["type"], model["unk_id"], model.get("byte_fallback", False)) != (
        "Unigram",
        UNKNOWN,
        False,
    ):
        raise ValueError(f"{model['type']} with unk_id {model['unk_id']}")
    proto = ModelProto()
    for number, (piece, score) in enumerate(model["vocab"]):
        if _SENTINEL.fullmatch(piece):
            continue
        kind = {PADDING: "CONTROL", END: "CONTROL", UNKNOWN: "UNKNOWN"}.get(number, "NORMAL")
        proto.pieces.add(piece=piece, score=score, type=ModelProto.SentencePiece.Type.Value(kind))
    trainer = proto.trainer_spec
    trainer.model_type = TrainerSpec.ModelType.Value("UNIGRAM")
    trainer.vocab_size = len(proto.pieces)
    trainer.pad_id, trainer.eos_id, trainer.unk_id, trainer.bos_id = PADDING, END, UNKNOWN, -1
    trainer.pad_piece, trainer.eos_piece, trainer.unk_piece = (
        proto.pieces[number].piece for number in (PADDING, END, UNKNOWN)
    )
    normalizer = proto.normalizer_spec
    for table in _character_tables(content["normalizer"]):
        normalizer.precompiled_charsmap = base64.b64decode(table, validate=True)
    normalizer.add_dummy_prefix = True
    normalizer.remove_extra_whitespaces = normalizer.escape_whitespaces = True
    return bytes(proto.SerializeToString(deterministic=True))


def _character_tables(normalizer: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields the tables of normalised characters; anything else that normalises is refused."""
    if normalizer is None:
        return
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    for step in steps:
        if step["type"] != "Precompiled":
            raise ValueError(f"a normalizer of the type {step['type']}")
        yield step["precompiled_charsmap"]
