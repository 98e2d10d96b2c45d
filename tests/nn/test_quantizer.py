"""The search of a codebook leaves each image on the device that has it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from services.nn.quantizer import nearest_codes

mesh = jax.make_mesh((4,), ("data",))
rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
search = jax.jit(nearest_codes, in_shardings=(rows, whole), out_shardings=rows)
print(search.lower(jnp.zeros((8, 300, 6)), jnp.zeros((16, 6))).compile().as_text())
"""


def test_no_vector_leaves_the_device_of_its_image() -> None:
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    compiled = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "while(" in compiled  # a chunk at a time
    assert "f32[2,128,16]" in compiled  # of the two images of a device
    for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert collective not in compiled
