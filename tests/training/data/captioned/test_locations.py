"""Files are read whole or in part, wherever they lie; an empty one gives no bytes."""

import pytest

from tests.training.data.captioned.drawn import write
from training.data.captioned.locations import locate

CONTENT = b"0123456789"


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, None, CONTENT), (4, None, b"456789"), (4, 2, b"45"), (0, 3, b"012"), (4, 0, b"")],
)
def test_a_part_of_a_file_is_read(url: str, offset: int, size: int | None, expected: bytes) -> None:
    write(f"{url}/file", CONTENT)
    assert locate(f"{url}/file").read(offset, size) == expected


def test_an_empty_file_is_read(url: str) -> None:
    write(f"{url}/file", b"")
    assert locate(f"{url}/file").read() == b""
