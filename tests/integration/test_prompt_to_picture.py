"""The whole stack: five processes, tiny random checkpoints, the public API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from muse.common.v1.decoding_pb2 import Sampling

from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.orchestrator.client import InvalidRequest, MuseClient, Started
from services.orchestrator.processes import free_ports, servers
from services.presets import preset
from services.runtime.checkpoints import (
    codebook_fingerprint,
    parameters_fingerprint,
    save_checkpoint,
)
from services.superres.model import SuperresTransformer
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import FILE_NAME, train_vocabulary
from services.tokenizer.model import Tokenizer

TINY = preset("tiny")


def save(root: Path, place: str, config: object, module: nnx.Module, fingerprint: dict[str, str]):
    parameters = {name: np.asarray(value) for name, value in parameters_of(module).items()}
    save_checkpoint(
        root / place,
        stage=place.split("/")[0],
        config=config,
        parameters=parameters,
        fingerprint=fingerprint,
        record={},
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    codebooks = {}
    for place, config, seed in (("low", TINY.low_tokenizer, 1), ("high", TINY.high_tokenizer, 2)):
        tokenizer = Tokenizer(config, rngs=nnx.Rngs(seed))
        values = [v for name, v in parameters_of(tokenizer).items() if "codebook" in name]
        codebooks[place] = codebook_fingerprint(np.asarray(values[0]))
        save(root, f"tokenizer/{place}", config, tokenizer, {"codebook": codebooks[place]})
    encoder = TextEncoder(TINY.text_encoder, rngs=nnx.Rngs(3))
    vocabulary = train_vocabulary(
        ["a fox", "two keys and a sun"] * 5, TINY.text_encoder.vocabulary_size
    )
    parameters = {name: np.asarray(value) for name, value in parameters_of(encoder).items()}
    name = parameters_fingerprint("t5", parameters, vocabulary.model)
    save(root, "text_encoder", TINY.text_encoder, encoder, {"encoder": name})
    (root / "text_encoder" / FILE_NAME).write_bytes(vocabulary.model)
    base = BaseTransformer(TINY.base, rngs=nnx.Rngs(4))
    save(root, "base", TINY.base, base, {"encoder": name, "codebook": codebooks["low"]})
    superres = SuperresTransformer(TINY.superres, rngs=nnx.Rngs(5))
    needs = {"encoder": name, "low_codebook": codebooks["low"], "codebook": codebooks["high"]}
    save(root, "superres", TINY.superres, superres, needs)
    return root


@pytest.fixture(scope="module")
def address(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ports = free_ports()
    with (
        (tmp_path_factory.mktemp("log") / "muse.log").open("w") as log,
        servers(checkpoints, ports, log),
    ):
        yield f"127.0.0.1:{ports['orchestrator']}"


def test_a_seed_gives_the_same_bytes_alone_and_in_a_batch_of_four(address: str) -> None:
    with MuseClient(address) as client:
        alone = [client.generate("a fox", seed=7 + index)[0].png for index in range(4)]
        together = [picture.png for picture in client.generate("a fox", seed=7, count=4)]
    assert alone == together
    assert len(set(together)) == 4


def test_the_seed_of_a_later_picture_wraps_at_64_bits(address: str) -> None:
    with MuseClient(address) as client:
        pictures = client.generate("a fox", seed=2**64 - 1, count=2)
    assert [picture.seed for picture in pictures] == [2**64 - 1, 0]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": "x" * 5000}),
        ("prompt", {"prompt": "fox " * 400}),
        ("count", {"count": 0}),
        ("count", {"count": 1000}),
        ("base.guidance", {"base": Sampling(guidance=float("nan"))}),
        ("base.steps", {"base": Sampling(steps=0)}),
        ("superres.steps", {"superres": Sampling(steps=10_000)}),
        ("base.top_k", {"base": Sampling(top_k=100_000)}),
    ],
)
def test_bad_input_names_its_field_and_the_next_request_works(
    address: str, field: str, wrong: dict[str, Any]
) -> None:
    with MuseClient(address) as client:
        with pytest.raises(InvalidRequest) as refused:
            list(client.events(**{"prompt": "a fox", **wrong}))
        assert [violation.field for violation in refused.value.violations] == [field]
        assert client.generate("a fox", seed=1)[0].image.size == (32, 32)


def test_a_reader_who_leaves_does_not_disturb_the_next(address: str) -> None:
    with MuseClient(address) as client:
        events = client.events("a fox", seed=1, count=4)
        assert next(events) == Started(seed=1, count=4)
        events.close()
        assert len(client.generate("a fox", seed=1)) == 1


def test_the_file_says_how_it_was_made(address: str) -> None:
    with MuseClient(address) as client:
        image = client.generate("a fox", seed=9)[0].image
    image.load()
    assert (image.info["prompt"], image.info["seed"]) == ("a fox", "9")
    assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
