"""The chips of TPU topologies that are not here, for libtpu's compiler to compile for.

The compiler (the extra `tpu`) needs no TPU, only the name of a topology, such as "v5e:16x16",
"v6e:16x16" or "v4:8x8x4".
"""

import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Returns the devices of a TPU topology, to compile for.

    Raises:
        ValueError: libtpu is not installed, or knows no such topology.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no host of a TPU to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor a TPU to have to oneself
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"topology {name!r} cannot be compiled for: {str(error).splitlines()[0]}; expected one "
            "such as v5e:16x16 or v4:8x8x4, and libtpu from `pip install -e '.[tpu]'`"
        ) from error
