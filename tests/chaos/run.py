"""One run: the system under load and faults, and the checks of what was recorded."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from muse_client import AsyncMuseClient

from tests.chaos import checks
from tests.chaos.faults import KINDS, NothingToHit, PlannedFault, planned_faults
from tests.chaos.load import Load
from tests.chaos.pictures import Quiet, Request, mixed_requests, quiet_run
from tests.chaos.records import Fault, Violation
from tests.chaos.report import Report, summary
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.watching import Watch, problem_of, stage_loads
from tests.tiny_checkpoints import write_tiny_checkpoints
from tools.local.placement import parse_replicas

SETTLE_S = 2.0  # between a healing and the next fault
PAUSE_S = 0.25
HEAL_PATIENCE = 4.0  # times the limit that the run waits for a healing, to see how long it takes
END_PATIENCE_S = 60.0  # for slots to be free, and processes to be gone, on a busy machine
MOST_WORKERS = 4  # processes in which an orchestrator decodes picture files
LEAKING = "text-encoder"  # takes one call of every request


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        minutes: Time under load and faults, without the start and the quiet run.
        seed: Seed of faults, requests and cancels.
        rate: Requests a second.
        cancels: Requests that are cancelled at random times, spread evenly over the run.
        kinds: Kinds of faults.
        longest_s: Longest time in seconds that a fault lasts.
        max_faults: Number of faults after which no more come; None for no limit.
        replicas: Numbers of pods of stages, such as "base=2"; the orchestrator has one.
        heal_s: Seconds within which all must be well after a fault.
        warm_up_s: Seconds from the readiness of each process that the checks of memory and
            descriptors leave out.
        growth_mib: Largest growth of a process's memory, in MiB.
        growth_descriptors: Largest growth of a process's file descriptors.
        checkpoints: Folder with the checkpoint of every stage; by default random ones of the preset
            tiny, which are made for the run.
        plant_leak: KiB that the text encoder leaks with each call, so that the memory check must
            catch it; 0 for a system as it is.
        out: Folder for report.jsonl and pods.log.
    """

    minutes: float = 30.0
    seed: int = 0
    rate: float = 1.0
    cancels: int = 0
    kinds: tuple[str, ...] = tuple(KINDS)
    longest_s: float = 20.0
    max_faults: int | None = None
    replicas: tuple[str, ...] = ("text-encoder=2", "tokenizer=2", "base=2", "superres=2")
    heal_s: float = 30.0
    warm_up_s: float = 60.0
    growth_mib: float = 32.0
    growth_descriptors: int = 16
    checkpoints: Path | None = None
    plant_leak: int = 0
    out: Path = Path("out/chaos")

    def __post_init__(self) -> None:
        positive = ("minutes", "rate", "longest_s", "heal_s", "growth_mib")
        for name, least in {**dict.fromkeys(positive, 1e-9), "cancels": 0, "plant_leak": 0}.items():
            value = getattr(self, name)
            if not least <= value < float("inf"):
                expected = "0 or more" if least == 0 else "a number above 0"
                raise ValueError(f"{name}: expected {expected}, got {value}")
        if not set(self.kinds) <= KINDS.keys():
            raise ValueError(f"kinds: expected some of {list(KINDS)}, got {list(self.kinds)}")
        if parse_replicas(self.replicas).get("orchestrator", 1) != 1:
            raise ValueError("replicas: expected one orchestrator, which clients call by one line")

    @property
    def seconds(self) -> float:
        """Time under load and faults in seconds."""
        return 60 * self.minutes


