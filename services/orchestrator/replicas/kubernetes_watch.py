"""A watch of Services' EndpointSlices, which reports the ready addresses at each change.

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
WATCH_S = 60  # after which the server ends a watch, and the next one continues
SILENCE_S = 15  # longer than WATCH_S, after which a connection counts as dead
LIST_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
STOP_S = 3.0
GONE, FORBIDDEN = 410, (401, 403)

AddressCallback = Callable[[list[str]], None]


def cluster() -> tuple[client.Configuration, str]:
    """Returns the configuration of the API server, and the default namespace.

    A pod uses the token of its ServiceAccount, any other process the user's kubeconfig.

    Raises:
        ValueError: there is neither a token nor a kubeconfig.
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


def watch_services(services: Mapping[ServiceName, AddressCallback]) -> list["KubernetesWatch"]:
    """Starts to watch Services, one watch a namespace; needs a running event loop.

    The caller closes the watches.

    Raises:
        ValueError: there is neither a token nor a kubeconfig.
    """
    configuration, own = cluster()
    namespaces: dict[str, dict[ServiceName, AddressCallback]] = {}
    for service, callback in services.items():
        namespaces.setdefault(service.namespace or own, {})[service] = callback
    return [
        KubernetesWatch(configuration, namespace, inside)
        for namespace, inside in namespaces.items()
    ]


class KubernetesWatch:
    """A watch of the Services of one namespace, in a thread of its own.

    While the API server cannot be reached, no callback runs, so the last known addresses stay.
    """

    def __init__(
        self,
        configuration: client.Configuration,
        namespace: str,
        services: Mapping[ServiceName, AddressCallback],
    ) -> None:
        """Starts to watch; needs a running event loop.

        Each Service's callback runs in the event loop, after the first list and each change.
        """
        self._namespace, self._services = namespace, dict(services)
        self._loop = asyncio.get_running_loop()
        self._api = client.DiscoveryV1Api(client.ApiClient(configuration))
        self._selector = f"{SERVICE_LABEL} in ({','.join(sorted(s.name for s in services))})"
        self._slices: dict[str, Slice] = {}
        self._reported: dict[ServiceName, list[str]] = {}
        self._version: str | None = None  # version to watch from; None to list first
        self._verb, self._problem = "list", ""
        self._watch = watch.Watch()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint slices", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Ends the watch and its thread.

        A thread whose connection hangs is left behind after STOP_S: it runs no more callbacks, and
        as a daemon does not keep the process alive.
        """
        self._stopped.set()
        end = time.monotonic() + STOP_S
        while self._thread.is_alive() and time.monotonic() < end:
            self._watch.stop()  # repeatedly, since the thread may just have started to read
            await asyncio.to_thread(self._thread.join, 0.1)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopped.is_set():
            try:
                if self._version is None:
                    self._list()
                self._stream()
            except client.ApiException as error:
                if error.status == GONE and self._version is not None:
                    logger.info("the watch is too old; listing again")
                    self._version = None
                    continue
                self._log_problem(_explained(error, self._verb, self._namespace))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._log_problem(f"the API server of Kubernetes cannot be reached: {error}")
            except (ValueError, KeyError, TypeError) as error:
                self._version = None
                self._log_problem(
                    f"the API server of Kubernetes sent an unexpected answer: {error!r}"
                )
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
        self._log_recovery()
        self._report()

    def _stream(self) -> None:
        self._verb = "watch"

        def slices(**arguments: Any) -> Any:  # no model type, so that events stay JSON
            response: Any = self._api.list_namespaced_endpoint_slice(self._namespace, **arguments)
            _check(response)
            self._log_recovery()
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
            self._report()

    def _report(self) -> None:
        for service, callback in self._services.items():
            own = [
                each
                for each in self._slices.values()
                if each["metadata"]["labels"][SERVICE_LABEL] == service.name
            ]
            addresses = ready_addresses(own, service.port)
            if self._reported.get(service) != addresses and not self._stopped.is_set():
                self._reported[service] = addresses
                self._loop.call_soon_threadsafe(callback, addresses)

    def _log_problem(self, problem: str) -> None:
        """Logs a problem once while it stays the same."""
        if problem != self._problem and not self._stopped.is_set():
            logger.warning(problem, extra={"known": sum(map(len, self._reported.values()))})
            self._problem = problem

    def _log_recovery(self) -> None:
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
