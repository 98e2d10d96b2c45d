"""A fake of the Kubernetes API, as far as `muse deploy` talks to it."""

import copy
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Manifest, Fields = dict[str, Any], dict[tuple[str, ...], Any]
APPLY = "application/apply-patch+yaml"
KINDS = {  # by API version: plural, kind, whether it is in a namespace
    "v1": [
        ("namespaces", "Namespace", False),
        ("nodes", "Node", False),
        ("persistentvolumes", "PersistentVolume", False),
        ("persistentvolumeclaims", "PersistentVolumeClaim", True),
        ("pods", "Pod", True),
        ("events", "Event", True),
        ("services", "Service", True),
        ("serviceaccounts", "ServiceAccount", True),
        ("configmaps", "ConfigMap", True),
        ("resourcequotas", "ResourceQuota", True),
    ],
    "apps/v1": [
        ("deployments", "Deployment", True),
        ("deployments/scale", "Scale", True),
        ("replicasets", "ReplicaSet", True),
    ],
    "batch/v1": [("jobs", "Job", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", True)],
    "rbac.authorization.k8s.io/v1": [
        ("roles", "Role", True),
        ("rolebindings", "RoleBinding", True),
    ],
    "autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler", True)],
    "apiextensions.k8s.io/v1": [("customresourcedefinitions", "CustomResourceDefinition", False)],
}


