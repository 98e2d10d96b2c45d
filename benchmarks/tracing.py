"""Cost of tracing: the same requests sent to two stacks, of which one exports spans.

`python -m benchmarks.tracing` measures the default sampling, `--sampler always_on` every request
(`--requests 2` for a trial run). `benchmarks/pairing.py` describes the method. The receiver of the
spans is a gRPC server in this process.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cyclopts import App
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.measuring import conditions
from benchmarks.pairing import WARM_UPS, compare, listening, one_thread, running, warm_up

app = App(help=__doc__)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and counts them."""

    def __init__(self) -> None:
        """Has none."""
        self.spans = 0

    def Export(self, request: Any, context: Any) -> Any:
        """Takes some."""
        self.spans += sum(
            len(scope.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        return trace_service_pb2.ExportTraceServiceResponse()


@app.default
def main(
    *,
    requests: int = 40,
    checkpoints: Path = Path("checkpoints/demo"),
    prompt: str = "a 3D picture of an owl on a blue background",
    sampler: str = "",
) -> None:
    """Prints a request's time without and with tracing, the ratio of each pair, and CPU time.

    Parameters
    ----------
    requests
        Pairs that count; a few go before.
    checkpoints
        What both stacks serve.
    prompt
        Of every request.
    sampler
        OTEL_TRACES_SAMPLER of the traced stack; by default the servers use their own default.
    """
    print(conditions("jax", "grpcio", "opentelemetry-sdk"))
    receiver, server = Receiver(), one_thread()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    with ExitStack() as stack:
        address = stack.enter_context(listening(server))
        off = {"OTEL_TRACES_EXPORTER": "none"}
        on = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": address, "OTEL_TRACES_SAMPLER": sampler}
        without, traced = (
            stack.enter_context(running(checkpoints, each, endpoint=True)) for each in (off, on)
        )
        warm_up(without, traced, prompt)
        spans = receiver.spans
        found = compare(without, traced, prompt, range(WARM_UPS, WARM_UPS + requests))
        spans = receiver.spans - spans
    found.print(checkpoints, "traced")
    print(f"{spans / requests:.1f} spans a request")


if __name__ == "__main__":
    app()
