"""Files of checkpoints and adapters: loaded, or refused as a CheckpointError.

The first byte chooses the file, of `FILES`; the rest is its content. Every other file is right, and
so is the digest of weights, unless config.json itself is the one.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from minisign import KeyPair
from safetensors.numpy import save
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from services.base.config import BaseConfig
from services.masked.defaults import checkpoint_defaults, edit_defaults
from services.presets import preset
from services.runtime.checkpoints.adapters import LowRank, load_adapter, save_adapter
from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint
from services.runtime.checkpoints.signatures import check_signature
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.huggingface import is_huggingface, read_huggingface
from services.text_encoder.known_words import KNOWN_WORDS_FILE, KnownWords
from services.text_encoder.vocabulary import Vocabulary, train_vocabulary
from services.tokenizer.config import TokenizerConfig
from tests.fuzz.sentences import check_sentence

MODULES = (
    "services.runtime.checkpoints",
    "services.base.config",
    "services.masked.config",
    "services.masked.defaults",
    "services.superres.config",
    "services.text_encoder.config",
    "services.text_encoder.huggingface",
    "services.text_encoder.known_words",
    "services.text_encoder.vocabulary",
    "services.tokenizer.config",
    "safetensors",
    "minisign",
)
MAX_BYTES = 2048
SMALL: dict[str, Any] = {  # a configuration of each stage
    "base": BaseConfig(
        grid=2,
        vocabulary=4,
        hidden=2,
        layers=1,
        heads=1,
        mlp=2,
        text_hidden=2,
        text_length=2,
    ),
    "superres": preset("tiny").superres,
    "text_encoder": preset("tiny").text_encoder,
    "tokenizer": preset("tiny").low_tokenizer,
}
TYPES: dict[str, type[Any]] = {
    "base": BaseConfig,
    "superres": SuperresConfig,
    "text_encoder": TextEncoderConfig,
    "tokenizer": TokenizerConfig,
}
PARAMETERS = {
    "a.kernel": np.ones((2, 3), ml_dtypes.bfloat16),
    "b": np.zeros((1,), np.float32),
}
FACTORS = {"a.lora_a": np.ones((2, 1), np.float32), "a.lora_b": np.ones((1, 3), np.float32)}


class Folders:
    """Good folders, of which a case replaces one file."""

    def __init__(self, root: Path) -> None:
        """Writes the folders."""
        self._root, self._keys = root, KeyPair.generate()
        for stage, config in SMALL.items():
            save_checkpoint(
                root / stage,
                stage=stage,
                config=config,
                parameters=PARAMETERS,
                fingerprint={"encoder": "t5:1"},
                record={"preset": "tiny"},
            )
        save_adapter(
            root / "adapter",
            stage="base",
            low_rank=LowRank(rank=1),
            checkpoint="sha256:0",
            parameters=FACTORS,
            record={},
        )
        (root / "signed").mkdir()
        (root / "signed" / "file").write_bytes(b"content")
        self._sign(b"".join(SIGNED_SUMS))
        self.key = root / "muse.pub"
        self.key.write_bytes(bytes(self._keys.public_key) + b"\n")
        self.files: tuple[Callable[[bytes], None], ...] = (
            *(self._config_of(stage) for stage in SMALL),
            self._weights,
            self._replacing(root / "base" / "training.json", self._load),
            self._replacing(root / "adapter" / "config.json", self._load_adapter),
            self._factors,
            self._replacing(root / "adapter" / "training.json", self._load_adapter),
            self._replacing(root / "signed" / "SHA256SUMS.minisig", self._check_signature),
            self._sums,
            self._public_key,
            self._words,
            self._vocabulary,
            self._sampling,
            self._huggingface_config,
            self._huggingface_weights,
        )
        (root / "huggingface").mkdir()
        (root / "huggingface" / "config.json").write_bytes(HUGGINGFACE)

    def check(self, content: bytes) -> None:
        """Checks one case."""
        self.files[content[0] % len(self.files) if content else 0](content[1:])

    def _load(self, stage: str = "base") -> None:
        loaded = load_checkpoint(self._root / stage, stage=stage, config_type=TYPES[stage])
        for name, value in vars(loaded.config).items():
            numbers = value if isinstance(value, tuple) else (value,)
            assert all(type(each) in (int, bool) for each in numbers), f"{name}: {value!r}"
        for role, name in loaded.fingerprint.items():
            assert isinstance(name, str), f"{role}: {name!r}"
        loaded.record.get("preset")

    def _load_adapter(self) -> None:
        load_adapter(self._root / "adapter").record.get("preset")

    def _check_signature(self) -> None:
        check_signature(self._root / "signed", self.key)

    def _replacing(self, file: Path, load: Callable[[], None]) -> Callable[[bytes], None]:
        """Returns a check that replaces a file while it loads what the file belongs to."""

        def check_file(content: bytes) -> None:
            good = file.read_bytes()
            file.write_bytes(content)
            try:
                load()
            except CheckpointError as error:
                check_sentence(str(error), longest=4 * MAX_BYTES)
            finally:
                file.write_bytes(good)

        return check_file

    def _config_of(self, stage: str) -> Callable[[bytes], None]:
        file = self._root / stage / "config.json"
        return self._replacing(file, lambda: self._load(stage))

    def _weights(self, content: bytes) -> None:
        self._with_digest("base", "model.safetensors", content, self._load)

    def _factors(self, content: bytes) -> None:
        self._with_digest("adapter", "adapter.safetensors", content, self._load_adapter)

    def _with_digest(
        self, name: str, weights: str, content: bytes, load: Callable[[], None]
    ) -> None:
        """Replaces weights, and what config.json says of them."""
        header = json.loads((self._root / name / "config.json").read_bytes())
        header["digest"] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        inner = self._replacing(self._root / name / weights, load)
        self._replacing(self._root / name / "config.json", lambda: inner(content))(
            json.dumps(header).encode()
        )

    def _sign(self, sums: bytes) -> None:
        (self._root / "signed" / "SHA256SUMS").write_bytes(sums)
        signature = bytes(self._keys.secret_key.sign(sums, trusted_comment="fuzz"))
        (self._root / "signed" / "SHA256SUMS.minisig").write_bytes(signature + b"\n")

    def _sums(self, content: bytes) -> None:
        self._sign(content)
        try:
            self._check_signature()
        except CheckpointError as error:
            check_sentence(str(error), longest=4 * MAX_BYTES)
        finally:
            self._sign(b"".join(SIGNED_SUMS))

    def _public_key(self, content: bytes) -> None:
        try:
            self._replacing(self.key, self._check_signature)(content)
        except ValueError as error:
            check_sentence(str(error), begins="checkpoint_key: ")

    def _words(self, content: bytes) -> None:
        file = self._root / KNOWN_WORDS_FILE
        file.write_bytes(content)
        try:
            words = KnownWords.from_file(file)
        except CheckpointError as error:
            check_sentence(str(error), longest=4 * MAX_BYTES)
        else:
            words.warning(words.unknown(["a fox"]))

    def _vocabulary(self, content: bytes) -> None:
        try:
            vocabulary = Vocabulary(content)
        except ValueError as error:
            check_sentence(str(error), longest=4 * MAX_BYTES)
        else:
            vocabulary.encode("a fox")

    def _sampling(self, content: bytes) -> None:
        file = self._root / "base" / "sampling.json"
        file.write_bytes(content)
        for read in (
            lambda: checkpoint_defaults(file.parent, steps=8),
            lambda: edit_defaults(file.parent),
        ):
            try:
                read()
            except CheckpointError as error:
                check_sentence(str(error), longest=4 * MAX_BYTES)

    def _huggingface_config(self, content: bytes) -> None:
        folder = self._root / "huggingface"

        def load() -> None:
            if is_huggingface(folder):
                read_huggingface(folder)

        self._replacing(folder / "config.json", load)(content)

    def _huggingface_weights(self, content: bytes) -> None:
        folder = self._root / "huggingface"
        (folder / "model.safetensors").write_bytes(content)
        try:
            read_huggingface(folder)
        except CheckpointError as error:
            check_sentence(str(error), longest=4 * MAX_BYTES)
        finally:
            (folder / "model.safetensors").unlink()


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield Folders(Path(root)).check


SIGNED_SUMS = (hashlib.sha256(b"content").hexdigest().encode(), b"  ./file\n")
HUGGINGFACE = json.dumps(
    {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "vocab_size": 2,
        "d_model": 2,
        "num_layers": 1,
        "num_heads": 1,
        "d_kv": 2,
        "d_ff": 2,
        "relative_attention_num_buckets": 4,
    }
).encode()


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields the good content of each file."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        Folders(root)
        for index, stage in enumerate(SMALL):
            yield f"config_{stage}", bytes([index]) + (root / stage / "config.json").read_bytes()
        yield "weights", b"\x04" + (root / "base" / "model.safetensors").read_bytes()
        yield "record", b"\x05" + (root / "base" / "training.json").read_bytes()
        yield "adapter", b"\x06" + (root / "adapter" / "config.json").read_bytes()
        yield "factors", b"\x07" + (root / "adapter" / "adapter.safetensors").read_bytes()
        yield "adapter_record", b"\x08{}"
        yield "signature", b"\x09" + (root / "signed" / "SHA256SUMS.minisig").read_bytes()
        yield "sums", b"\x0a" + b"".join(SIGNED_SUMS)
        yield "key", b"\x0b" + (root / "muse.pub").read_bytes()
    yield "words", b'\x0c{"subjects": {"things": ["fox"]}, "words": ["a", "fox"]}'
    yield "vocabulary", b"\x0d" + _small_vocabulary()
    yield "sampling", b'\x0e{"temperature": 0.7, "mask_free_edit": {"guidance_scale": 1.75}}'
    yield "huggingface", b"\x0f" + HUGGINGFACE
    yield "huggingface_weights", b"\x10" + _huggingface_weights()


def _small_vocabulary() -> bytes:
    model = ModelProto.FromString(train_vocabulary(["a fox"] * 5, 300).model)
    model.normalizer_spec.ClearField("precompiled_charsmap")  # a quarter of a megabyte
    return model.SerializeToString()


def _huggingface_weights() -> bytes:
    layer = "encoder.block.0.layer"
    square, line = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    names = {
        "shared.weight": square,
        f"{layer}.0.SelfAttention.relative_attention_bias.weight": np.ones((4, 1), np.float32),
        "encoder.final_layer_norm.weight": line,
        **{f"{layer}.0.SelfAttention.{each}.weight": square for each in "qkvo"},
        f"{layer}.0.layer_norm.weight": line,
        f"{layer}.1.layer_norm.weight": line,
        **{f"{layer}.1.DenseReluDense.{each}.weight": square for each in ("wi_0", "wi_1", "wo")},
    }
    return save(names)
