"""Compiler options of each backend."""

import jax
import jax.numpy as jnp
import pytest

from services.nn.compiling import compiler_options


def test_a_gpu_s_products_are_cublas_s_and_nothing_is_said_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compiler_options() == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {"xla_gpu_enable_triton_gemm": False}


def test_xla_knows_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    options = compiler_options()
    monkeypatch.undo()

    assert jax.jit(jnp.sin, compiler_options=options).lower(0.0).compile()(0.0) == 0
    with pytest.raises(Exception, match="xla_gpu_enable_nothing"):
        jax.jit(jnp.sin, compiler_options={"xla_gpu_enable_nothing": False}).lower(0.0).compile()
