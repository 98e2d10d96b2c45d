"""A process that decodes picture files: `python -m services.pictures.worker CPU_S MEMORY_BYTES`.

It reads requests from standard input and writes answers to standard output: a line of JSON, then
the bytes whose number it names. It imports neither gRPC nor JAX, so it starts in a moment.
"""

import json
import resource
import sys
import time
from typing import IO, Any

import numpy as np

from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, read_picture


def write_message(stream: IO[bytes], fields: dict[str, Any], *content: bytes | memoryview) -> None:
    """Writes a line of JSON and the bytes that belong to it."""
    stream.write(json.dumps(fields).encode() + b"\n")
    for each in content:
        stream.write(each)
    stream.flush()


def answer(request: dict[str, Any], content: bytes, stream: IO[bytes]) -> None:
    """Decodes one file and writes its pixels, or why it is refused."""
    limits = PictureLimits(**request["limits"])
    try:
        picture = read_picture(content, limits, backdrop=request["backdrop"])
    except PictureError as error:
        refusal = {"expected": error.expected, "got": error.got, "advice": error.advice}
        write_message(stream, {"refusal": refusal})
        return
    height, width = picture.rgb.shape[:2]
    arrays = [picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha]
    size = {"height": height, "width": width, "alpha": picture.alpha is not None}
    write_message(stream, size, *(np.ascontiguousarray(each).data.cast("B") for each in arrays))


def main(cpu_s: int, memory_bytes: int) -> None:
    """Answers requests until standard input ends.

    The process ends when it computes longer than `cpu_s` on one file, or needs more memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        soft = int(time.process_time()) + 1 + cpu_s  # the kernel counts whole seconds
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        answer(request, requests.read(request["length"]), answers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
