"""The runner of an overlay's pods: an event loop in a thread, from start to stop."""

import asyncio
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from muse_client import Tls

from services.runtime.observability.logs import JsonFormatter
from services.stages import GATEWAY, ORCHESTRATOR
from tools.local.certificates import LocalAuthority
from tools.local.folders import Folders, check_checkpoints, compiled_folder, has_superres
from tools.local.forwarding import Forward, listen
from tools.local.gateway import check_gateway, set_up
from tools.local.manifest import Overlay, Service, local_overlay
from tools.local.network import Network
from tools.local.placement import Flags, LocalPod, place_pods, scaled, without_superres
from tools.local.pods import KUBELET, Pod, PodError, Restarts
from tools.local.readable_log import readable

PAUSE_S = 0.1
PROBES_AT_ONCE = 32


class Runner:
    """Runner of the pods of an overlay, which are in its order."""

    def __init__(
        self,
        overlay: Overlay,
        pods: Sequence[LocalPod],
        log: TextIO,
        *,
        base_port: int | None = None,
        gateway_port: int | None = None,
        restarts: Restarts = KUBELET,
        pre_stop: bool = True,
    ) -> None:
        """Creates a runner of translated pods; `start` starts them. See `local_stack`.

        Raises:
            ValueError: base_port leaves no valid ports for the other Services.
        """
        self._overlay, self._log, self._formatter = overlay, log, JsonFormatter("muse.up")
        self.pods = []
        for each in pods:
            log_event = partial(self._log_event, each)
            pod = Pod(each, self._write, log_event, restarts=restarts, pre_stop=pre_stop)
            self.pods.append(pod)
        self._ports = forwarded_ports(overlay, base_port, gateway_port)
        self._forwards: list[Forward] = []
        self._problem: str | None = None
        self._lost_lines = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = threading.Event()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pods")

    @property
    def address(self) -> str:
        """Address of the orchestrator's first pod."""
        return self.addresses(ORCHESTRATOR)[0]

    @property
    def tls(self) -> Tls | None:
        """TLS to call the pods with; None if they speak plain text."""
        return self.pods[0].local.tls

    def addresses(self, name: str, *, ready: bool = False) -> list[str]:
        """Returns the addresses of all or of the ready pods behind a Service's first port."""
        service = next(each for each in self._overlay.services if each.name == name)
        return self._addresses(service, next(iter(service.ports)), ready=ready)

    def start(self) -> None:
        """Starts all pods.

        Raises:
            RuntimeError: a port is in use.
        """
        listening = listen(self._ports)
        for each, (service, port) in zip(listening, self._ports.values(), strict=True):
            ready = partial(self._addresses, service, port, ready=True)
            self._forwards.append(Forward(each, ready))
        self._thread.start()
        self._begun.wait()

    def wait_until_ready(self) -> None:
        """Waits until every pod is ready.

        Raises:
            RuntimeError: a pod does not run.
        """
        while not all(pod.ready for pod in self.pods):
            self.check()
            time.sleep(PAUSE_S)

    def check(self) -> None:
        """Raises the problem of a pod that does not run.

        Raises:
            RuntimeError: a pod does not run, so all pods were ended.
        """
        if self._problem is not None:
            raise RuntimeError(self._problem)

    def stop(self) -> None:
        """Ends all pods concurrently; a further Ctrl-C kills them. Does nothing before `start`."""
        if self._thread.ident is None:
            return
        try:
            self._call(self._ending.set)
            self._thread.join()
        except KeyboardInterrupt:
            for pod in self.pods:
                self._call(pod.kill)
            self._thread.join()
            raise

    def _call(self, what: Callable[[], None]) -> None:
        self._begun.wait()
        if self._loop is None:  # the thread failed to start its loop
            return
        with suppress(RuntimeError):  # the loop is closed: all have ended
            self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        try:
            asyncio.run(self._run_pods())
        except BaseException as error:
            self._problem = f"the runner failed: {error!r}"
            raise
        finally:
            self._begun.set()

    async def _run_pods(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(PROBES_AT_ONCE, "probe"))
        for forward in self._forwards:
            await forward.start()
        self._begun.set()
        async with asyncio.TaskGroup() as group:
            for pod in self.pods:
                group.create_task(self._run_pod(pod))
            await self._ending.wait()
            for forward in self._forwards:
                forward.refuse()
            for pod in self.pods:
                pod.end()
        for forward in self._forwards:
            await forward.close()

    async def _run_pod(self, pod: Pod) -> None:
        try:
            await pod.run()
        except (PodError, OSError) as error:
            if self._problem is None:
                self._problem = str(error)
            for each in self.pods:
                each.end(pre_stop=False)

    def _addresses(self, service: Service, port: int, *, ready: bool) -> list[str]:
        deployments = self._overlay.pods_of(service)
        return [
            pod.local.address.endpoint(service.container_port(port, pod.local.deployment))
            for pod in self.pods
            if pod.local.deployment in deployments and (pod.ready or not ready)
        ]

    def _write(self, line: str) -> None:
        """Writes a line to the log, for people if that is a terminal.

        Pods run on if the disk of the log is full.
        """
        try:
            self._log.write(readable(line) if self._log.isatty() else line)
            self._log.flush()
        except OSError as error:
            if not self._lost_lines:
                with suppress(OSError):  # standard error may be the log
                    print(f"muse: lines of log are lost: {error.strerror}", file=sys.stderr)
            self._lost_lines += 1

    def _log_event(self, pod: LocalPod, message: str, **fields: Any) -> None:
        record = logging.LogRecord(__name__, logging.INFO, "", 0, message, None, None)
        vars(record).update(pod=pod.name, **fields)
        self._write(self._formatter.format(record) + "\n")


