"""What metrics cost: the same requests by two stacks, of which one exports and is scraped.

`python -m benchmarks.metrics` (`--requests 2` to see that it runs); how, `benchmarks/pairing.py`
says. One stack records nothing. Each server of the other sends its metrics over OTLP to a real
receiver in this process, and answers a scrape of its endpoint, both once a second: some ten times
as often as a deployed one would.
"""

import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from cyclopts import App
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from benchmarks.measuring import conditions
from benchmarks.pairing import WARM_UPS, Stack, compare, listening, one_thread, running, warm_up

INTERVAL_S = 1.0
METRICS_PORT = 9464  # of the manifests

app = App(help=__doc__)


class Receiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes metrics and counts the exports."""

    def __init__(self) -> None:
        """Has none."""
        self.exports = 0

    def Export(self, request: Any, context: Any) -> Any:
        """Takes one."""
        self.exports += 1
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Scraper:
    """Reads endpoints once a second, as a Prometheus does.

    Attributes:
        scrapes: Answers it has read, of all endpoints.
        size: Bytes of the largest.
        problem: What went wrong, after which it reads no more.
        thread: What reads.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        """Reads nothing yet."""
        self.scrapes, self.size = 0, 0
        self.problem: OSError | None = None
        self._urls, self._ending = urls, Event()
        self.thread = Thread(target=self._read, name="scraper")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads as long as the block runs.

        Raises:
            RuntimeError: an endpoint did not answer: then the figures are of something else.
        """
        self.thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self.thread.join()
        if self.problem is not None:
            raise RuntimeError(f"an endpoint was not scraped: {self.problem}") from self.problem

    def _read(self) -> None:
        due_s = time.monotonic()
        while not self._ending.wait(max(0.0, due_s - time.monotonic())):
            due_s += INTERVAL_S
            for url in self._urls:
                try:
                    with urllib.request.urlopen(url, timeout=10) as answer:
                        self.size = max(self.size, len(answer.read()))
                except OSError as error:
                    self.problem = error
                    return
                self.scrapes += 1


def endpoints(stack: Stack) -> list[str]:
    """Returns where each server of a stack answers scrapes."""
    return [
        f"http://{pod.local.address.endpoint(METRICS_PORT)}/metrics" for pod in stack.runner.pods
    ]


@app.default
def main(
    *,
    requests: int = 40,
    checkpoints: Path = Path("checkpoints/demo"),
    prompt: str = "a 3D picture of an owl on a blue background",
) -> None:
    """Prints a request's time without and with metrics, the ratio of each pair, and CPU time.

    Parameters
    ----------
    requests
        Pairs that count; a few go before.
    checkpoints
        What both stacks serve.
    prompt
        Of every request.
    """
    print(conditions("jax", "grpcio", "opentelemetry-sdk", "prometheus-client"))
    receiver, server = Receiver(), one_thread()
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)
    with ExitStack() as stack:
        address = stack.enter_context(listening(server))
        off = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        on = {
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": address,
            "OTEL_METRIC_EXPORT_INTERVAL": f"{1e3 * INTERVAL_S:.0f}",
        }
        without = stack.enter_context(running(checkpoints, off, endpoint=False))
        metered = stack.enter_context(running(checkpoints, on, endpoint=True))
        scraper = Scraper(endpoints(metered))
        stack.enter_context(scraper.reading())
        warm_up(without, metered, prompt)
        exports, scrapes = receiver.exports, scraper.scrapes
        found = compare(without, metered, prompt, range(WARM_UPS, WARM_UPS + requests))
        exports, scrapes = receiver.exports - exports, scraper.scrapes - scrapes
    found.print(checkpoints, "metered")
    print(
        f"{exports / requests:.1f} exports and {scrapes / requests:.1f} scrapes a request; "
        f"a scrape has up to {scraper.size} B"
    )


if __name__ == "__main__":
    app()
