"""A fake of the one resource of the Kubernetes API that the orchestrator reads."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

NAMESPACE = "muse"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
LABEL = "kubernetes.io/service-name"


class FakeApiServer:
    """A fake API server, over plain HTTP: lists and watches EndpointSlices, and nothing else.

    Written after the API's documentation. It has no authentication, no bookmarks and one namespace;
    it says 410 and 403 when a test asks for it.

    Attributes:
        asked: Every request: its verb, and the version it watches from.
        forbidden: Verbs that are answered 403.
        oldest: The first version that can still be watched from.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.forbidden: set[str] = set()
        self.oldest = 0
        self._version = 100
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        self._generation = 0  # of watches; those of an older one end
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def set(
        self, name: str, service: str, port: int, *endpoints: dict[str, Any], kind: str = "IPv4"
    ) -> None:
        """Makes or changes a slice, and tells all who watch."""
        known = name in self._slices
        self._put(
            "MODIFIED" if known else "ADDED",
            {
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: service}},
                "addressType": kind,
                "endpoints": list(endpoints) or None,  # as the API server itself says "none"
                "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
            },
        )

    def delete(self, name: str) -> None:
        """Takes a slice away, and tells all who watch."""
        self._put("DELETED", self._slices[name])

    def end_watches(self) -> None:
        """Ends the watches under way, as after their time."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def forget(self) -> None:
        """Makes every version up to now too old to be watched from, and ends the watches."""
        with self._changed:
            self._version += 1
            self.oldest = self._version
        self.end_watches()

    def start(self) -> None:
        """Answers, at the same port as before."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Goes away; the watches end."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.end_watches()

    def _put(self, kind: str, changed: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            metadata = {**changed["metadata"], "resourceVersion": str(self._version)}
            changed = {**changed, "metadata": metadata}
            if kind == "DELETED":
                del self._slices[metadata["name"]]
            else:
                self._slices[metadata["name"]] = changed
            self._events.append((self._version, kind, changed))
            self._changed.notify_all()

    def _answer(self, http: BaseHTTPRequestHandler) -> None:
        if self._server is None:  # a connection that was left open
            http.close_connection = True
            return
        url = urlsplit(http.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        watching = query.get("watch") in ("True", "true")
        verb, since = "watch" if watching else "list", query.get("resourceVersion")
        names = re.fullmatch(rf"{LABEL} in \((.*)\)", query.get("labelSelector", ""))
        if url.path != PATH or names is None:
            self._say(http, 404, _status(404, "NotFound"))
        elif verb in self.forbidden:
            self.asked.append((verb, since))
            self._say(http, 403, _status(403, "Forbidden"))
        elif watching:
            self._stream(http, int(since or 0), names[1].split(","))
        else:
            self.asked.append((verb, since))
            with self._changed:
                items = [each for each in self._slices.values() if _of(each, names[1].split(","))]
                version = str(self._version)
            content = {"kind": "EndpointSliceList", "metadata": {"resourceVersion": version}}
            self._say(http, 200, {**content, "items": items})

    def _say(self, http: BaseHTTPRequestHandler, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body)

    def _stream(self, http: BaseHTTPRequestHandler, since: int, names: list[str]) -> None:
        http.send_response(200)
        http.send_header("Content-Type", "application/json")
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()

        def write(kind: str, content: Any) -> None:
            line = json.dumps({"type": kind, "object": content}).encode() + b"\n"
            http.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            http.wfile.flush()

        with self._changed:
            generation = self._generation
            self.asked.append(("watch", str(since)))  # it hears of every change from here on
            if since < self.oldest:
                write("ERROR", _status(410, "Expired"))
                generation -= 1
            while generation == self._generation:
                for version, kind, changed in self._events:
                    if version > since and _of(changed, names):
                        write(kind, changed)
                    since = max(since, version)
                self._changed.wait(60)
        http.wfile.write(b"0\r\n\r\n")


def _of(each: dict[str, Any], names: list[str]) -> bool:
    return each["metadata"]["labels"][LABEL] in names


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": "said by a fake"}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """A fake API server that answers, and a kubeconfig that names it."""
    server = FakeApiServer()
    server.start()
    file = tmp_path / "kubeconfig"
    context = {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}
    address = f"http://127.0.0.1:{server.port}"
    content = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": context}],
        "clusters": [{"name": "fake", "cluster": {"server": address}}],
        "users": [{"name": "fake", "user": {}}],
    }
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield server
    server.stop()
