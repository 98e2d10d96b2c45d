"""A server that leaks: `python -m tests.chaos.leaking BYTES MODULE [FLAG...]`.

It runs the server of a module as `python -m MODULE` does, but keeps some bytes of every call, so
that a run shows that the check of memory catches it.
"""

import runpy
import sys
from collections.abc import Sequence
from typing import Any

import grpc

leaked: list[bytes] = []


class Leak(grpc.aio.ServerInterceptor):
    """Keeps bytes of each call but those of health checks."""

    def __init__(self, count: int) -> None:
        """Leaks `count` bytes a call."""
        self._count = count

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Leaks, and goes on."""
        if "grpc.health" not in handler_call_details.method:
            leaked.append(b"\1" * self._count)  # zeros would take no memory before they are read
        return await continuation(handler_call_details)


def main(count: int, module: str, flags: list[str]) -> None:
    """Runs a server with a `Leak` before all of its interceptors."""
    create = grpc.aio.server

    def server(*, interceptors: Sequence[Any] = (), **others: Any) -> grpc.aio.Server:
        return create(interceptors=[Leak(count), *interceptors], **others)

    grpc.aio.server = server
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
