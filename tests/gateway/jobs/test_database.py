"""The database of jobs, in SQLite and in a real PostgreSQL: leases, order, tables, refusals."""

import asyncio
import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL

from services.gateway.jobs.database.connections import connect, migrate
from services.gateway.jobs.database.deliveries import Deliveries
from services.gateway.jobs.database.jobs import End, Jobs, NewJob, QueueFull
from services.gateway.jobs.database.tables import JobRow, Table
from services.gateway.jobs.models import event_of
from tests.gateway.conftest import running_gateway
from tests.gateway.jobs.conftest import Held, Receiver, added, pictures, reached
from tests.small_stages import House
from tests.waiting import until

SUPERUSER = "postgres"


def postgresql_programs() -> Path | None:
    """The folder of the newest PostgreSQL of Debian, or of one that is on the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: each.parent.name)
    found = shutil.which("initdb")
    return folders[-1] if folders else Path(found).parent if found else None


def as_owner(*command: str) -> None:
    """Runs a program of PostgreSQL, which refuses to run as root."""
    user: dict[str, Any] = {"user": SUPERUSER, "group": SUPERUSER} if os.getuid() == 0 else {}
    subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, **user)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server of PostgreSQL on a socket in a folder, which is yielded."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("needs initdb and pg_ctl of PostgreSQL: apt-get install postgresql")
    folder = Path("/tmp") / f"muse-postgresql-{os.getpid()}"  # a socket's path is short
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        owner = pwd.getpwnam(SUPERUSER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data, options = str(folder / "data"), f"-k {folder} -c listen_addresses= -c fsync=off"
    try:
        as_owner(str(programs / "initdb"), "-D", data, "-U", SUPERUSER, "-A", "trust", "-N")
        as_owner(
            *(str(programs / "pg_ctl"), "start", "-w", "-D", data, "-o", options),
            *("-l", str(folder / "log")),
        )
        yield folder
        as_owner(str(programs / "pg_ctl"), "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database without tables."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path / 'jobs.db'}")
    folder = request.getfixturevalue("server")
    name = "test_" + tmp_path.name.replace("-", "_").lower()
    url = make_url(f"postgresql+psycopg://{SUPERUSER}@/{SUPERUSER}?host={folder}")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'drop database if exists "{name}"'))
        connection.execute(text(f'create database "{name}"'))
    engine.dispose()
    return url.set(database=name)


both = pytest.mark.parametrize("empty", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def jobs(empty: URL) -> AsyncIterator[tuple[Jobs, Deliveries]]:
    """Jobs and deliveries of a database."""
    await asyncio.to_thread(migrate, empty)
    engine = connect(empty)
    yield Jobs(engine, event_of), Deliveries(engine)
    await engine.dispose()


def new(name: str, caller: str = "jo", key: str | None = None, **changes: Any) -> NewJob:
    """A job to add."""
    given: dict[str, Any] = {
        "id": name,
        "caller": caller,
        "idempotency_key": key,
        "digest": "digest",
        "operation": "generate",
        "request": {"prompt": "a fox\0", "seed": 2**64 - 1},
        "files": [],
        "credential": "sealed",
        "trace": {},
        "webhook": None,
    }
    return NewJob(**given | changes)


async def add(jobs: Jobs, name: str, *args: Any, most: int = 9, **changes: Any) -> JobRow:
    """A job that was added."""
    return await jobs.add(new(name, *args, **changes), most=most, most_of_caller=most)


@both
async def test_the_tables_are_those_of_the_models(empty: URL) -> None:
    with ThreadPoolExecutor() as threads:  # as several gateways that start together
        list(threads.map(migrate, [empty] * 4))
    engine = create_engine(empty)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        connection.execute(text("update alembic_version set version_num = '9999'"))
        connection.commit()
    engine.dispose()
    with pytest.raises(ValueError, match=r"^jobs_database: expected tables of this version or"):
        migrate(empty)


@both
async def test_jobs_are_claimed_once_and_in_order(jobs: tuple[Jobs, Deliveries]) -> None:
    table, _ = jobs
    for number in range(4):
        await add(table, str(number))
    claimed = [await table.claim(60) for _ in range(5)]
    assert [each and each.id for each in claimed] == ["0", "1", "2", "3", None]

    for number in range(4, 8):
        await add(table, str(number))
    together = await asyncio.gather(*(table.claim(60) for _ in range(6)))
    assert sorted(each.id for each in together if each is not None) == ["4", "5", "6", "7"]
    first = claimed[0]
    assert first is not None
    assert first.request == {"prompt": "a fox\0", "seed": 2**64 - 1}
    assert first.losses == 0


@both
async def test_a_run_whose_lease_ended_changes_nothing_more(jobs: tuple[Jobs, Deliveries]) -> None:
    table, deliveries = jobs
    await add(table, "a", webhook="https://example.com/")
    lost = await table.claim(0.05)
    assert lost is not None
    taken = None
    while taken is None:
        taken = await table.claim(60)
    assert (taken.id, taken.losses) == ("a", 1)
    assert taken.run != lost.run

    assert not await table.keep(lost, {"step": 1}, 60)
    assert not await table.finish(lost, End(state="failed"))
    await table.put_back(lost)
    assert await table.keep(taken, {"step": 2}, 60)
    assert await table.finish(taken, End(state="succeeded", result={"preset": "x"} | DONE))
    found = await table.find("jo", "a")
    assert found is not None
    assert (found.state, found.run, found.credential) == ("succeeded", taken.run, None)
    assert not await table.finish(taken, End(state="failed"))
    event = await deliveries.claim(60)
    assert event is not None
    assert event.id == "evt_a"
    assert await deliveries.claim(60) is None


DONE = {"total_s": 1.0, "device_s": {}, "seed": 7, "images": [], "warnings": []}


@both
async def test_a_job_that_is_put_back_waits_for_its_pause(jobs: tuple[Jobs, Deliveries]) -> None:
    table, _ = jobs
    await add(table, "a")
    await add(table, "b")
    first = await table.claim(60)
    assert first is not None
    await table.put_back(first, 60)
    following = await table.claim(60)
    assert following is not None
    assert following.id == "b"
    assert await table.claim(60) is None
    await table.put_back(following)
    again = await table.claim(60)
    assert again is not None
    assert (again.id, again.losses) == ("b", 0)


@both
async def test_a_delivery_is_tried_by_one_and_ends_once(jobs: tuple[Jobs, Deliveries]) -> None:
    table, deliveries = jobs
    await add(table, "a", webhook="https://example.com/")
    await table.cancel("other", "a")
    assert await deliveries.claim(60) is None
    await table.cancel("jo", "a")
    await table.cancel("jo", "a")
    tried = await asyncio.gather(*(deliveries.claim(60) for _ in range(3)))
    (first,) = [each for each in tried if each is not None]
    await deliveries.put_off(first, 0)
    again = await deliveries.claim(0)
    assert again is not None
    assert again.attempts == 2
    again = await deliveries.claim(60)  # the attempt before came to no end
    assert again is not None
    assert again.attempts == 3
    await deliveries.end(again, "delivered")
    await deliveries.put_off(again, 0)  # by a gateway that comes late
    assert await deliveries.claim(60) is None
    job = await table.find("jo", "a")
    assert job is not None
    await table.remove(job)
    assert await table.find("jo", "a") is None


@both
async def test_a_key_adds_one_job_and_the_queue_is_bounded(jobs: tuple[Jobs, Deliveries]) -> None:
    table, _ = jobs
    names = [str(number) for number in range(6)]
    rows = await asyncio.gather(*(add(table, name, key="order") for name in names))
    assert len({each.id for each in rows}) == 1
    other = await add(table, "other", "sam", "order")
    assert await table.place(other) == 2

    ends = await asyncio.gather(
        *(add(table, f"more {name}", most=4) for name in names), return_exceptions=True
    )
    assert sum(isinstance(each, QueueFull) for each in ends) == 4


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
async def test_gateways_share_jobs_in_postgresql(
    house: House, empty: URL, tmp_path: Path, receiver: Receiver, hooks: dict[str, Any]
) -> None:
    key = tmp_path / "key"
    key.write_text("Zm9yIGEgdGVzdCwgYW5kIGZvciBub3RoaW5nIGVsc2U=\n")
    shared = {
        "jobs_database": empty.render_as_string(hide_password=False),
        "jobs_pictures": str(tmp_path / "pictures"),
        "jobs_key_file": key,
        **hooks,
    }
    held = Held(house)
    async with running_gateway(house, **shared) as first:
        job_id = await added(first, {"Authorization": "Bearer any"}, webhook=receiver.url)
        await held.entered.wait()
    held.gate.set()
    async with running_gateway(house, **shared) as second, running_gateway(house, **shared):
        bearer = {"Authorization": "Bearer any"}
        await reached(second, job_id, "succeeded", headers=bearer)
        await until(lambda: receiver.bodies)
        assert (await second.http.get("/v1/jobs/%00", headers=bearer)).status_code == 404
        more = [await added(second, seed=seed) for seed in range(6)]
        for each in more:
            assert len(await pictures(second, await reached(second, each, "succeeded"))) == 1
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////proc/none/jobs.db", "No such file or directory"),
        ("postgresql+psycopg://jo:word@127.0.0.1:1/jobs", "refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^jobs_database: .* cannot be used: ") as caught:
        migrate(make_url(url))
    assert words in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")
    assert "\n" not in str(caught.value)
