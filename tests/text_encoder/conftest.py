"""A tiny text encoder for the tests of engine and server."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.serialization import parameters_fingerprint, save_checkpoint
from services.text_encoder.known_words import KNOWN_WORDS_FILE, known_words
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import FILE_NAME, train_vocabulary

TINY = preset("tiny").text_encoder
TEXTS = ("a fox", "", "two keys and a sun", "three red foxes on a green background, flat style")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text encoder of random weights, as training exports it."""
    folder = tmp_path_factory.mktemp("text_encoder")
    vocabulary = train_vocabulary(TEXTS * 5, TINY.vocabulary_size)
    parameters = {
        name: np.asarray(value)
        for name, value in parameters_of(TextEncoder(TINY, rngs=nnx.Rngs(0))).items()
    }
    (folder / FILE_NAME).write_bytes(vocabulary.model)
    words = known_words(TEXTS, {"things": ["fox", "key", "sun"]})
    assert words is not None
    words.save(folder / KNOWN_WORDS_FILE)
    save_checkpoint(
        folder,
        stage="text_encoder",
        config=TINY,
        parameters=parameters,
        fingerprint={"encoder": parameters_fingerprint("t5", parameters, vocabulary.model)},
        record={"preset": "tiny"},
        files=(folder / FILE_NAME,),
    )
    return folder