class Run:
    """A run against a stack, with what it records."""

    def __init__(
        self,
        settings: RunSettings,
        stack: ChaosStack,
        client: AsyncMuseClient,
        report: Report,
        requests: Sequence[Request],
        quiet: dict[str, Quiet],
    ) -> None:
        """Starts the clock of the run."""
        begun_s = time.monotonic()
        self.faults: list[Fault] = []
        self.watch = Watch(stack)
        self.load = Load(client, requests, quiet, seed=settings.seed, begun_s=begun_s)
        self._settings, self._stack, self._client = settings, stack, client
        self._report, self._canary, self._quiet = report, requests[0], quiet

    async def under_faults(self) -> None:
        """Runs load and faults for the time of the run, and awaits all requests."""
        settings, ending = self._settings, asyncio.Event()
        async with asyncio.TaskGroup() as watching:
            sampling = watching.create_task(self._sample_steadily())
            async with asyncio.TaskGroup() as calling:
                calling.create_task(self.load.send_steadily(settings.rate, ending))
                a_second = settings.cancels / settings.seconds
                calling.create_task(self.load.cancel_steadily(a_second, ending))
                await self._hit(settings.seconds)
                ending.set()
            sampling.cancel()

    async def check(self) -> list[Violation]:
        """Returns the violations, without those that only the end of the processes shows."""
        settings, odd, samples = self._settings, self.load.odd, self.watch.samples
        warm = settings.warm_up_s
        digests = {name: quiet.digests for name, quiet in self._quiet.items()}
        return [
            *checks.lost_requests(odd, self.faults),
            *checks.wrong_answers(odd, digests, self.faults),
            *checks.slow_heals(self.faults, settings.heal_s),
            *checks.grown_memory(samples, warm_up_s=warm, most_mib=settings.growth_mib),
            *checks.leaked_descriptors(samples, warm_up_s=warm, most=settings.growth_descriptors),
            *checks.too_many_workers(samples, MOST_WORKERS),
            *checks.busy_slots(await self._last_loads()),
        ]

    async def _last_loads(self) -> dict[str, tuple[int, int]]:
        """Returns the loads of the stages once all is idle, or after the time for that."""
        end_s = time.monotonic() + END_PATIENCE_S
        loads = await stage_loads(self._stack)
        while checks.busy_slots(loads) and time.monotonic() < end_s:
            await asyncio.sleep(PAUSE_S)
            loads = await stage_loads(self._stack)
        return loads

    async def _sample_steadily(self) -> None:
        every_s = max(0.5, self._settings.seconds / 1000)  # so that 8 hours fit into memory
        while True:
            self.watch.sample(self.load.now_s(), self.load.answered)
            await asyncio.sleep(every_s)

    async def _hit(self, seconds: float) -> None:
        settings = self._settings
        names = {
            name: target.pod.local.deployment.name for name, target in self._stack.targets.items()
        }
        planned = planned_faults(
            settings.kinds, names, seed=settings.seed, longest_s=settings.longest_s
        )
        while self.load.now_s() < seconds:
            few = settings.max_faults is None or len(self.faults) < settings.max_faults
            if few and (fault := next(planned, None)) is not None:
                await self._hit_one(fault)
                await asyncio.sleep(SETTLE_S)
            else:
                await asyncio.sleep(min(PAUSE_S, max(0.0, seconds - self.load.now_s())))

    async def _hit_one(self, planned: PlannedFault) -> None:
        target, kind = self._stack.targets[planned.target], KINDS[planned.kind]
        begin_s = self.load.now_s()
        try:
            async with kind.begin(self._stack, target):
                await asyncio.sleep(planned.lasts_s)
        except NothingToHit:
            return
        end_s, healed, problem = self.load.now_s(), False, ""
        while not healed and self.load.now_s() < end_s + HEAL_PATIENCE * self._settings.heal_s:
            await asyncio.sleep(PAUSE_S)
            found = await problem_of(self._stack, self._client, self._canary, self._quiet)
            healed, problem = not found, found or problem
        fault = Fault(
            kind=planned.kind,
            target=planned.target,
            ends_calls=kind.ends_calls and target.alone,
            begin_s=begin_s,
            end_s=end_s,
            healed_s=self.load.now_s() if healed else None,
            problem=problem,
        )
        self.faults.append(fault)
        self._report.fault(fault)


async def run(settings: RunSettings, report: Report) -> list[Violation]:
    """Runs the system under faults, prints the summary, and returns the violations.

    Raises:
        RuntimeError: the system does not start, or is not the same twice without any fault.
    """
    requests, replicas = mixed_requests(), parse_replicas(settings.replicas)
    leaks = {LEAKING: 1024 * settings.plant_leak}
    async with AsyncExitStack() as opened:
        checkpoints = settings.checkpoints
        if checkpoints is None:
            made = tempfile.TemporaryDirectory(prefix="muse-tiny-")
            checkpoints = Path(opened.enter_context(made))
            write_tiny_checkpoints(checkpoints)
        log = opened.enter_context((settings.out / "pods.log").open("w"))
        stack = await opened.enter_async_context(
            chaos_stack(checkpoints, log, replicas=replicas, leaks_bytes=leaks)
        )
        client = await opened.enter_async_context(AsyncMuseClient(stack.address))
        quiet = await quiet_run(client, requests)
        running = Run(settings, stack, client, report, requests, quiet)
        await running.under_faults()
        violations = await running.check()
    end_s = time.monotonic() + END_PATIENCE_S
    while running.watch.left() and time.monotonic() < end_s:  # noqa: ASYNC110, no event tells
        await asyncio.sleep(PAUSE_S)
    violations += checks.left_processes(running.watch.left())
    violations = checks.caught_leak(violations, [LEAKING] if settings.plant_leak else [])
    load, faults = running.load, running.faults
    judged = checks.judged_processes(running.watch.samples, settings.warm_up_s)
    counts = {
        "seed": settings.seed,
        "seconds": round(load.now_s()),
        "answered": load.answered,
        "cancelled": load.cancelled,
        "faults": len(faults),
        "judged": len(judged),
    }
    report.end(load.odd, judged, violations, counts)
    print(summary(faults, load.odd, judged, violations, counts), flush=True)
    return violations