class FakeApiServer:
    """A fake API server, over plain HTTP: discovery, server-side apply, scale, lists and logs.

    Written after the API's documentation. Beyond that it is simple: lists are atomic, there are no
    schemas and no credentials, and every Deployment is ready at once, unless `stuck` names it.

    Attributes:
        changed: (manager, kind/name) of everything that was kept.
        forbidden: (verb, plural) that are answered 403.
        unwell: (verb, plural) that are answered 503, and how many times more.
        unauthorized: Whether everything is answered 401.
        admission: Says why an object is not admitted, or "".
        invalid: Names of objects that are answered 422, and why.
        defines: What a CustomResourceDefinition adds to the kinds once it is applied.
        stuck: Deployments whose pods never become ready.
        vanish: Deployments that somebody deletes as soon as they are made.
        logs: Lines of a pod, each with its time in front; "NAME previous" of its last container.
        asked_logs: How each log was asked for.
    """

    def __init__(self) -> None:
        self.changed: list[tuple[str, str]] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.unwell: Counter[tuple[str, str]] = Counter()
        self.unauthorized = False
        self.admission: Callable[[Manifest], str] = lambda manifest: ""
        self.invalid: dict[str, str] = {}
        self.defines: tuple[str, list[tuple[str, str, bool]]] | None = None
        self.stuck: set[str] = set()
        self.vanish: set[str] = set()
        self.logs: dict[str, list[str]] = {}
        self.asked_logs: list[Mapping[str, str]] = []
        self.kinds = copy.deepcopy(KINDS)
        self._objects: dict[tuple[str, str, str], Manifest] = {}
        self._owned: dict[tuple[str, str, str], dict[str, Fields]] = {}
        self._version = 100
        self._news = threading.Condition()
        self._ended: Counter[str] = Counter()  # how often a log has ended
        self._broken = False  # and whether in the middle
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Goes away; logs that are followed end."""
        self._server.shutdown()
        self._server.server_close()
        with self._news:
            self.logs = {}
            self._news.notify_all()

    def put(self, manifest: Manifest, manager: str = "somebody") -> None:
        """Keeps an object as if a manager had applied it."""
        (plural,) = [
            plural
            for group in self.kinds.values()
            for plural, kind, _ in group
            if kind == manifest["kind"] and "/" not in plural
        ]
        metadata = manifest["metadata"]
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        self._keep(key, manifest, manager, {manager: _fields(manifest)})
        self._control(key)

    def take(self, plural: str, namespace: str, name: str, changes: Manifest, manager: str) -> None:
        """Lets a manager change fields of an object, which are its own then."""
        key, new = (plural, namespace, name), self.object(plural, namespace, name)
        new, fields = copy.deepcopy(new), dict(_leaves(changes, ()))
        owned = {
            other: {path: value for path, value in theirs.items() if path not in fields}
            for other, theirs in self._owned[key].items()
        }
        for path, value in fields.items():
            _set(new, path, value)
        self._keep(key, new, manager, {**owned, manager: fields})
        self._control(key)

    def object(self, plural: str, namespace: str, name: str) -> Manifest:
        """Returns an object that is there."""
        return self._objects[plural, namespace, name]

    def say(self, pod: str, *lines: str) -> None:
        """Lets a pod log lines, and tells all who follow."""
        with self._news:
            self.logs.setdefault(pod, []).extend(lines)
            self._news.notify_all()

    def end(self, pod: str, *, broken: bool = False) -> None:
        """Ends the answers to all who follow a pod's log, as where its container ends.

        Args:
            pod: Its name.
            broken: Whether they break off in the middle, as where a connection does.
        """
        with self._news:
            self._broken = broken
            self._ended[pod] += 1
            self._news.notify_all()

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        """Answers a request."""
        url = urlsplit(http.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.loads(http.rfile.read(int(http.headers.get("Content-Length") or 0)) or "null")
        if self.unauthorized:
            return _fail(http, 401, "Unauthorized")
        found = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))(/.*)?", url.path)
        version = (found[1] or found[2]) if found else ""
        if found is None or version not in self.kinds:
            return _fail(http, 404, "the server could not find the requested resource")
        words = (found[3] or "").strip("/").split("/")
        if words == [""]:
            resources = [
                {"name": plural, "kind": kind, "namespaced": namespaced}
                for plural, kind, namespaced in self.kinds[version]
            ]
            return _say(http, 200, {"kind": "APIResourceList", "resources": resources})
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        plural, name, below = (*words, "", "")[:3]
        verb = "patch" if http.command == "PATCH" else "get" if name else "list"
        if (verb, plural) in self.forbidden:
            message = f'{plural} is forbidden: User "jane" cannot {verb} resource "{plural}"'
            return _fail(http, 403, message)
        if self.unwell[verb, plural] > 0:
            self.unwell[verb, plural] -= 1
            return _fail(http, 503, "etcdserver: leader changed")
        key = (plural, namespace, name)
        if verb == "patch" and http.headers["Content-Type"] == APPLY:
            return self._apply(http, key, body, query)
        if verb != "list" and key not in self._objects:
            return _fail(http, 404, f'{plural} "{name}" not found')
        if verb == "patch":
            return self._scale(http, key, body, query["fieldManager"])
        if below == "log":
            return self._log(http, name, query)
        if verb == "get":
            return _say(http, 200, self._objects[key])
        items = [
            each
            for (kind, where, _), each in self._objects.items()
            if kind == plural and namespace in ("", where) and _selected(each, query)
        ]
        return _say(http, 200, {"kind": "List", "items": items or None})

    def _apply(
        self,
        http: BaseHTTPRequestHandler,
        key: tuple[str, str, str],
        body: Manifest,
        query: Mapping[str, str],
    ) -> None:
        plural, namespace, name = key
        if namespace and ("namespaces", "", namespace) not in self._objects:
            return _fail(http, 404, f'namespaces "{namespace}" not found')
        refused = self.admission(body)
        if refused:
            return _fail(http, 403, f'{plural} "{name}" is forbidden: {refused}')
        if name in self.invalid:
            return _fail(http, 422, f'{plural} "{name}" is invalid: {self.invalid[name]}')
        manager, wanted = query["fieldManager"], _fields(body)
        old, owned = self._objects.get(key), self._owned.get(key, {})
        conflicts = [
            (path, other)
            for path, value in wanted.items()
            for other, fields in owned.items()
            if other != manager and path in fields and fields[path] != value
        ]
        if conflicts and query["force"] != "true":
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{other}" using {body["apiVersion"]}',
                    "field": "." + ".".join(path),
                }
                for path, other in conflicts
            ]
            message = f"Apply failed with {len(causes)} conflicts"
            return _fail(http, 409, message, {"causes": causes})
        identity = {k: v for k, v in body["metadata"].items() if k in ("name", "namespace")}
        new = copy.deepcopy(old) or {**body, "metadata": identity}
        others = {other: dict(fields) for other, fields in owned.items() if other != manager}
        for path in owned.get(manager, {}):
            if path not in wanted and not any(path in fields for fields in others.values()):
                _remove(new, path)
        for path, value in wanted.items():
            _set(new, path, copy.deepcopy(value))
            for fields in others.values():
                if fields.get(path, value) != value:
                    del fields[path]
        if "dryRun" not in query:
            self._keep(key, new, manager, {**others, manager: wanted})
            self._control(key)
            new = self._objects[key]
            if name in self.vanish and new["kind"] == "Deployment":
                del self._objects[key]
        return _say(http, 200 if old is not None else 201, new)

    def _keep(
        self, key: tuple[str, str, str], new: Manifest, manager: str, owned: dict[str, Fields]
    ) -> None:
        old, self._owned[key] = self._objects.get(key), owned
        if old is not None and _fields(old) == _fields(new):
            return
        self._version += 1
        before = {} if old is None else old["metadata"]
        same = old is not None and old.get("spec") == new.get("spec")
        new["metadata"] = {
            "creationTimestamp": "2026-11-25T00:00:00Z",
            **new["metadata"],
            "generation": before.get("generation", 0) + (not same),
            "resourceVersion": str(self._version),
        }
        self._objects[key] = new
        self.changed.append((manager, f"{new['kind']}/{key[2]}"))

    def _control(self, key: tuple[str, str, str]) -> None:
        """Does what the controllers of Deployments and definitions do, at once."""
        found = self._objects[key]
        if found["kind"] == "CustomResourceDefinition" and self.defines is not None:
            self.kinds[self.defines[0]] = self.defines[1]
            found["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        if found["kind"] == "Deployment":
            replicas = found["spec"].get("replicas", 1)
            found["status"] = {
                **found.get("status", {}),
                "observedGeneration": found["metadata"]["generation"],
                "replicas": replicas,
                "updatedReplicas": replicas,
                "availableReplicas": 0 if key[2] in self.stuck else replicas,
            }

    def _scale(
        self, http: BaseHTTPRequestHandler, key: tuple[str, str, str], body: Manifest, manager: str
    ) -> None:
        self.take(*key, {"spec": {"replicas": body["spec"]["replicas"]}}, manager)
        _say(http, 200, {"kind": "Scale", "spec": body["spec"]})

    def _log(self, http: BaseHTTPRequestHandler, pod: str, query: Mapping[str, str]) -> None:
        self.asked_logs.append(query)
        name = f"{pod} previous" if query.get("previous") == "true" else pod
        if name not in self.logs:
            return _fail(http, 400, f'container "server" in pod "{pod}" is waiting to start')
        http.send_response(200)
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        stamps, told = query.get("timestamps") == "true", 0
        since = query.get("sinceTime", "")
        with self._news:
            ended = self._ended[name]
            while True:
                lines = self.logs.get(name, [])[told:]
                for line in lines[-int(query.get("tailLines", 1000)) :]:
                    if line.partition(" ")[0] < since:
                        continue
                    said = f"{line if stamps else line.partition(' ')[2]}\n".encode()
                    http.wfile.write(f"{len(said):x}\r\n".encode() + said + b"\r\n")
                http.wfile.flush()
                told += len(lines)
                if query.get("follow") != "true" or name not in self.logs:
                    break
                if self._ended[name] > ended:
                    if self._broken:
                        http.close_connection = True
                        return
                    break
                self._news.wait(60)
        http.wfile.write(b"0\r\n\r\n")


def _handler(api: FakeApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet

        def do_GET(self) -> None:
            api.answer(self)

        def do_PATCH(self) -> None:
            api.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _say(http: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    body = json.dumps(content).encode()
    http.send_response(status)
    http.send_header("Content-Type", "application/json")
    http.send_header("Content-Length", str(len(body)))
    http.end_headers()
    http.wfile.write(body)


def _fail(
    http: BaseHTTPRequestHandler, code: int, message: str, details: Manifest | None = None
) -> None:
    _say(http, code, {"kind": "Status", "code": code, "message": message, "details": details})


def _fields(manifest: Manifest) -> Fields:
    """Returns every field that somebody asks for: those that are no mappings."""
    metadata = {name: manifest["metadata"].get(name) for name in ("labels", "annotations")}
    asked = {
        name: value
        for name, value in manifest.items()
        if name not in ("apiVersion", "kind", "metadata", "status")
    }
    if any(metadata.values()):
        asked["metadata"] = {name: value for name, value in metadata.items() if value}
    return dict(_leaves(asked, ())) if asked else {}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from _leaves(inside, (*path, name))
    else:
        yield path, value


def _set(manifest: Manifest, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        manifest = manifest.setdefault(name, {})
    manifest[path[-1]] = value


def _remove(manifest: Manifest, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        manifest = manifest.get(name, {})
    manifest.pop(path[-1], None)


def _selected(each: Manifest, query: Mapping[str, str]) -> bool:
    labels = each["metadata"].get("labels", {})
    wanted = [pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair]
    kind = query.get("fieldSelector", "").removeprefix("type=")
    return all(labels.get(name) == value for name, value in wanted) and kind in (
        "",
        each.get("type"),
    )
