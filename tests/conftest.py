"""What tests of several folders use."""

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NO_RENDERER = "nothing here renders manifests: install kubectl, or run make kubectl"


# What one test compiled no other compiles again, in whichever process: tests build the same small
# models over and over. It lies here for one run, and JAX must know before anything imports it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="muse-compiled-")  # removed when Python ends
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Most of what is compiled here runs a few times on tiny arrays. What LLVM does to it at its second
# level takes longer than all that it saves; XLA's own passes are the same at every level.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

# Servers choose their precision by the machine's CPU; what tests expect must not depend on it.
os.environ["MUSE_PRECISION"] = "float32"

# Files whose tests take a minute: begun first, no process is left alone with one at the end. Those
# that start servers of the same checkpoints come one after the other: only the first compiles.
LONGEST = (
    "test_prompt_to_picture.py",
    "test_three_stages.py",
    "test_train_tiny.py",
    "test_training_meshes.py",
    "test_tokenizer_meshes.py",
    "test_mesh.py",
    "test_stages.py",
    "test_local_stack.py",
    "test_chaos.py",
    "test_mixes.py",
    "test_soak.py",
)


@pytest.fixture(autouse=True, scope="session")
def plain_cpu() -> Iterator[None]:
    """Has servers of this process choose what suits a CPU that multiplies float32 faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.nn.precision.CPU_INFO", Path(os.devnull))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; all others stay in their order."""
    names = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: names.get(item.path.name, len(LONGEST)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says loudly what no Kubernetes was there for: a green run has not tried the real thing."""
    skipped = terminalreporter.stats.get("skipped", ())
    count = sum("no control plane" in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_sep(
            "!",
            f"{count} tests were NOT run: no Kubernetes control plane (tests/k8s/control_plane)",
            red=True,
            bold=True,
        )


class Collector:
    """A receiver of OTLP over gRPC, as a collector is, that keeps what arrives.

    Attributes:
        spans: (service, span), as they came.
        endpoint: Its address, as OTEL_EXPORTER_OTLP_ENDPOINT wants it.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector that runs."""
    import grpc  # here: most tests do without
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

    servicer, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(0)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What is recorded from here on, also by servers and channels that are made after this."""
    # Imported here: most tests do without the SDK.
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from services.runtime.observability import tracing

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")  # what makes the interceptors appear
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@cache
def _rendered(folder: str) -> list[dict[str, Any]]:
    from k8s.checks.rendering import parse, render  # here: most tests do without

    return parse(render(ROOT / folder))


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[dict[str, Any]]]:
    """Returns the objects of a folder with a kustomization, a fresh copy each time."""
    from k8s.checks.rendering import renderer

    if renderer() is None:
        if os.environ.get("CI"):
            pytest.fail(NO_RENDERER)
        pytest.skip(NO_RENDERER)
    return lambda folder: copy.deepcopy(_rendered(folder))


@pytest.fixture(scope="session")
def nothing_compiles() -> Callable[[], AbstractContextManager[None]]:
    """Makes blocks that fail if JAX traces, lowers or compiles a program inside them."""
    import jax  # here: most tests do without

    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: (
            compiled.append(event) if event.startswith("/jax/core/compile/") else None
        )
    )

    @contextmanager
    def block() -> Iterator[None]:
        before = len(compiled)
        yield
        assert compiled[before:] == []

    return block
