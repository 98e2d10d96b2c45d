"""One pod as one process: started, asked for its health, restarted and ended as kubelet does it."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import Any

from tools.local.manifest import Probe
from tools.local.placement import Placed
from tools.local.probes import serving

EAGER_S = 0.2  # between two questions before a container was ready: nobody waits for a period
LEAST_GRACE_S = 2.0  # between SIGTERM and SIGKILL, however long preStop took


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """When a container that ended is started again.

    Attributes:
        first_s: Wait before the second restart; the first is at once, each further one waits
            twice as long.
        most_s: The longest wait.
        forgiven_s: Who ran this long begins anew.
        starts: A pod that ended this often and never was ready ends everything.
    """

    first_s: float = 10.0
    most_s: float = 300.0
    forgiven_s: float = 600.0
    starts: int = 3

    def wait_s(self, ended: int) -> float:
        """Returns the wait before a restart, after so many ends in a row."""
        doublings = min(ended - 2, 64)  # a number of any size would not do for a float
        return 0.0 if ended < 2 else min(self.most_s, self.first_s * 2.0**doublings)


KUBELET = Restarts()


class PodError(Exception):
    """A pod that will not run, however often it is started; the message says why."""


class Pod:
    """One pod, and the process it has at the moment.

    Attributes:
        placed: Where and how it runs.
        ready: Whether calls may go to it.
        ready_after_s: Seconds from its first start until it was ready, once it was.
        restarts: How often its container was started again.
        pid: Of its process, None while it has none.
    """

    def __init__(
        self,
        placed: Placed,
        write: Callable[[str], None],
        say: Callable[..., None],
        *,
        restarts: Restarts,
        pre_stop: bool,
    ) -> None:
        """Starts nothing yet.

        Args:
            placed: Where and how it runs.
            write: Takes each line that it logs.
            say: Takes what happens to it, as a message and fields.
            restarts: When it is started again.
            pre_stop: Whether it sleeps before it is told to end.
        """
        self.placed = placed
        self.ready = False
        self.ready_after_s: float | None = None
        self.restarts = 0
        self._write, self._say = write, say
        self._policy, self._pre_stop = restarts, pre_stop
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=1)
        self._begun_s = 0.0

    @property
    def pid(self) -> int | None:
        """Of its process, None while it has none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def end(self, *, pre_stop: bool = True) -> None:
        """Has it ended: preStop if it is to be, SIGTERM, and SIGKILL after its grace."""
        self._pre_stop = self._pre_stop and pre_stop
        self._ending.set()

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        self._ending.set()
        self._kill_group()

    def _kill_group(self) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(pid, signal.SIGKILL)

    async def run(self) -> None:
        """Runs it until it is told to end.

        Raises:
            PodError: it ends by itself, or again and again, before it was ever ready.
        """
        loop, ended = asyncio.get_running_loop(), 0
        self._begun_s = loop.time()
        while not self._ending.is_set():
            since_s = loop.time()
            unhealthy = await self._run_container()
            if self._ending.is_set():
                return
            ended = 1 if loop.time() - since_s >= self._policy.forgiven_s else ended + 1
            self._check_start(ended, unhealthy)
            wait_s = self._policy.wait_s(ended)
            self._say("restarting", after=unhealthy or self._end(), back_off_s=wait_s)
            try:
                await asyncio.wait_for(self._ending.wait(), wait_s)
            except TimeoutError:
                self.restarts += 1

    def _check_start(self, ended: int, unhealthy: str) -> None:
        if self.ready_after_s is not None:
            return
        assert self._process is not None
        by_itself = not unhealthy and (self._process.returncode or 0) >= 0
        if by_itself:  # as it would every time: a wrong setting, a checkpoint that is not there
            raise PodError(self._end())
        if ended >= self._policy.starts:
            why = unhealthy or self._end()
            raise PodError(f"{self.placed.name} was started {ended} times, never ready: {why}")

    def _end(self) -> str:
        assert self._process is not None
        last = self._last_words[-1] if self._last_words else "it said nothing"
        return f"{self.placed.name} died with {self._process.returncode}: {_message(last)}"

    async def _run_container(self) -> str:
        """Runs one process until it has ended; returns why it was ended, "" if it did so itself."""
        self._last_words.clear()
        process = self._process = await asyncio.create_subprocess_exec(
            *self.placed.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.placed.environment),
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends them
        )
        self._say("started", pid=process.pid)
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
                self._say("unhealthy", reason=unhealthy)
            await self._terminate(exited)
        finally:
            for task in (watching, ending):
                task.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
            self._kill_group()
            await exited
            self._set_ready(False)
            await asyncio.wait({copying}, timeout=1)  # a child of its may have it open
            copying.cancel()
        return unhealthy

    async def _terminate(self, exited: asyncio.Task[int]) -> None:
        if exited.done():
            return
        assert self._process is not None
        deployment, loop = self.placed.deployment, asyncio.get_running_loop()
        deadline_s = loop.time() + deployment.grace_s
        if self._pre_stop and deployment.pre_stop_s:
            self._say("preStop", seconds=deployment.pre_stop_s)
            pause_s = min(deployment.pre_stop_s, deployment.grace_s)
            await asyncio.wait({exited}, timeout=pause_s)
        if not exited.done():
            with suppress(ProcessLookupError):  # it has just ended
                self._process.terminate()
            left_s = max(LEAST_GRACE_S, deadline_s - loop.time())
            await asyncio.wait({exited}, timeout=left_s)
        if not exited.done():
            self._say("killed", grace_s=deployment.grace_s)
            self._kill_group()
            await asyncio.wait({exited})

    async def _copy(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(2**16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._heard(line)
        self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if text.strip():
            self._last_words.append(text.strip())
            self._write(text + "\n")

    async def _watch(self) -> str:
        """Asks for its health until it has to be restarted; returns why."""
        deployment = self.placed.deployment
        if deployment.startup is not None and not await self._starts(deployment.startup):
            return f"the startup probe has failed {deployment.startup.failures} times"
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow_readiness(deployment.readiness))
            await self._while_alive(deployment.liveness)
            following.cancel()
        assert deployment.liveness is not None
        return f"the liveness probe has failed {deployment.liveness.failures} times"

    async def _starts(self, probe: Probe) -> bool:
        """Waits for a container to start; returns whether it did in the time that it has."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + probe.delay_s + probe.failures * probe.period_s
        await asyncio.sleep(probe.delay_s)
        while not await self._asked(probe):
            if loop.time() >= deadline_s:
                return False
            await asyncio.sleep(min(EAGER_S, probe.period_s))
        return True

    async def _follow_readiness(self, probe: Probe | None) -> None:
        if probe is None:
            self._set_ready(True)
            return
        await asyncio.sleep(probe.delay_s)
        row, was_ready = 0, False  # answers of one kind in a row, failures below 0
        while True:
            answer = await self._asked(probe)
            row = max(row, 0) + 1 if answer else min(row, 0) - 1
            if row >= probe.successes:
                self._set_ready(True)
                was_ready = True
            elif row <= -probe.failures:
                self._set_ready(False)
            await asyncio.sleep(probe.period_s if was_ready else min(EAGER_S, probe.period_s))

    async def _while_alive(self, probe: Probe | None) -> None:
        if probe is None:
            await asyncio.Event().wait()
            return
        await asyncio.sleep(probe.delay_s)
        failures = 0
        while True:
            failures = 0 if await self._asked(probe) else failures + 1
            if failures >= probe.failures:
                return
            await asyncio.sleep(probe.period_s)

    async def _asked(self, probe: Probe) -> bool:
        address = self.placed.place.address(probe.port)
        return await asyncio.to_thread(serving, address, probe.service, probe.timeout_s)

    def _set_ready(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        if ready and self.ready_after_s is None:
            self.ready_after_s = asyncio.get_running_loop().time() - self._begun_s
        place: dict[str, Any] = {"host": self.placed.place.host, "ports": [
            *self.placed.place.ports.values()]}  # fmt: skip
        self._say("ready" if ready else "not ready", **place)


def _message(line: str) -> str:
    """Returns what a line of log says, without its JSON."""
    try:
        return str(loads(line)["message"])
    except (JSONDecodeError, KeyError, TypeError):
        return line
