"""A fake of the Kubernetes API, as far as `muse deploy` reads it."""

import copy
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Manifest = dict[str, Any]
KINDS = {  # by API version: plural, kind, whether it is in a namespace
    "v1": [
        ("nodes", "Node", False),
        ("pods", "Pod", True),
        ("events", "Event", True),
    ],
    "apps/v1": [
        ("deployments", "Deployment", True),
        ("deployments/scale", "Scale", True),
        ("replicasets", "ReplicaSet", True),
    ],
}


class FakeApiServer:
    """A fake API server over plain HTTP: discovery, lists and logs.

    Written after the API's documentation. It has no credentials, and every Deployment has rolled
    out, unless `not_ready` names it.

    Attributes:
        forbidden: (verb, plural) that are answered 403.
        unwell: (verb, plural) that are answered 503.
        unauthorized: Whether every request is answered 401.
        not_ready: Deployments whose pods never become ready.
        logs: Lines of a pod; "NAME previous" of its last container.
    """

    def __init__(self) -> None:
        self.forbidden: set[tuple[str, str]] = set()
        self.unwell: set[tuple[str, str]] = set()
        self.unauthorized = False
        self.not_ready: set[str] = set()
        self.logs: dict[str, list[str]] = {}
        self._kinds = copy.deepcopy(KINDS)
        self._objects: dict[tuple[str, str, str], Manifest] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()

    def put(self, manifest: Manifest) -> None:
        """Keeps an object of a kind that this server has."""
        (plural,) = [
            plural
            for group in self._kinds.values()
            for plural, kind, _ in group
            if kind == manifest["kind"] and "/" not in plural
        ]
        metadata = manifest["metadata"]
        metadata.setdefault("generation", 1)
        self._objects[plural, metadata.get("namespace", ""), metadata["name"]] = manifest

    def object(self, plural: str, namespace: str, name: str) -> Manifest:
        """Returns a kept object."""
        return self._objects[plural, namespace, name]

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        """Answers a request."""
        url = urlsplit(http.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.unauthorized:
            return _fail(http, 401, "Unauthorized")
        found = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))(/.*)?", url.path)
        version = (found[1] or found[2]) if found else ""
        if found is None or version not in self._kinds:
            return _fail(http, 404, "the server could not find the requested resource")
        words = (found[3] or "").strip("/").split("/")
        if words == [""]:
            resources = [
                {"name": plural, "kind": kind, "namespaced": namespaced}
                for plural, kind, namespaced in self._kinds[version]
            ]
            return _send(http, 200, {"kind": "APIResourceList", "resources": resources})
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        plural, name = (*words, "")[:2]
        verb = "get" if name else "list"
        if (verb, plural) in self.forbidden:
            message = f'{plural} is forbidden: User "jane" cannot {verb} resource "{plural}"'
            return _fail(http, 403, message)
        if (verb, plural) in self.unwell:
            return _fail(http, 503, "etcdserver: leader changed")
        if verb == "get":
            return self._log(http, name, query)
        items = [
            self._with_status(each)
            for (kind, where, _), each in self._objects.items()
            if kind == plural and namespace in ("", where) and _selected(each, query)
        ]
        return _send(http, 200, {"kind": "List", "items": items or None})

    def _with_status(self, manifest: Manifest) -> Manifest:
        """Returns an object with what the controller of Deployments would report."""
        if manifest["kind"] != "Deployment":
            return manifest
        replicas = manifest["spec"].get("replicas", 1)
        not_ready = manifest["metadata"]["name"] in self.not_ready
        status = {
            "observedGeneration": manifest["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": 0 if not_ready else replicas,
        }
        return {**manifest, "status": {**status, **manifest.get("status", {})}}

    def _log(self, http: BaseHTTPRequestHandler, pod: str, query: Mapping[str, str]) -> None:
        name = f"{pod} previous" if query.get("previous") == "true" else pod
        if name not in self.logs:
            return _fail(http, 400, f'container "server" in pod "{pod}" is waiting to start')
        lines = self.logs[name][-int(query.get("tailLines", 1000)) :]
        body = "".join(f"{line}\n" for line in lines).encode()
        http.send_response(200)
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body)


def _handler(api: FakeApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet

        def do_GET(self) -> None:
            api.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _send(http: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    body = json.dumps(content).encode()
    http.send_response(status)
    http.send_header("Content-Type", "application/json")
    http.send_header("Content-Length", str(len(body)))
    http.end_headers()
    http.wfile.write(body)


def _fail(http: BaseHTTPRequestHandler, code: int, message: str) -> None:
    _send(http, code, {"kind": "Status", "code": code, "message": message})


def _selected(each: Manifest, query: Mapping[str, str]) -> bool:
    kind = query.get("fieldSelector", "").removeprefix("type=")
    return kind in ("", each.get("type"))
