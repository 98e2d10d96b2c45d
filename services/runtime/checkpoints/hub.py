"""Files of the Hugging Face hub, fetched by its own client."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from services.runtime.checkpoints.errors import CheckpointNotFound

# owner/name, then a folder in it, then a branch, tag or commit.
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)


def is_hub_id(source: str) -> bool:
    """Says whether a text has the form of a hub id: "owner/name/folder@revision" or less."""
    return _HUB_ID.fullmatch(source) is not None


def fetch_folder(
    source: str, files: Iterable[str], *, beside: Callable[[str], str] | None = None
) -> Path:
    """Fetches files of a folder from the hub, or finds them in its client's cache.

    Args:
        source: "owner/name", with "/folder" for one in it and "@revision" for one that is not the
            newest.
        files: Names or patterns of the files to fetch.
        beside: Returns the name of a further folder, of which the same files are fetched.

    Returns:
        The folder on this machine.

    Raises:
        CheckpointNotFound: the source is no id, the client is not installed, or the hub does not
            give it: it is not reached, or the repository or revision does not exist or is gated.
    """
    asked = _HUB_ID.fullmatch(source)
    if asked is None:
        raise CheckpointNotFound(
            f"expected a folder or a hub id such as google/flan-t5-xxl@main, got {source}"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise CheckpointNotFound(
            f"{source} is not on this machine, and fetching it from the hub needs the package "
            "huggingface-hub: install the extra muse[hub]"
        ) from error
    folder = asked["folder"]
    folders = [] if folder is None else [folder, *([beside(folder)] if beside else [])]
    patterns = [f"{each}/{name}" for each in folders for name in files] or list(files)
    try:
        snapshot = snapshot_download(
            asked["id"], revision=asked["revision"], allow_patterns=patterns
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointNotFound(
            f"{source} is not on this machine, and the hub does not give it: {reason}"
        ) from error
    return Path(snapshot) / (folder or "")
