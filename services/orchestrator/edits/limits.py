"""Limits of edits, shared by the checks of requests, of picture files and of memory."""

import math

from services.runtime.wire.errors import invalid_field

MAX_SIDE_PX = 16_384
MAX_PIXELS = 2**24  # 48 MiB of RGB: even as a PNG that cannot be compressed it fits a message
MAX_EDITED_PIXELS = 2**26  # of all edits in progress: 192 MiB of RGB, a few times that at the end
MAX_WAITING_BYTES = 2**27  # of all edits that wait for memory; any one request fits


def check_share(field: str, share: float) -> None:
    """Checks a share of tokens.

    Raises:
        RequestError: INVALID_ARGUMENT: the share is not more than 0 and at most 1.
    """
    if not (math.isfinite(share) and 0 < share <= 1):
        raise invalid_field(field, expected="more than 0 to 1", got=share)
