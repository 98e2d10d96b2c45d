"""Base and superres with their weights in int8, by their own settings."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from muse.common.v1 import decoding_pb2

from services.base.config import BaseConfig
from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.runtime.checkpoints.serialization import load_checkpoint
from services.superres.spec import SUPERRES
from tests.masked.conftest import Serve


@pytest.mark.asyncio(loop_scope="module")
async def test_base_in_int8_decodes_the_same_in_company_and_says_what_it_is(
    serve: Serve, checkpoints: Path
) -> None:
    async with serve("base", max_batch_size=4, weights="int8") as stage:
        requests = [
            stage.request(sampling=decoding_pb2.Sampling(steps=4, seed=seed, guidance_scale=3.0))
            for seed in range(3)
        ]
        together = await asyncio.gather(*(stage.events(each) for each in requests))
        alone = [await stage.events(each) for each in requests]
        assert [one[-1].result.tokens for one in together] == [
            one[-1].result.tokens for one in alone
        ]

        status, stored = (
            await stage.status(),
            load_checkpoint(checkpoints / "base", stage="base", config_type=BaseConfig),
        )
        assert status.precision == default_serving_config(4, weights="int8").precision
        assert status.precision.startswith("int8+")
        assert dict(status.fingerprints) == stored.fingerprint
        assert status.checkpoints["base"] == f"{stored.digest}+{status.precision}"


def test_superres_takes_int8_too(checkpoints: Path) -> None:
    full, int8 = (
        MaskedEngine.load(
            SUPERRES, checkpoints / "superres", default_serving_config(1, weights=weights)
        )
        for weights in ("full", "int8")
    )

    assert int8.digest == f"{full.checkpoint.digest}+{int8.serving.precision}"
    assert int8.digest != full.digest


def test_a_serving_config_has_full_or_int8_weights() -> None:
    with pytest.raises(ValueError, match="expected full or int8, got 'int4'"):
        default_serving_config(1, weights="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["text_encoder", "base", "superres"])
def test_weights_that_no_stage_knows_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    words = ["-m", f"services.{name}", f"--checkpoints={tmp_path}", "--weights=int4"]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 2
    said = " ".join(ended.stderr.replace("│", " ").split())  # it is drawn into a box
    assert 'Invalid value "int4" for --weights. Choose from: "full", "int8".' in said
    assert "Traceback" not in said
