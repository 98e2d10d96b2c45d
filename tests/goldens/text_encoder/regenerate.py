"""Makes the goldens of the text encoder from transformers' T5EncoderModel, in PyTorch.

    python tests/goldens/text_encoder/regenerate.py

Needs torch and transformers (the extra muse[parity]). Writes beside itself a small T5 v1.1 of
random weights in Hugging Face's layout, and its answers to batches of several lengths.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5EncoderModel

FOLDER = Path(__file__).parent
BATCHES = {  # name: lengths of its rows
    "one_token": (1,),
    "one_row": (7,),
    "equal_rows": (12, 12),
    "padded_rows": (5, 24, 1, 17),
    "beyond_the_last_bucket": (150, 90),
}


def random_encoder(config: T5Config, seed: int) -> T5EncoderModel:
    """Returns an encoder whose weights are large enough for every part to matter."""
    generator = torch.Generator().manual_seed(seed)
    encoder = T5EncoderModel(config).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "layer_norm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif "relative_attention_bias" in name or "shared" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
    return encoder


def answer(encoder: T5EncoderModel, lengths: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Runs random ids of the given lengths, padded to the longest."""
    random = np.random.default_rng(seed)
    mask = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    ids = np.where(mask, random.integers(1, encoder.config.vocab_size, mask.shape), 0)
    with torch.no_grad():
        output = encoder(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64))
        ).last_hidden_state
    return {"ids": ids.astype(np.int32), "mask": mask, "output": output.numpy()}


def main() -> None:
    """Writes weights and answers."""
    config = T5Config(
        vocab_size=96,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=3,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    encoder = random_encoder(config, seed=0)
    encoder.save_pretrained(FOLDER / "encoder")
    arrays = {
        f"{name}.{kind}": array
        for index, (name, lengths) in enumerate(BATCHES.items())
        for kind, array in answer(encoder, lengths, seed=index).items()
    }
    np.savez_compressed(FOLDER / "answers.npz", **arrays)


if __name__ == "__main__":
    main()
