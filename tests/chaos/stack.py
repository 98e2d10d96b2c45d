"""The system of `muse up` with tiny checkpoints, and a line that faults can cut to every pod."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from services.stages import GATEWAY, ORCHESTRATOR, STAGES
from tests.tcp_line import Line
from tools.local import Restarts, Runner
from tools.local.folders import Folders, compiled_folder
from tools.local.manifest import local_overlay
from tools.local.network import Network
from tools.local.placement import LocalPod, place_pods, scaled
from tools.local.pods import Pod

# `muse up` waits up to five minutes before it starts a pod again that ended often, as kubelet does.
RESTARTS = Restarts(first_s=0.5, max_s=0.5)
GRPC = "grpc"  # name of the port of every pod that takes calls


@dataclass(frozen=True, kw_only=True)
class Target:
    """A pod, and the line by which it is called.

    Attributes:
        pod: The pod.
        line: Line to it: from the orchestrator to a stage, from clients to the orchestrator.
        alone: Whether no other pod does its work.
    """

    pod: Pod
    line: Line
    alone: bool

    @property
    def name(self) -> str:
        """Name of the pod, such as "base-1"."""
        return self.pod.local.name

    @property
    def address(self) -> str:
        """Address of the pod itself, without the line."""
        return self.pod.local.address.endpoint(_port(self.pod.local))


@dataclass(frozen=True, kw_only=True)
class ChaosStack:
    """A running system.

    Attributes:
        runner: Runner of the pods.
        targets: Every pod by its name.
        address: Address of the orchestrator for clients: that of its line.
        log: Log of all pods.
    """

    runner: Runner
    targets: Mapping[str, Target]
    address: str
    log: TextIO


@asynccontextmanager
async def chaos_stack(
    checkpoints: Path,
    log: TextIO,
    *,
    replicas: Mapping[str, int],
    leaks_bytes: Mapping[str, int] | None = None,
) -> AsyncIterator[ChaosStack]:
    """Runs the system; yields once all pods are ready.

    Args:
        checkpoints: Folder with the checkpoint of every stage.
        log: File for the log lines of all pods.
        replicas: Number of pods by stage, where it is not 1.
        leaks_bytes: Bytes that every call of a stage leaks, by the name of its Deployment.

    Raises:
        RuntimeError: a pod does not run.
    """
    overlay = scaled(local_overlay(), replicas).without(GATEWAY)
    async with AsyncExitStack() as stack:
        network = stack.enter_context(Network())
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muse-chaos-")))
        pods = place_pods(overlay, network, Folders(checkpoints, compiled_folder(own), own))
        lines = {}
        for pod in pods:
            line = lines[pod.name] = Line(_port(pod), pod.address.host)
            await line.restore()
            stack.push_async_callback(line.cut)
        pods = [_leaking(_called_by_lines(pod, pods, lines), leaks_bytes or {}) for pod in pods]
        runner = Runner(overlay, pods, log, restarts=RESTARTS, pre_stop=False)
        stack.push_async_callback(asyncio.to_thread, runner.stop)
        runner.start()
        while not all(pod.ready for pod in runner.pods):
            runner.check()
            await asyncio.sleep(0.1)
        numbers = {each.name: each.replicas for each in overlay.deployments}
        targets = {
            pod.local.name: Target(
                pod=pod,
                line=lines[pod.local.name],
                alone=numbers[pod.local.deployment.name] == 1,
            )
            for pod in runner.pods
        }
        address = f"127.0.0.1:{lines[f'{ORCHESTRATOR}-0'].port}"
        yield ChaosStack(runner=runner, targets=targets, address=address, log=log)


def _port(pod: LocalPod) -> int:
    return pod.address.ports[pod.deployment.ports[GRPC]]


def _called_by_lines(pod: LocalPod, pods: list[LocalPod], lines: Mapping[str, Line]) -> LocalPod:
    """Returns a pod that calls stages by their lines: the orchestrator; stages call no server."""
    if pod.deployment.name != ORCHESTRATOR:
        return pod
    stages = {
        f"MUSE_{name.upper()}": ",".join(
            f"127.0.0.1:{lines[each.name].port}"
            for each in pods
            if each.deployment.name == stage.deployment
        )
        for name, stage in STAGES.items()
    }
    return replace(pod, environment={**pod.environment, **stages})


def _leaking(pod: LocalPod, leaks_bytes: Mapping[str, int]) -> LocalPod:
    """Returns a pod whose server leaks, if it should: see `tests.chaos.leaking`."""
    leaked = leaks_bytes.get(pod.deployment.name, 0)
    if not leaked:
        return pod
    python, _, server, *flags = pod.command  # python -m services.NAME ...
    command = (python, "-m", "tests.chaos.leaking", str(leaked), server, *flags)
    return replace(pod, command=command)
