"""What the OpenAPI document says is what the gateway does: schemathesis tries every operation.

The gateway and what is behind it run in a thread of their own: schemathesis waits for answers.

One check is left out, positive_data_acceptance: a schema cannot say that bytes are a picture, which
side is served, or that two fields exclude each other, so data of the right shape may be refused.
test_native.py, test_generations.py and test_edits.py hold what must be accepted.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from services.orchestrator import safety, scoring
from services.orchestrator.safety import SafetySettings
from tests.gateway.conftest import running_gateway
from tests.gateway.pictures import file_of, noise
from tests.orchestrator.test_best_of import Nearest
from tests.orchestrator.test_safety import Shade
from tests.small_stages import open_house

EXAMPLES = 12  # of an operation, of right and of wrong shape
# Half of all files are pictures, so that requests get beyond the first check.
schemathesis.openapi.format("binary", st.just(file_of(noise())) | st.binary(max_size=64))
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
POSTS = [
    *(f"POST /v1/images/{each}" for each in ("generations", "edits", "variations")),
    *(
        f"POST /v1/muse/{each}"
        for each in ("generate", "inpaint", "outpaint", "mask-free-edit", "vary")
    ),
    "POST /v1/jobs",
]
GETS = [
    *("GET /v1/models", "GET /v1/models/{model}"),
    *(f"{method} /v1/jobs/{{job_id}}" for method in ("GET", "DELETE")),
    "GET /v1/jobs/{job_id}/pictures/{number}",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a gateway answers, in a thread of its own."""
    loop, opened = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> str:
        house = await opened.enter_async_context(open_house())
        database = f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.db'}"
        gateway = await opened.enter_async_context(running_gateway(house, jobs_database=database))
        return gateway.url

    try:
        with pytest.MonkeyPatch.context() as patch:  # so that all that may be asked for is served
            patch.setattr(scoring, "load_scorer", lambda _: Nearest())
            tagging = SafetySettings(Shade(), "tag", 0.5)
            patch.setattr(safety, "load_safety", lambda *_: tagging)
            found = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(opened.aclose(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def api(url: str) -> schemathesis.BaseSchema:
    """The operations of the document."""
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def operation_of(api: schemathesis.BaseSchema, label: str) -> APIOperation:
    """Returns an operation by its label."""
    operations = {each.label: each for each in (found.ok() for found in api.get_all_operations())}
    assert operations.keys() == {*POSTS, *GETS}
    return operations[label]


def arrives(case: schemathesis.Case) -> bool:
    """Returns whether a body arrives as it is: in a form null is a text, an empty list nothing."""
    if case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    return not any(each is None or each == [] for each in case.body.values())


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, mode) for label in POSTS for mode in GenerationMode),
        *((label, GenerationMode.POSITIVE) for label in GETS),  # they take nothing that is wrong
    ],
)
def test_every_operation_keeps_to_the_document(
    api: schemathesis.BaseSchema, label: str, mode: GenerationMode
) -> None:
    tried = 0

    @given(case=operation_of(api, label).as_strategy(generation_mode=mode))
    @BOUNDED
    def try_operation(case: schemathesis.Case) -> None:
        nonlocal tried
        assume(arrives(case))
        case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=30)
        tried += 1

    try_operation()
    assert tried
