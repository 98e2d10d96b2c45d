"""The stages a transformer is trained on top of: they turn captioned pictures into token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from services.nn.parameters import with_parameters
from services.pictures.low_resolution import low_resolution_view
from services.text_encoder.clip_config import ClipTextConfig
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.families import AnyTokenizer, build_tokenizer, load_tokenizer
from training.pictures import to_float, to_uint8

LENGTH_STEP = 32  # captions are padded to a multiple of this, so that few shapes are compiled
PICTURES_AT_ONCE = 32  # of 512 at once a run of demo256's superres took 17 GB


def padded_length(longest: int, maximum: int) -> int:
    """Returns to how many positions captions are padded, of which the longest has some words."""
    return min(maximum, -(-longest // LENGTH_STEP) * LENGTH_STEP)


class FrozenTokenizer:
    """A trained tokenizer of any family that no longer learns."""

    def __init__(self, folder: Path) -> None:
        """Loads it.

        Raises:
            CheckpointError: there is none, or it is of another format.
        """
        checkpoint = load_tokenizer(folder)
        self.config = checkpoint.config
        self.codebook = checkpoint.fingerprint["codebook"]
        self._parameters = {
            k: jnp.asarray(v, jnp.float32) for k, v in checkpoint.parameters.items()
        }

        def build() -> AnyTokenizer:
            return build_tokenizer(self.config, rngs=nnx.Rngs(0))

        self._encode = jax.jit(
            lambda parameters, images: with_parameters(build, parameters).encode(to_float(images))
        )
        self._decode = jax.jit(
            lambda parameters, ids: with_parameters(build, parameters).decode(ids)
        )

    def ids(self, images: UInt8[np.ndarray, "B h w 3"]) -> Int[Array, "B N"]:
        """Returns the token ids of pictures, row by row."""
        ids = self._encode(self._parameters, images)
        return ids.reshape(ids.shape[0], -1)

    def pictures(self, ids: Int[Array | np.ndarray, "B N"]) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the pictures of square grids of token ids."""
        side = round(ids.shape[1] ** 0.5)
        made = self._decode(self._parameters, ids.reshape(-1, side, side))
        return to_uint8(np.asarray(made))


