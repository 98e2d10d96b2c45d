"""Base and superres with weights and factors of fewer bits, by their own settings."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from muse.common.v1 import decoding_pb2

from services.base.config import BaseConfig
from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.runtime.checkpoints.precision import Precision, Weights
from services.runtime.checkpoints.serialization import load_checkpoint
from services.superres.spec import SUPERRES
from tests.masked.conftest import Serve


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"weights": "int8", "precision": "float32"}, "int8+float32"),
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"weights": "int8", "precision": "bfloat16"}, "int8+bfloat16"),
        ({"precision": "bfloat16", "rows": 3}, "bfloat16+rows3"),
        ({"rows": 2}, "rows2"),
    ],
)
async def test_base_in_fewer_bits_or_several_rows_decodes_the_same_in_company_and_says_what_it_is(
    serve: Serve, checkpoints: Path, settings: dict[str, Any], name: str
) -> None:
    async with serve("base", max_batch_size=4, **settings) as stage:
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
        precision, _, rows = name.partition("rows")
        assert status.precision == (precision.rstrip("+") or "float32")
        assert status.rows == int(rows or 1)
        assert dict(status.fingerprints) == stored.fingerprint
        assert status.checkpoints["base"] == f"{stored.digest}+{name}"


@pytest.mark.parametrize(
    ("weights", "precision", "added"),
    [
        ("full", "float32", ""),
        ("full", "bfloat16", "+bfloat16"),
        ("int8", "bfloat16", "+int8+bfloat16"),
    ],
)
def test_superres_in_fewer_bits_is_named_so(
    checkpoints: Path, weights: Weights, precision: Precision, added: str
) -> None:
    serving = default_serving_config(1, weights=weights, precision=precision)
    engine = MaskedEngine.load(SUPERRES, checkpoints / "superres", serving)
    assert engine.digest == f"{engine.checkpoint.digest}{added}"


def test_a_serving_config_has_full_or_int8_weights() -> None:
    with pytest.raises(ValueError, match="expected full or int8, got 'int4'"):
        default_serving_config(1, weights="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, 5])
def test_a_call_of_the_network_computes_no_more_rows_than_there_are_slots(rows: int) -> None:
    with pytest.raises(ValueError, match=f"rows: expected 1 to max_batch_size 4, got {rows}"):
        default_serving_config(4, rows_at_once=rows)


@pytest.mark.parametrize(
    ("name", "flag", "choices"),
    [
        ("text_encoder", "--weights=int4", '"full", "int8"'),
        ("base", "--weights=int4", '"full", "int8"'),
        ("superres", "--precision=int4", '"float32", "bfloat16"'),
        ("tokenizer", "--precision=int4", '"float32", "bfloat16"'),
    ],
)
def test_what_no_stage_knows_is_refused_in_one_sentence(
    tmp_path: Path, name: str, flag: str, choices: str
) -> None:
    words = ["-m", f"services.{name}", f"--checkpoints={tmp_path}", flag]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 2
    said = " ".join(ended.stderr.replace("│", " ").split())  # it is drawn into a box
    option = flag.partition("=")[0]
    assert f'Invalid value "int4" for {option}. Choose from: {choices}.' in said
    assert "Traceback" not in said
