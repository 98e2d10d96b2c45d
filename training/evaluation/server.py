"""Pictures from a running orchestrator."""

from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from jaxtyping import UInt8
from muse_client import GenerateOptions, MuseClient

from training.evaluation.scenes import PromptCase

Server = Annotated[str, Parameter(env_var="MUSE_SERVER")]


def generate_all(
    client: MuseClient, cases: Iterable[PromptCase], options: GenerateOptions | None = None
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the picture of each case.

    Args:
        client: Of the orchestrator.
        cases: What to generate.
        options: What every request says besides its prompt and seed; nothing by default.
    """
    for case in cases:
        request: GenerateOptions = {**(options or {}), "seed": case.seed}
        (picture,) = client.generate(case.prompt, **request)
        yield np.asarray(picture.image.convert("RGB"))
