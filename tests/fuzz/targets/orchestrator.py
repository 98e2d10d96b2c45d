"""Every method of the orchestrator, over four small stages that really serve."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import Message
from muse.common.v1.decoding_pb2 import Adapter, Sampling
from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    GenerateResponse,
    GetStatusRequest,
    Inpaint,
    MaskFreeEdit,
    Outpaint,
    PictureFormat,
    Vary,
)

from services.orchestrator import __main__ as orchestrator
from services.stages import ORCHESTRATOR, STAGES, generated, service_of
from tests.fuzz.calls import InProcess, check_ending
from tests.fuzz.cases import CHANGED_WITHOUT_TIME, RAW, Case, case_of, read_case
from tests.fuzz.sampling import full_sampling
from tests.picture_files import file_of, noise
from tests.small_stages import Behaviour, a_stage

MODULES = ("services.orchestrator", "services.pictures", "services.runtime.wire")
MAX_BYTES = 4096
GENERATE = "/muse.orchestrator.v1.OrchestratorService/Generate"
STATUS = "/muse.orchestrator.v1.OrchestratorService/GetStatus"
GOOD_AGAIN = 64  # cases between two of which a good request must be answered as ever


@asynccontextmanager
async def served() -> AsyncIterator[InProcess]:
    """Yields an orchestrator whose stages serve."""
    async with AsyncExitStack() as stack:
        addresses: Any = {
            name: f"127.0.0.1:{await stack.enter_async_context(a_stage(Behaviour(name)))}"
            for name in STAGES
        }
        service = await orchestrator.build(orchestrator.Settings(port=0, **addresses))
        stack.push_async_callback(service.close)
        await service.warm_up()
        register = generated(ORCHESTRATOR, f"add_{service_of(ORCHESTRATOR)}Servicer_to_server")
        yield InProcess(partial(register, service.servicer), service.admit)


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    good, count = good_requests(), 0
    with asyncio.Runner() as runner:
        loop, stack = runner.get_loop(), AsyncExitStack()
        server = loop.run_until_complete(stack.enter_async_context(served()))
        request = good[GENERATE][0].SerializeToString()
        audit = logging.getLogger("muse.audit")
        level = audit.level
        audit.setLevel(logging.ERROR)  # it would write a line a case

        def picture() -> bytes:
            ending = loop.run_until_complete(server.call(Case(GENERATE, request)))
            check_ending(ending)
            events = [GenerateResponse.FromString(each) for each in ending.responses]
            assert events, ending
            assert events[-1].HasField("done"), events[-1]
            return next(each.image.png for each in events if each.HasField("image"))

        first = picture()

        def check(content: bytes) -> None:
            nonlocal count
            case = read_case(content, good)
            check_ending(loop.run_until_complete(server.call(case)), case.left_s)
            count += 1
            if count % GOOD_AGAIN == 0:
                assert picture() == first, "a good request is answered by another picture now"

        try:
            yield check
        finally:
            audit.setLevel(level)
            loop.run_until_complete(stack.aclose())


def good_requests() -> dict[str, list[Message]]:
    """Returns good requests of every method; the first has fields of no edit."""
    few, picture = Sampling(steps=2), file_of(noise(16, 20))
    mask = file_of(np.full((16, 20), 255, np.uint8))
    common: Any = {"prompt": "a fox", "seed": 7, "base": few, "superres": few}
    edits: list[dict[str, Any]] = [
        {"inpaint": Inpaint(image=picture, mask=mask, feather_px=2, composite=True)},
        {"outpaint": Outpaint(image=picture, left_px=4, bottom_px=8)},
        {
            "mask_free_edit": MaskFreeEdit(
                image=picture, iterations=2, fraction=0.5, return_iterations=[1], strength=0.5
            )
        },
        {"vary": Vary(image=picture, strength=0.5)},
    ]
    return {
        GENERATE: [
            GenerateRequest(**common),
            GenerateRequest(
                **{**common, "base": full_sampling(), "superres": full_sampling()},
                negative_prompt="rain",
                count=2,
                progress=True,
                preview_every=1,
                caller={"id": "acme", "priority": 1},
                adapters=[Adapter(name="owl", weight=0.5)],
            ),
            GenerateRequest(**common, best_of=2, count=1),
            GenerateRequest(**common, picture_format=PictureFormat.PICTURE_FORMAT_WEBP, quality=1),
            *(GenerateRequest(**common, **edit) for edit in edits),
        ],
        STATUS: [GetStatusRequest()],
    }


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields every good request as bytes, and some changes of each."""
    good = good_requests()
    for method, requests in good.items():
        name = method.rpartition("/")[2]
        for index, request in enumerate(requests):
            yield f"{name}-{index}", case_of(method, good, RAW, request.SerializeToString())
            for field in range(0, 18, 3):
                changes = bytes([index, 0, field, 0, field, 5, 6, 7, 8])
                yield (
                    f"{name}-{index}-{field}",
                    case_of(method, good, CHANGED_WITHOUT_TIME, changes),
                )
