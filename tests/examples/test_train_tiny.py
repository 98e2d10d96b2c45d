"""The example that trains every stage."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from flax import nnx

from services.base.config import BaseConfig
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.serialization import (
    codebook_fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Tokenizer
from tests.examples.running import EXAMPLES
from tests.training.virtual_devices import QUICK

HIGH = preset("tiny").high_tokenizer


def save_untrained_tokenizer(folder: Path) -> None:
    """Saves the high-resolution tokenizer, whose first step takes half a minute to compile."""
    tokenizer = Tokenizer(HIGH, rngs=nnx.Rngs(0))
    parameters = {name: np.asarray(value) for name, value in parameters_of(tokenizer).items()}
    save_checkpoint(
        folder,
        stage="tokenizer",
        config=HIGH,
        parameters=parameters,
        fingerprint={"codebook": codebook_fingerprint(parameters["quantizer.codebook"])},
        record={"preset": "tiny"},
    )


def test_train_tiny_writes_checkpoints_that_were_trained_on_each_other(tmp_path: Path) -> None:
    root = tmp_path / "tiny" / "checkpoints"
    save_untrained_tokenizer(root / "tokenizer" / "high")

    program, folder = EXAMPLES / "train_tiny.py", tmp_path / "tiny"
    command = [sys.executable, str(program), str(folder), "--steps", "2"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=EXAMPLES.parent,
        env={**os.environ, "XLA_FLAGS": QUICK},
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "tokenizer/high is there: not trained again" in ended.stdout
    text = load_checkpoint(
        root / "text_encoder", stage="text_encoder", config_type=TextEncoderConfig
    )
    low, high = (
        load_checkpoint(
            root / "tokenizer" / resolution, stage="tokenizer", config_type=TokenizerConfig
        )
        for resolution in ("low", "high")
    )
    base = load_checkpoint(root / "base", stage="base", config_type=BaseConfig)
    superres = load_checkpoint(root / "superres", stage="superres", config_type=SuperresConfig)
    encoder, codebook = text.fingerprint["encoder"], low.fingerprint["codebook"]
    assert base.fingerprint == {"encoder": encoder, "codebook": codebook}
    assert superres.fingerprint == {
        "encoder": encoder,
        "low_codebook": codebook,
        "codebook": high.fingerprint["codebook"],
    }
    assert {each.record["preset"] for each in (text, low, base, superres)} == {"tiny"}
