"""Tensors of a file that `torch.save` wrote, read without running anything in it.

PyTorch is needed for this alone, and only by who imports such a file.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound

# Classes whose instances lie beside the weights in files of training runs: PyTorch Lightning's
# callbacks in taming's and LDM's, the command line's arguments in LlamaGen's. `_Unread` takes their
# place; their packages are not imported.
BESIDE_WEIGHTS = ("pytorch_lightning.", "argparse.Namespace")


class _Unread:
    """Takes the place of an object that is not looked at."""


def read_torch(file: Path) -> Mapping[str, Any]:
    """Reads a file by PyTorch's restricted unpickling (`weights_only=True`).

    Returns:
        The dictionary in it.

    Raises:
        CheckpointNotFound: there is no such file, or PyTorch is not installed.
        CheckpointMismatch: the file is damaged, or asks for something besides tensors.
    """
    if not file.is_file():
        raise CheckpointNotFound(f"expected a PyTorch file, got {file}, which is none")
    try:
        import torch
        from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
    except ImportError as error:
        raise CheckpointNotFound(
            f"{file} is a PyTorch file, and reading it needs the package torch: pip install torch; "
            "what is written is served without it"
        ) from error
    try:
        # Files from before PyTorch 1.6 are no archives; what they ask for shows as they are read.
        asked = get_unsafe_globals_in_checkpoint(file) if zipfile.is_zipfile(file) else []
        unread = [name for name in asked if name.startswith(BESIDE_WEIGHTS)]
        code = sorted(set(asked) - set(unread))
        if code:
            raise _asks_for(file, ", ".join(code[:10]))
        with safe_globals([(_Unread, name) for name in unread]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointMismatch:
        raise
    except pickle.UnpicklingError as error:  # its message is a page, which ends with the reason
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise _asks_for(file, found[1] if found else "something besides tensors") from error
    except Exception as error:  # a damaged file fails in as many ways as it has parts
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise CheckpointMismatch(
            f"{file} is no readable PyTorch file: {reason}; it may be truncated, fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointMismatch(
            f"{file}: expected a dictionary of tensors, got {type(content).__name__}"
        )
    return content


def _asks_for(file: Path, what: str) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"{file} asks for {what}: expected tensors alone, so nothing of it was used; do not open "
        "it with Python's pickle"
    )


def tensors_in(content: Mapping[str, Any], places: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns the tensors of a dictionary as float32 arrays, by name.

    Args:
        content: As `read_torch` returns it.
        places: Keys under which a training run keeps them, the best first; the dictionary itself if
            it has none of these.
    """
    import torch

    found = next((content[place] for place in places if place in content), content)
    return {
        name: tensor.detach().float().numpy()
        for name, tensor in found.items()
        if isinstance(tensor, torch.Tensor)
    }
