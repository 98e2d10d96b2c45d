"""The watch of EndpointSlices, against a fake API server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.orchestrator.replicas import kubernetes_watch
from services.orchestrator.replicas.addresses import ServiceName
from services.orchestrator.replicas.kubernetes_watch import KubernetesWatch, watch_services
from tests.orchestrator.replicas.conftest import FakeApiServer
from tests.waiting import until

BASE, SUPERRES = ServiceName("", "base", 50053), ServiceName("", "superres", 50054)


def pod(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


class Known:
    """Addresses of base and of superres that the watch reported."""

    def __init__(self) -> None:
        self.base: list[list[str]] = []
        self.superres: list[list[str]] = []
        self.watches: list[KubernetesWatch] = []

    def watch(self) -> None:
        callbacks = {BASE: self.base.append, SUPERRES: self.superres.append}
        self.watches = watch_services(callbacks)


@pytest.fixture
async def known(api: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Known]:
    monkeypatch.setattr(kubernetes_watch, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(kubernetes_watch, "LONGEST_PAUSE_S", 0.05)
    found = Known()
    yield found
    for watch in found.watches:
        await watch.close()
        assert not watch._thread.is_alive()


async def test_it_lists_once_and_then_tells_each_change(api: FakeApiServer, known: Known) -> None:
    api.set("base-1", "base", 50053, pod("10.0.0.1"))
    api.set("other", "something-else", 1, pod("10.9.9.9"))
    known.watch()
    await until(lambda: known.base == [["10.0.0.1:50053"]])
    await until(lambda: known.superres == [[]])

    api.set("base-2", "base", 50053, pod("10.0.0.2", ready=True))
    await until(lambda: known.base[-1] == ["10.0.0.1:50053", "10.0.0.2:50053"])
    api.set("base-1", "base", 50053, pod("10.0.0.1", ready=False, serving=True, terminating=True))
    await until(lambda: known.base[-1] == ["10.0.0.2:50053"])
    api.delete("base-2")
    await until(lambda: known.base[-1] == [])

    assert [verb for verb, _ in api.asked] == ["list", "watch"]
    assert known.superres == [[]]


async def test_a_watch_that_ends_goes_on_from_the_last_version(
    api: FakeApiServer, known: Known
) -> None:
    known.watch()
    await until(lambda: len(api.asked) == 2)
    api.set("base-1", "base", 50053, pod("10.0.0.1"))
    await until(lambda: known.base[-1] == ["10.0.0.1:50053"])

    api.end_watches()
    await until(lambda: [verb for verb, _ in api.asked].count("watch") == 2)
    api.set("base-2", "base", 50053, pod("10.0.0.2"))
    await until(lambda: len(known.base[-1]) == 2)

    assert [verb for verb, _ in api.asked] == ["list", "watch", "watch"]
    assert api.asked[2][1] == "101"


async def test_a_version_that_is_too_old_has_it_list_again(
    api: FakeApiServer, known: Known
) -> None:
    known.watch()
    await until(lambda: len(api.asked) == 2)

    api.forget()
    await until(lambda: [verb for verb, _ in api.asked].count("list") == 2)
    api.set("base-1", "base", 50053, pod("10.0.0.1"))
    await until(lambda: known.base[-1] == ["10.0.0.1:50053"])

    assert [verb for verb, _ in api.asked][2:] == ["watch", "list", "watch"]


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_what_is_forbidden_is_named_once_and_tried_again(
    api: FakeApiServer, known: Known, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.orchestrator.replicas.kubernetes_watch")
    api.forbidden = {verb}
    known.watch()
    await until(lambda: [asked for asked, _ in api.asked].count(verb) >= 3)

    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == 1
    assert f"may not {verb} endpointslices.discovery.k8s.io in namespace muse (403)" in messages[0]

    api.forbidden = set()
    api.set("base-1", "base", 50053, pod("10.0.0.1"))
    await until(lambda: known.base[-1:] == [["10.0.0.1:50053"]])
    assert "answers again" in caplog.records[-1].message


async def test_while_the_api_server_is_away_the_last_known_stay(
    api: FakeApiServer, known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    known.watch()
    api.set("base-1", "base", 50053, pod("10.0.0.1"))
    await until(lambda: known.base[-1:] == [["10.0.0.1:50053"]])

    api.stop()
    await until(lambda: any("cannot be reached" in each.message for each in caplog.records))
    assert known.base[-1] == ["10.0.0.1:50053"]

    api.set("base-2", "base", 50053, pod("10.0.0.2"))
    api.start()
    await until(lambda: len(known.base[-1]) == 2)
    assert [verb for verb, _ in api.asked].count("list") == 1  # it went on from where it was


async def test_it_ends_at_once_while_it_waits_for_a_change(
    api: FakeApiServer, known: Known
) -> None:
    known.watch()
    await until(lambda: len(api.asked) == 2)

    begun = time.monotonic()
    await asyncio.gather(*(watch.close() for watch in known.watches))

    assert time.monotonic() - begun < 2


async def test_services_of_two_namespaces_are_watched_separately(
    api: FakeApiServer, known: Known
) -> None:
    elsewhere = ServiceName("elsewhere", "superres", 50054)
    known.watches = watch_services({BASE: known.base.append, elsewhere: known.superres.append})
    await until(lambda: known.base == [[]])

    assert len(known.watches) == 2
    assert known.superres == []  # the fake has one namespace only, and says 404


def test_without_a_cluster_it_says_what_it_needs(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(ValueError, match="expected the token of a ServiceAccount or a kubeconfig"):
        kubernetes_watch.cluster()
