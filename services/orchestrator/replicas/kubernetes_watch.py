"""Watches the EndpointSlices of Services: who is ready now, told within a moment of each change.

Source: Kubernetes API concepts, "Efficient detection of changes": list once, watch from there, list
again when the version one watches from is too old (410).
"""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from kubernetes import client, config, watch

from services.orchestrator.replicas.addresses import OWN_NAMESPACE, ServiceName
from services.orchestrator.replicas.endpoint_slices import SERVICE_LABEL, Slice, ready_addresses

logger = logging.getLogger(__name__)
RESOURCE = "endpointslices.discovery.k8s.io"
WATCH_S = 60  # after which the server ends a watch; the next goes on from there
SILENCE_S = 15  # beyond that before a connection counts as dead
LIST_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
STOP_S = 3.0
GONE, FORBIDDEN = 410, (401, 403)

Told = Callable[[list[str]], None]


def cluster() -> tuple[client.Configuration, str]:
    """Returns how to reach the API server, and the namespace to look in unless another is named.

    In a pod that is its ServiceAccount's token; elsewhere the user's kubeconfig.

    Raises:
        ValueError: there is neither.
    """
    configuration = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            return configuration, OWN_NAMESPACE.read_text().strip()
        file = os.environ.get("KUBECONFIG")
        config.load_kube_config(file, client_configuration=configuration)
        _, active = config.list_kube_config_contexts(file)
        return configuration, active["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise ValueError(
            "discovery: expected the token of a ServiceAccount or a kubeconfig to reach the API "
            f"server of Kubernetes with: {error}; or start with --discovery dns"
        ) from error


def watch_services(services: Mapping[ServiceName, Told]) -> list["KubernetesWatch"]:
    """Starts to watch Services, in a running event loop.

    Args:
        services: What to tell the addresses of each, as `KubernetesWatch` does.

    Returns:
        A watch for each namespace; to be closed.

    Raises:
        ValueError: nothing says how to reach the API server.
    """
    configuration, own = cluster()
    namespaces: dict[str, dict[ServiceName, Told]] = {}
    for service, told in services.items():
        namespaces.setdefault(service.namespace or own, {})[service] = told
    return [
        KubernetesWatch(configuration, namespace, inside)
        for namespace, inside in namespaces.items()
    ]


class KubernetesWatch:
    """Watches the Services of one namespace, in a thread of its own.

    While the API server cannot be reached nothing is told, so that whoever was ready before stays
    known.
    """

    def __init__(
        self,
        configuration: client.Configuration,
        namespace: str,
        services: Mapping[ServiceName, Told],
    ) -> None:
        """Starts to watch, in a running event loop.

        Args:
            configuration: How to reach the API server.
            namespace: Where the Services are.
            services: What to tell the addresses of each; called in the event loop, first when they
                were listed, then whenever they change.
        """
        self._namespace, self._services = namespace, dict(services)
        self._loop = asyncio.get_running_loop()
        self._api = client.DiscoveryV1Api(client.ApiClient(configuration))
        self._selector = f"{SERVICE_LABEL} in ({','.join(sorted(s.name for s in services))})"
        self._slices: dict[str, Slice] = {}
        self._told: dict[ServiceName, list[str]] = {}
        self._version: str | None = None  # to watch from; None: list first
        self._verb, self._problem = "list", ""
        self._watch = watch.Watch()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint slices", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Ends the watch and its thread.

        A thread that cannot be woken, since its connection is stuck, is left behind after STOP_S:
        it tells nothing more, and does not keep the process from ending.
        """
        self._stopped.set()
        end = time.monotonic() + STOP_S
        while self._thread.is_alive() and time.monotonic() < end:
            self._watch.stop()  # again, for it may just have begun to read
            await asyncio.to_thread(self._thread.join, 0.1)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopped.is_set():
            try:
                if self._version is None:
                    self._list()
                self._follow()
            except client.ApiException as error:
                if error.status == GONE and self._version is not None:
                    logger.info("the watch is too old; listing again")
                    self._version = None
                    continue
                self._complain(_explained(error, self._verb, self._namespace))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._complain(f"the API server of Kubernetes cannot be reached: {error}")
            except (ValueError, KeyError, TypeError) as error:
                self._version = None
                self._complain(f"the API server of Kubernetes said what it should not: {error!r}")
            else:
                pause_s = FIRST_PAUSE_S
                continue
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _list(self) -> None:
        self._verb = "list"
        # As JSON: the client's models refuse a slice without endpoints, which has null for them.
        response: Any = self._api.list_namespaced_endpoint_slice(
            self._namespace,
            label_selector=self._selector,
            _preload_content=False,
            _request_timeout=LIST_S,
        )
        _check(response)
        listed = json.loads(response.data)
        self._slices = {each["metadata"]["name"]: each for each in listed["items"] or ()}
        self._version = listed["metadata"]["resourceVersion"]
        self._content()
        self._tell()

    def _follow(self) -> None:
        self._verb = "watch"

        def slices(**arguments: Any) -> Any:  # of no model's type, so that events stay JSON
            response: Any = self._api.list_namespaced_endpoint_slice(self._namespace, **arguments)
            _check(response)
            self._content()
            return response

        for event in self._watch.stream(
            slices,
            label_selector=self._selector,
            resource_version=self._version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _request_timeout=(LIST_S, WATCH_S + SILENCE_S),
        ):
            kind, changed = event["type"], event["object"]
            self._version = changed["metadata"]["resourceVersion"]
            if kind == "DELETED":
                self._slices.pop(changed["metadata"]["name"], None)
            elif kind in ("ADDED", "MODIFIED"):
                self._slices[changed["metadata"]["name"]] = changed
            self._tell()

    def _tell(self) -> None:
        for service, told in self._services.items():
            own = [
                each
                for each in self._slices.values()
                if each["metadata"]["labels"][SERVICE_LABEL] == service.name
            ]
            addresses = ready_addresses(own, service.port)
            if self._told.get(service) != addresses and not self._stopped.is_set():
                self._told[service] = addresses
                self._loop.call_soon_threadsafe(told, addresses)

    def _complain(self, problem: str) -> None:
        """Logs a problem, once for as long as it stays the same."""
        if problem != self._problem and not self._stopped.is_set():
            logger.warning(problem, extra={"known": sum(map(len, self._told.values()))})
            self._problem = problem

    def _content(self) -> None:
        if self._problem:
            logger.info("the API server of Kubernetes answers again")
            self._problem = ""


def _check(response: Any) -> None:
    """Raises an ApiException unless the API server answered OK."""
    if not 200 <= response.status <= 299:
        body = response.data.decode(errors="replace")
        raise client.ApiException(status=response.status, reason=body or response.reason)


def _explained(error: client.ApiException, verb: str, namespace: str) -> str:
    if error.status in FORBIDDEN:
        return (
            f"may not {verb} {RESOURCE} in namespace {namespace} ({error.status}): the account of "
            "this pod needs a Role with list and watch on them, as k8s/components/"
            "kubernetes-discovery gives it, and its token"
        )
    return f"the API server of Kubernetes refused to {verb} {RESOURCE}: {error.status}"
