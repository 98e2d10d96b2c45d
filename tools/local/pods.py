"""One pod as one process, which is started, probed, restarted and ended as by kubelet."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from json import JSONDecodeError, loads

from tools.local.manifest import Probe
from tools.local.placement import LocalPod
from tools.local.probes import passes

EAGER_S = 0.2  # between two probes until a container was ready
MAX_LINE_BYTES = 2**16  # of a line of log; the servers write shorter ones
LEAST_GRACE_S = 2.0  # between SIGTERM and SIGKILL, however long preStop took


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """Policy of restarting a container that ended.

    Attributes:
        first_s: Delay of the second restart; the first is immediate, and each further delay
            doubles.
        max_s: Largest delay.
        reset_after_s: Running time after which the delay starts over.
        max_starts: Starts after which a pod that was never ready ends the runner.
    """

    first_s: float = 10.0
    max_s: float = 300.0
    reset_after_s: float = 600.0
    max_starts: int = 3

    def wait_s(self, ended: int) -> float:
        """Returns the delay of a restart after a number of ends in a row."""
        doublings = min(ended - 2, 64)  # a float has a largest exponent
        return 0.0 if ended < 2 else min(self.max_s, self.first_s * 2.0**doublings)


KUBELET = Restarts()


class PodError(Exception):
    """A pod that does not run, however often it is started; the message says why."""


class Pod:
    """One pod and its current process.

    Attributes:
        local: Command, environment and address of the pod.
        ready: Whether the pod gets calls.
        ready_after_s: Seconds from the first start until the pod was ready; None before.
        restarts: Number of restarts.
        pid: Process id; None without a process.
    """

    def __init__(
        self,
        local: LocalPod,
        write: Callable[[str], None],
        log_event: Callable[..., None],
        *,
        restarts: Restarts,
        pre_stop: bool,
    ) -> None:
        """Creates a pod, of which functions write lines and events; `run` starts its process."""
        self.local, self.ready, self.restarts = local, False, 0
        self.ready_after_s: float | None = None
        self._write, self._log_event = write, log_event
        self._policy, self._pre_stop = restarts, pre_stop
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=1)
        self._begun_s = 0.0

    @property
    def pid(self) -> int | None:
        """Process id; None without a process."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def end(self, *, pre_stop: bool = True) -> None:
        """Begins to end the pod: preStop sleep, SIGTERM, and SIGKILL after the grace period."""
        self._pre_stop = self._pre_stop and pre_stop
        self._ending.set()

    def kill(self) -> None:
        """Kills the pod's process group at once."""
        self._ending.set()
        self._kill_group()

    def _kill_group(self) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(pid, signal.SIGKILL)

    async def run(self) -> None:
        """Runs the pod, with restarts, until `end` or `kill`.

        Raises:
            PodError: the pod ended by itself, or too often, before it was ever ready.
        """
        loop, ended = asyncio.get_running_loop(), 0
        self._begun_s = loop.time()
        while not self._ending.is_set():
            since_s = loop.time()
            unhealthy = await self._run_container()
            if self._ending.is_set():
                return
            ended = 1 if loop.time() - since_s >= self._policy.reset_after_s else ended + 1
            assert self._process is not None
            end = self._end(self._process.returncode)
            if self.ready_after_s is None:
                if not unhealthy and (self._process.returncode or 0) >= 0:
                    raise PodError(end)  # it would every time: a wrong setting, no checkpoint
                if ended >= self._policy.max_starts:
                    times = f"{self.local.name} was started {ended} times"
                    raise PodError(f"{times}, never ready: {unhealthy or end}")
            wait_s = self._policy.wait_s(ended)
            self._log_event("restarting", after=unhealthy or end, back_off_s=wait_s)
            try:
                await asyncio.wait_for(self._ending.wait(), wait_s)
            except TimeoutError:
                self.restarts += 1

    def _end(self, returncode: int | None) -> str:
        """Returns how the process ended, with the message of its last log line."""
        last = self._last_words[-1] if self._last_words else "it said nothing"
        with suppress(JSONDecodeError, KeyError, TypeError):  # any other line stays as it is
            last = str(loads(last)["message"])
        return f"{self.local.name} died with {returncode}: {last}"

    async def _run_container(self) -> str:
        """Runs one process to its end; returns the failed probe, or "" if it ended by itself."""
        self._last_words.clear()
        process = self._process = await asyncio.create_subprocess_exec(
            *self.local.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.local.environment),
            start_new_session=True,  # Ctrl-C reaches the runner only, which ends the pods
        )
        self._log_event("started", pid=process.pid)
        assert process.stdout is not None
        copying = asyncio.create_task(self._copy(process.stdout))
        exited = asyncio.create_task(process.wait())
        watching = asyncio.create_task(self._watch())
        ending = asyncio.create_task(self._ending.wait())
        unhealthy = ""
        try:
            await asyncio.wait({exited, watching, ending}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not exited.done():
                unhealthy = watching.result()
                self._log_event("unhealthy", reason=unhealthy)
            await self._terminate(exited)
        finally:
            for task in (watching, ending):
                task.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
            self._kill_group()
            await exited
            self._set_ready(False)
            await asyncio.wait({copying}, timeout=1)  # a child process may hold the pipe open
            copying.cancel()
        return unhealthy

    async def _terminate(self, exited: asyncio.Task[int]) -> None:
        if exited.done():
            return
        assert self._process is not None
        deployment, loop = self.local.deployment, asyncio.get_running_loop()
        deadline_s = loop.time() + deployment.grace_s
        if self._pre_stop and deployment.pre_stop_s:
            self._log_event("preStop", seconds=deployment.pre_stop_s)
            pause_s = min(deployment.pre_stop_s, deployment.grace_s)
            await asyncio.wait({exited}, timeout=pause_s)
        if not exited.done():
            with suppress(ProcessLookupError):  # it has just ended
                self._process.terminate()
            left_s = max(LEAST_GRACE_S, deadline_s - loop.time())
            await asyncio.wait({exited}, timeout=left_s)
        if not exited.done():
            self._log_event("killed", grace_s=deployment.grace_s)
            self._kill_group()
            await asyncio.wait({exited})

    async def _copy(self, stream: asyncio.StreamReader) -> None:
        """Copies lines; of a longer one the first `MAX_LINE_BYTES`."""
        line = b""
        while chunk := await stream.read(2**16):
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                self._log_line(line + end[: MAX_LINE_BYTES - len(line)])
                line = b""
            line += rest[: MAX_LINE_BYTES - len(line)]
        self._log_line(line)

    def _log_line(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if text.strip():
            self._last_words.append(text.strip())
            self._write(text + "\n")

    async def _watch(self) -> str:
        """Probes the container until a probe fails; returns which one."""
        deployment = self.local.deployment
        if (startup := deployment.startup) is not None:
            deadline_s = asyncio.get_running_loop().time() + startup.delay_s
            deadline_s += startup.failures * startup.period_s
            await asyncio.sleep(startup.delay_s)
            while not await self._probe(startup):
                if asyncio.get_running_loop().time() >= deadline_s:
                    return f"the startup probe has failed {startup.failures} times"
                await asyncio.sleep(min(EAGER_S, startup.period_s))
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow_readiness(deployment.readiness))
            if (liveness := deployment.liveness) is None:
                await asyncio.Event().wait()
            assert liveness is not None
            await asyncio.sleep(liveness.delay_s)
            failures = 0 if await self._probe(liveness) else 1
            while failures < liveness.failures:
                await asyncio.sleep(liveness.period_s)
                failures = 0 if await self._probe(liveness) else failures + 1
            following.cancel()
        return f"the liveness probe has failed {failures} times"

    async def _follow_readiness(self, probe: Probe | None) -> None:
        if probe is None:
            self._set_ready(True)
            return
        await asyncio.sleep(probe.delay_s)
        row, was_ready = 0, False  # equal answers in a row; negative for failures
        while True:
            answer = await self._probe(probe)
            row = max(row, 0) + 1 if answer else min(row, 0) - 1
            if row >= probe.successes:
                self._set_ready(True)
                was_ready = True
            elif row <= -probe.failures:
                self._set_ready(False)
            await asyncio.sleep(probe.period_s if was_ready else min(EAGER_S, probe.period_s))

    async def _probe(self, probe: Probe) -> bool:
        address = self.local.address.endpoint(probe.port)
        return await asyncio.to_thread(passes, probe, address, self.local.tls)

    def _set_ready(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        if ready and self.ready_after_s is None:
            self.ready_after_s = asyncio.get_running_loop().time() - self._begun_s
        address = self.local.address
        message, ports = "ready" if ready else "not ready", list(address.ports.values())
        self._log_event(message, host=address.host, ports=ports)
