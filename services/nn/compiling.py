"""Compiler options of the programs of a network."""

import jax

# cuBLAS fuses GELU and residual sums into a product, and multiplies by a layer of a stack in place.
# By default XLA prefers its own Triton kernels: a layer of Muse-3B's base took 160 us on an H200
# and a layer of superres 654 us; with cuBLAS 139 and 562 us.
PRODUCTS_BY_CUBLAS = {"xla_gpu_enable_triton_gemm": False}


def compiler_options() -> dict[str, bool]:
    """Returns options for `jax.jit` on the default device."""
    return PRODUCTS_BY_CUBLAS if jax.default_backend() == "gpu" else {}
