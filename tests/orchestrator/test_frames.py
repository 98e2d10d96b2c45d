"""A request takes few steps through our code on its way to a stage."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary

from services.stages import Stage
from tests.picture_files import file_of, noise
from tests.small_stages import House

SERVICES = Path(__file__).parents[2] / "services"
MOST_FRAMES = 8
IMAGE = file_of(noise(32, 32))
MASK = file_of(np.full((32, 32), 255, np.uint8))


class Frames:
    """The frames of services/ through which each call of a stage's stub was made.

    A task's frames begin with those of the task that created it.

    Attributes:
        calls: "stage.Method", and the frames from the servicer's Generate to the stub.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self._creating: WeakKeyDictionary[asyncio.Task[Any], list[str]] = WeakKeyDictionary()

    def make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Makes a task, as a loop's task factory does, and notes the frames that create it."""
        task = asyncio.Task(work, loop=loop, **options)
        self._creating[task] = self.here(loop)
        return task

    def here(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """Returns the frames of services/ that led here, outermost first."""
        names: list[str] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(SERVICES):
                names.append(f"{file.stem}.{frame.f_code.co_name}")
            frame = frame.f_back
        task = asyncio.current_task(loop)
        creating = [] if task is None else self._creating.get(task, [])
        return creating + names[::-1]

    def note(self, call: str) -> None:
        """Notes a call of a stub that Generate leads to; others, such as of health, are not."""
        names = self.here(asyncio.get_running_loop())
        if "servicer.Generate" in names:
            start = len(names) - 1 - names[::-1].index("servicer.Generate")
            self.calls.append((call, names[start:]))


class NotingStub:
    """A stub that notes each call, then makes it."""

    def __init__(self, stage: str, stub: Any, frames: Frames) -> None:
        self._stage, self._stub, self._frames = stage, stub, frames

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self._frames.note(f"{self._stage}.{method}")
            return getattr(self._stub, method)(*arguments, **options)

        return call


@pytest.fixture
async def frames(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Frames]:
    """Notes the frames of every call from here on; requested before `house`."""
    noted, stub_of = Frames(), Stage.stub
    monkeypatch.setattr(
        Stage, "stub", lambda stage, channel: NotingStub(stage.name, stub_of(stage, channel), noted)
    )
    loop = asyncio.get_running_loop()
    loop.set_task_factory(noted.make_task)
    yield noted
    loop.set_task_factory(None)


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"inpaint": Inpaint(image=IMAGE, mask=MASK)},
        {"outpaint": Outpaint(image=IMAGE, left_px=8)},
        {"mask_free_edit": MaskFreeEdit(image=IMAGE, iterations=4, return_iterations=[2])},
        {"vary": Vary(image=IMAGE)},
    ],
    ids=lambda edit: next(iter(edit), "generate"),
)
async def test_from_generate_to_any_stub_there_are_at_most_eight_frames(
    frames: Frames, house: House, edit: dict[str, Any]
) -> None:
    await house.events(preview_every=0 if edit else 1, **edit)

    called = {call for call, _ in frames.calls}
    assert {"text_encoder.Encode", "base.Generate", "superres.Generate"} < called
    for call, names in frames.calls:
        assert names[0] == "servicer.Generate"
        assert len(names) > 2, f"{call} was not followed across tasks: {names}"
        assert len(names) <= MOST_FRAMES, f"{call}: {' > '.join(names)}"