class FrozenTextEncoder:
    """The trained text encoder, which no longer learns.

    Attributes:
        fingerprint: Of the encoder.
        maximum_length: Tokens that a caption is cut to.
        maximum_rows: Rows of the longest embedding: CLIP's has the pooled vector as one more.
        captions_read: Captions embedded so far.
        captions_cut: Captions among them that were too long.
    """

    def __init__(self, folder: Path, *, dtype: DTypeLike = jnp.float32) -> None:
        """Loads it.

        Args:
            folder: Its checkpoint.
            dtype: Of parameters and arithmetic.

        Raises:
            CheckpointError: there is none, or it is of another format.
        """
        loaded = load_text_encoder(folder, dtype=dtype)
        self.fingerprint, self._loaded = loaded.fingerprint, loaded
        self.maximum_length = loaded.config.maximum_length
        self.maximum_rows = self.maximum_length + isinstance(loaded.config, ClipTextConfig)
        self.captions_read = self.captions_cut = 0
        graph, self._parameters = nnx.split(loaded.encoder)
        self._embed = jax.jit(lambda parameters, ids, mask: nnx.merge(graph, parameters)(ids, mask))

    def embeddings(
        self, captions: Sequence[str]
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Returns the embeddings of captions, cut to the maximum length, and what is no padding."""
        vocabulary = self._loaded.vocabulary
        ids, mask, cut = vocabulary.encode_batch(captions, self.maximum_length)
        self.captions_read += len(captions)
        self.captions_cut += cut
        # Captions are short: padding them to a short length saves attention to nothing. Of several
        # processes each sees its own captions, and all must have one length.
        longest = int(mask.sum(axis=1).max()) if jax.process_count() == 1 else self.maximum_length
        length = padded_length(longest, self.maximum_length)
        ids, mask = ids[:, :length], mask[:, :length]
        values = self._embed(self._parameters, ids, mask)
        pooled = values.shape[1] - length
        return values, jnp.pad(mask, ((0, 0), (0, pooled)), constant_values=True)

    def words(
        self, captions: Sequence[str]
    ) -> tuple[Float[np.ndarray, "M D"], Int[np.ndarray, " M"]]:
        """Returns the embeddings of all words of captions and their ids, no padding.

        Raises:
            CheckpointMismatch: the encoder is no T5.
        """
        pieces = self._loaded.pieces
        values, mask = self.embeddings(captions)
        ids, _, _ = pieces.encode_batch(captions, self.maximum_length)
        kept = np.asarray(mask)
        return np.asarray(values)[kept], ids[:, : kept.shape[1]][kept]


class Examples(NamedTuple):
    """Captioned pictures as the transformers see them.

    Attributes:
        low: Low-resolution token ids.
        high: High-resolution token ids; none for the base.
        text: Embeddings of the captions.
        text_mask: Which text positions are real.
    """

    low: Int[Array, "B Nl"]
    high: Int[Array, "B N"] | None
    text: Float[Array, "B T D"]
    text_mask: Bool[Array, "B T"]


class TokenisedBatch(NamedTuple):
    """Captioned pictures as they are kept: a few hundred bytes each.

    Attributes:
        low: Low-resolution token ids.
        high: High-resolution token ids; none for the base.
        captions: What the pictures show.
    """

    low: Int[np.ndarray, "B Nl"]
    high: Int[np.ndarray, "B N"] | None
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenStages:
    """Everything before the transformer that learns.

    Attributes:
        text_encoder: Of the captions.
        low: Of the low-resolution pictures.
        high: Of the high-resolution pictures; none for the base.
    """

    text_encoder: FrozenTextEncoder
    low: FrozenTokenizer
    high: FrozenTokenizer | None = None

    def tokenise(
        self, images: UInt8[np.ndarray, "B h w 3"], captions: Sequence[str]
    ) -> TokenisedBatch:
        """Tokenises high-resolution pictures and keeps their captions beside them."""
        side = self.low.config.image_size
        low_images = np.stack([low_resolution_view(image, side) for image in images])
        return TokenisedBatch(
            low=_ids(self.low, low_images),
            high=None if self.high is None else _ids(self.high, images),
            captions=tuple(captions),
        )

    def examples(self, batch: TokenisedBatch) -> Examples:
        """Embeds the captions of a batch and puts them beside its tokens."""
        text, text_mask = self.text_encoder.embeddings(batch.captions)
        return Examples(
            low=jnp.asarray(batch.low),
            high=None if batch.high is None else jnp.asarray(batch.high),
            text=text,
            text_mask=text_mask,
        )

    def fingerprint(self) -> Mapping[str, str]:
        """Names what the transformer is trained for: its encoder and codebooks."""
        names = {"encoder": self.text_encoder.fingerprint}
        if self.high is None:
            return names | {"codebook": self.low.codebook}
        return names | {"low_codebook": self.low.codebook, "codebook": self.high.codebook}


def _ids(
    tokenizer: FrozenTokenizer, images: UInt8[np.ndarray, "B h w 3"]
) -> Int[np.ndarray, "B N"]:
    """Returns the token ids of any number of pictures, a few at once."""
    starts = range(0, len(images), PICTURES_AT_ONCE)
    return np.concatenate([tokenizer.ids(images[at : at + PICTURES_AT_ONCE]) for at in starts])


def load_frozen_stages(checkpoints: Path, *, high: bool) -> FrozenStages:
    """Loads the text encoder and the tokenizers from a checkpoint root.

    Args:
        checkpoints: Root with text_encoder/ and tokenizer/.
        high: Whether the high-resolution tokenizer is needed.

    Raises:
        CheckpointError: one is missing or of another format.
    """
    return FrozenStages(
        text_encoder=FrozenTextEncoder(checkpoints / "text_encoder"),
        low=FrozenTokenizer(checkpoints / "tokenizer" / "low"),
        high=FrozenTokenizer(checkpoints / "tokenizer" / "high") if high else None,
    )