def forwarded_ports(
    overlay: Overlay, base_port: int | None, gateway_port: int | None = None
) -> dict[int, tuple[Service, int]]:
    """Returns the Service and its port behind each forwarded port of 127.0.0.1.

    The orchestrator is on `base_port`, the stages at the overlay's offsets from it, and the gateway
    on `gateway_port`; None forwards none of them.

    Raises:
        ValueError: a port would be out of range, or another's.
    """
    forwarded = {} if base_port is None else _ports_from(overlay, base_port)
    if gateway_port is not None:
        if not 1 <= gateway_port <= 65535 or gateway_port in forwarded:
            taken = f" except {sorted(forwarded)}" if forwarded else ""
            raise ValueError(f"gateway_port: expected 1 to 65535{taken}, got {gateway_port}")
        gateway = next(each for each in overlay.services if each.name == GATEWAY)
        forwarded[gateway_port] = (gateway, next(iter(gateway.ports)))
    return forwarded


def _ports_from(overlay: Overlay, base_port: int) -> dict[int, tuple[Service, int]]:
    services = overlay.without(GATEWAY).services
    own = [(each, port) for each in services for port in each.ports]
    first = next(port for service, port in own if service.name == ORCHESTRATOR)
    offsets = [port - first for _, port in own]
    least, most = 1 - min(offsets), 65535 - max(offsets)
    if not least <= base_port <= most:
        raise ValueError(f"base_port: expected {least} to {most}, got {base_port}")
    return {base_port + offset: each for offset, each in zip(offsets, own, strict=True)}


@contextmanager
def running(runner: Runner) -> Iterator[Runner]:
    """Runs a runner for the block, and yields it once all pods are ready.

    Raises:
        RuntimeError: a pod does not run, or a port is in use.
    """
    try:
        runner.start()
        runner.wait_until_ready()
        yield runner
    finally:
        runner.stop()


@contextmanager
def local_stack(
    checkpoints: Path,
    log: TextIO,
    *,
    flags: Flags | None = None,
    replicas: Mapping[str, int] | None = None,
    base_port: int | None = None,
    gateway_port: int | None = None,
    pre_stop: bool = False,
    tls: bool = False,
) -> Iterator[Runner]:
    """Runs k8s/overlays/local-cpu on this machine; yields its runner once all pods are ready.

    Args:
        checkpoints: Folder with the checkpoint of every stage; no superres runs if it has neither
            that nor the tokenizer of its tokens.
        log: File for the log lines of all pods and for their events.
        flags: Additional flags by name of the Deployment.
        replicas: Numbers of pods that differ from the manifests.
        base_port: Port of 127.0.0.1 for the orchestrator; see `forwarded_ports`. None forwards no
            ports.
        gateway_port: Port of 127.0.0.1 for HTTP, beside `base_port`. None runs no gateway.
        pre_stop: Whether the preStop sleep runs before SIGTERM, for clients that still call.
        tls: Whether the pods speak TLS, with certificates that are made for this run.

    Raises:
        FileNotFoundError: a stage has no checkpoint.
        ValueError: a number of pods or a port is out of range, or the gateway lacks something.
        RuntimeError: a pod does not run, or a port is in use.
    """
    overlay = local_overlay()
    if not has_superres(checkpoints):
        overlay = without_superres(overlay)
    overlay = scaled(overlay, replicas or {})
    if base_port is None or gateway_port is None:
        overlay, gateway_port = overlay.without(GATEWAY), None
    else:
        check_gateway()
    forwarded_ports(overlay, base_port, gateway_port)
    check_checkpoints(checkpoints)
    with Network() as network, tempfile.TemporaryDirectory(prefix="muse-pods-") as own:
        folders = Folders(checkpoints, compiled_folder(Path(own)), Path(own))
        pods = place_pods(overlay, network, folders, flags)
        if base_port is not None:
            pods = [set_up(each, base_port, Path(own) / "jobs") for each in pods]
        if tls:
            authority = LocalAuthority(Path(own) / "tls")
            pods = [authority.secured(each) for each in pods]
        runner = Runner(
            overlay, pods, log, base_port=base_port, gateway_port=gateway_port, pre_stop=pre_stop
        )
        with running(runner):
            yield runner
