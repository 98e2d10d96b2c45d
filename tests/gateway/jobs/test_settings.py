"""Settings of jobs, and the files that they name."""

import os
import stat
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cryptography.fernet import Fernet

from services.gateway.jobs.credentials import CredentialSeal
from services.gateway.jobs.pictures import PictureStore
from services.gateway.settings import GatewaySettings
from tests.gateway.jobs.conftest import JOBS, StartJobs, added, gone, pictures, reached
from tests.gateway.pictures import file_of, noise
from tests.gateway.test_process import gateway_process
from tests.s3_service import s3_service

__all__ = ["s3_service"]

POSTGRESQL = {"jobs_database": "postgresql+psycopg://jo:word@host/jobs"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"jobs_database": "mysql://host/jobs"}, "jobs_database: expected sqlite:////folder/jobs"),
        ({"jobs_database": "jobs.db"}, "jobs_database: expected .*, got no URL"),
        ({"jobs_database": "sqlite://"}, "jobs_database: expected .*, got sqlite without a file"),
        ({"jobs_database": "postgresql://h/jobs"}, "jobs_database: .*, got postgresql://"),
        (POSTGRESQL, "jobs_pictures: expected one that every gateway of postgresql"),
        (POSTGRESQL | {"jobs_pictures": "s3://jobs"}, "jobs_key_file: expected one that every"),
        ({"jobs_pictures": "x"}, "jobs_database: expected a database beside jobs_pictures"),
        ({"webhook_secret_file": Path("x")}, "jobs_database: expected a database beside webhook"),
        ({"jobs_running": 0}, "jobs_running: expected at least 1, got 0"),
        ({"jobs_queued": 0}, "jobs_queued: expected at least 1, got 0"),
        ({"jobs_queued_per_caller": 0}, "jobs_queued_per_caller: expected at least 1, got 0"),
        ({"jobs_kept_s": 0.0}, "jobs_kept_s: expected more than 0, got 0.0"),
        ({"jobs_lease_s": float("nan")}, "jobs_lease_s: expected more than 0, got nan"),
        ({"jobs_retry_s": -1.0}, "jobs_retry_s: expected more than 0, got -1.0"),
        ({"webhook_retry_s": 0.0}, "webhook_retry_s: expected more than 0, got 0.0"),
        ({"webhook_attempts": 0}, "webhook_attempts: expected at least 1, got 0"),
        ({"webhook_allowed": ("10.0.0.1/8",)}, "webhook_allowed: 10.0.0.1/8 has host bits set"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}") as caught:
        GatewaySettings(**settings)
    assert "word" not in str(caught.value).replace("password", "")


def test_with_sqlite_all_lies_beside_the_database(tmp_path: Path) -> None:
    settings = GatewaySettings(jobs_database=f"sqlite:///{tmp_path}/jobs.db")
    assert settings.pictures_url == str(tmp_path / "pictures")
    assert settings.key_file == tmp_path / "jobs.key"


async def test_only_their_owner_reads_the_database_the_key_and_the_pictures(
    start_jobs: StartJobs, tmp_path: Path
) -> None:
    async with start_jobs() as gateway:
        await reached(gateway, await added(gateway), "succeeded")
    for name, mode in (("jobs.db", 0o600), ("jobs.key", 0o600), (".", 0o700)):
        assert stat.S_IMODE(os.stat(tmp_path / "data" / name).st_mode) == mode


def test_a_key_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first = CredentialSeal(path, create=True)
    sealed = first.sealed("a credential")
    assert sealed is not None
    assert "credential" not in sealed
    path.write_text(f"{Fernet.generate_key().decode()}\n{path.read_text()}")
    assert CredentialSeal(path, create=False).opened(sealed) == "a credential"
    path.write_bytes(Fernet.generate_key())
    with pytest.raises(ValueError, match="encrypted by a key that this gateway's jobs_key_file"):
        CredentialSeal(path, create=False).opened(sealed)


@pytest.mark.parametrize("content", ["", "a key", "c2hvcnQ="])
def test_a_file_without_keys_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^jobs_key_file: expected keys of 32 bytes") as caught:
        CredentialSeal(path, create=False)
    assert not content or content not in str(caught.value)
    with pytest.raises(ValueError, match=r"^jobs_key_file: .*none cannot be read: No such file"):
        CredentialSeal(tmp_path / "none", create=False)


def test_a_place_for_pictures_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"^jobs_pictures: expected a folder, .* got none://"):
        PictureStore("none://x")
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    with pytest.raises(ValueError, match=r'^jobs_pictures: s3://.* missing.* the extra "s3"'):
        PictureStore("s3://x")


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where pictures may be besides a folder."""
    if request.param == "s3":
        request.getfixturevalue("s3_service")
    name = tmp_path.name.replace("_", "-")
    fsspec.filesystem(request.param).mkdir(name)
    return f"{request.param}://{name}/jobs"


async def test_pictures_may_be_anywhere_that_fsspec_reaches(
    start_jobs: StartJobs, bucket: str
) -> None:
    files = {"image": ("noise.png", file_of(noise()), "image/png")}
    store = PictureStore(bucket)
    async with start_jobs(jobs_pictures=bucket) as gateway:
        response = await gateway.http.post(JOBS, data={"operation": "vary"}, files=files)
        job_id = response.json()["id"]
        done = await reached(gateway, job_id, "succeeded")
        (content,) = await pictures(gateway, done)
        assert content[:4] == b"\x89PNG"
        assert await store.read(f"{job_id}/image") == file_of(noise())
    async with start_jobs(jobs_pictures=bucket, jobs_kept_s=0.01) as gateway:
        await gone(gateway, job_id)
    with pytest.raises(FileNotFoundError):
        await store.read(f"{job_id}/image")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--jobs-database", "sqlite:////proc/none/jobs.db"), "/proc/none/jobs.db cannot be used"),
        (
            ("--jobs-database", "{}", "--webhook-secret-file", "/none"),
            "webhook_secret_file: /none cannot be read",
        ),
        (("--jobs-database", "{}", "--jobs-key-file", "/none"), "jobs_key_file: /none cannot be"),
    ],
)
async def test_why_it_does_not_start_is_one_line_of_its_log(
    tmp_path: Path, flags: tuple[str, ...], problem: str
) -> None:
    given = [each.format(f"sqlite:///{tmp_path}/jobs.db") for each in flags]
    async with gateway_process(*given) as (process, lines):
        assert await process.wait() == 1
    assert lines[-1]["message"].startswith("cannot start: ")
    assert problem in lines[-1]["message"]
