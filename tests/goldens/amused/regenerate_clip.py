"""Makes the goldens of CLIP's text encoder from transformers' network and vocabulary.

    python -m tests.goldens.amused.regenerate_clip

Needs torch and transformers (the extra muse[parity]). Writes beside itself a vocabulary, trained on
the texts, in the files of OpenAI's CLIP; and a file for each GELU: its config.json, names and
shapes of its tensors, whose values `drawn_tensors` draws, texts, their ids and embeddings.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from tests.drawn_tensors import drawn_tensors

FOLDER = Path(__file__).parent
VOCABULARY = FOLDER / "vocabulary"
TEXTS = (
    "",
    "a photo of an astronaut riding a horse on mars",
    "It's 2024: we'll paint 3½ naïve CAFÉS, they've said!!",
    "  spaces\tand\nlines  ",
    "日本語 и кириллица, ΣΊΣΥΦΟΣ \U0001d518nicode ①② 🦊🦊",
    "snake_case --- (brackets) 'quoted' don't",
    "e\u0301 is \u00e9",
    "an <|endoftext|>END!",
)
POSITIONS, EMBEDDED = 77, 3  # of a text; texts whose embeddings are kept
MERGES = 60
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
SHAPE = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "projection_dim": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": POSITIONS,
}
GELUS = {"clip": "gelu", "clip_quick": "quick_gelu"}


def trained_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Trains merges on the texts; returns ids as OpenAI's CLIP orders them, and the merges."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([text.lower() for text in TEXTS[1:]] * 3, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{each}</w>" for each in alphabet), *map("".join, merges), *SPECIAL]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def write_vocabulary(ids: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Writes the files of a vocabulary whose padding is "!", as that of aMUSEd's is."""
    VOCABULARY.mkdir(exist_ok=True)
    content = json.dumps(ids, ensure_ascii=False) + "\n"
    (VOCABULARY / "vocab.json").write_text(content, "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (VOCABULARY / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": "!"}
    (VOCABULARY / "special_tokens_map.json").write_text(json.dumps(special) + "\n")


def drawn_clip(
    fields: dict[str, Any],
) -> tuple[CLIPTextModelWithProjection, dict[str, tuple[int, ...]]]:
    """Returns transformers' network with drawn weights, and their shapes."""
    model = CLIPTextModelWithProjection(CLIPTextConfig(**fields)).eval()
    shapes = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    drawn = {name: torch.from_numpy(each) for name, each in drawn_tensors(shapes).items()}
    model.load_state_dict(drawn)
    return model, shapes


def embeddings(model: CLIPTextModelWithProjection, ids: np.ndarray) -> np.ndarray:
    """Returns what aMUSEd's pipeline takes of the answer: the pooled vector is the last row."""
    with torch.no_grad():
        found = model(torch.from_numpy(ids), output_hidden_states=True)
    return torch.cat([found.hidden_states[-2], found.text_embeds[:, None]], dim=1).numpy()


def main() -> None:
    """Writes the vocabulary and both networks."""
    ids, merges = trained_vocabulary()
    write_vocabulary(ids, merges)
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, pad_token="!")
    padded = tokenizer(list(TEXTS), padding="max_length", max_length=POSITIONS)["input_ids"]
    tokens = np.array(padded)
    special = {"vocab_size": len(ids), "bos_token_id": ids[SPECIAL[0]]}
    for name, gelu in GELUS.items():
        fields = {**SHAPE, **special, "eos_token_id": ids[SPECIAL[1]], "hidden_act": gelu}
        model, shapes = drawn_clip(fields)
        with (FOLDER / f"{name}.npz").open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                fields=np.array(json.dumps({"model_type": "clip_text_model", **fields})),
                shapes=np.array(json.dumps(shapes)),
                texts=np.array(json.dumps(TEXTS)),
                ids=tokens.astype(np.int32),
                embeddings=embeddings(model, tokens[:EMBEDDED]),
            )


if __name__ == "__main__":
    main()
