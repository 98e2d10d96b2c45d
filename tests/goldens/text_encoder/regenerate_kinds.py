"""Makes the goldens of T5 1.0 and UMT5 from transformers' encoders, in PyTorch.

    python -m tests.goldens.text_encoder.regenerate_kinds

Needs torch and transformers (the extra muse[parity]). Writes beside itself a file for each kind:
its config.json, names and shapes of its tensors, whose values `drawn_tensors` draws, and its
answers to batches of several lengths.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from tests.drawn_tensors import drawn_tensors
from tests.goldens.text_encoder.regenerate import FOLDER, answer

CLASSES = {"t5": (T5Config, T5EncoderModel), "umt5": (UMT5Config, UMT5EncoderModel)}
SHAPE = {"vocab_size": 96, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 3, "num_heads": 3}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "t5_1_0": {"model_type": "t5", "feed_forward_proj": "relu", **SHAPE},
    "umt5": {"model_type": "umt5", "feed_forward_proj": "gated-gelu", **SHAPE},
}
BATCHES = ((7,), (5, 24, 1, 17))


def drawn_encoder(fields: Mapping[str, Any]) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Returns transformers' encoder of a config.json with drawn weights, and their shapes."""
    config_type, model_type = CLASSES[fields["model_type"]]
    given = {name: value for name, value in fields.items() if name != "model_type"}
    encoder = model_type(config_type(**given, dropout_rate=0.0)).eval()
    shapes = {
        name: tuple(each.shape)
        for name, each in encoder.state_dict().items()
        if name != "encoder.embed_tokens.weight"  # the same tensor as shared.weight
    }
    drawn = {name: torch.from_numpy(each) for name, each in drawn_tensors(shapes).items()}
    left = encoder.load_state_dict(drawn, strict=False)
    assert set(left.missing_keys) <= {"encoder.embed_tokens.weight"}, left
    return encoder, shapes


def main() -> None:
    """Writes both kinds."""
    for name, fields in KINDS.items():
        encoder, shapes = drawn_encoder(fields)
        arrays = {
            f"{index}.{part}": array
            for index, lengths in enumerate(BATCHES)
            for part, array in answer(encoder, lengths, seed=index).items()
        }
        texts = {"fields": json.dumps(fields), "shapes": json.dumps(shapes)}
        arrays |= {part: np.array(text) for part, text in texts.items()}
        with (FOLDER / f"{name}.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
