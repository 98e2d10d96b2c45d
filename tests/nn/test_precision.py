"""The precision that suits a device, and what has it there."""

import logging
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.nn import precision
from services.nn.bf16_matmul import RoundsFactors
from services.nn.compiling import traced_for
from services.nn.precision import build_in, multiplies_bfloat16_faster, precision_to_serve
from services.presets import preset

TINY = preset("tiny").base
WITH_UNIT = "vendor_id : GenuineIntel\nflags\t\t: fpu sse2 amx_bf16 avx512_bf16 amx_tile amx_int8\n"
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx512_bf16\n"
OLDER_AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx2\n"
WITHOUT_UNIT = "vendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx512_bf16\n"


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says what the CPU can, which is not there yet."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "CPU_INFO", file)
    return file


@pytest.mark.parametrize(
    ("content", "unit"),
    [
        (WITH_UNIT, True),
        (AMD, True),
        (OLDER_AMD, False),
        (WITHOUT_UNIT, False),
        ("", False),
        (None, False),
    ],
    ids=["AMX", "AMD's AVX512-BF16", "AMD's AVX2", "Intel's AVX512-BF16", "no flags", "no file"],
)
def test_a_cpu_serves_bfloat16_if_it_multiplies_that_faster(
    cpu_info: Path, content: str | None, unit: bool
) -> None:
    if content is not None:
        cpu_info.write_text(content)
    assert multiplies_bfloat16_faster() == unit
    assert precision_to_serve(None) == ("bfloat16" if unit else "float32")
    assert precision_to_serve("float32") == "float32"


@pytest.mark.parametrize("content", [WITH_UNIT, WITHOUT_UNIT])
def test_bfloat16_on_a_cpu_that_multiplies_float32_faster_works_and_warns(
    cpu_info: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    cpu_info.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert precision_to_serve("bfloat16") == "bfloat16"
    expected = (
        []
        if content == WITH_UNIT
        else [
            "precision bfloat16: this CPU has neither AMX nor an AMD's AVX512-BF16, so it is "
            "slower than float32 here"
        ]
    )
    assert [record.message for record in caplog.records] == expected


def test_an_accelerator_serves_bfloat16_whatever_the_cpu(cpu_info: Path) -> None:
    cpu_info.write_text(WITHOUT_UNIT)
    for platform in ("tpu", "gpu"):
        with traced_for(platform):
            assert precision_to_serve(None) == "bfloat16"


def test_everything_between_products_is_float32_on_a_cpu_and_bfloat16_elsewhere() -> None:
    def build(between: jnp.dtype) -> BaseTransformer:
        return BaseTransformer(TINY, rngs=nnx.Rngs(0), dtype=between)

    def found(model: BaseTransformer) -> tuple[jnp.dtype, set[bool]]:
        layers = [m for _, m in nnx.iter_graph(model) if isinstance(m, RoundsFactors)]
        return model.dtype, {layer.bf16_factors for layer in layers}

    assert found(build_in(jnp.bfloat16, build)) == (jnp.float32, {True})
    assert found(build_in(jnp.float32, build)) == (jnp.float32, {False})
    with traced_for("tpu"):
        assert found(build_in(jnp.bfloat16, build)) == (jnp.bfloat16, {False})
