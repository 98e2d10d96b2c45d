"""Settings for TLS that no server starts with, and what each is refused with."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator.__main__ import Settings, app
from services.runtime.server.certificates import (
    CertificateFiles,
    Certificates,
    ReloadedCertificates,
)
from services.runtime.server.process import run_server
from services.runtime.server.settings import ServerSettings
from tests.authority import DAY, Authority, Pair

FILE = Path("there")
PAIR = {"tls_cert": FILE, "tls_key": FILE}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tls_cert": FILE}, "tls_key: expected a file beside tls_cert, got none"),
        ({"tls_key": FILE}, "tls_cert: expected a file beside tls_key, got none"),
        ({"tls_ca": FILE}, "tls_cert: expected the server's certificate beside tls_ca, got none"),
        ({**PAIR, "tls_clients": ("a",)}, "tls_ca: expected the authorities of the clients"),
        ({**PAIR, "tls_ca": FILE, "tls_clients": ("*.muse",)}, "without wildcards"),
        ({**PAIR, "tls_ca": FILE, "tls_clients": ("",)}, "tls_clients: expected SPIFFE URIs"),
        ({"stage_tls_cert": FILE}, "stage_tls_key: expected a file beside stage_tls_cert"),
        (
            {"stage_tls_cert": FILE, "stage_tls_key": FILE},
            "stage_tls_ca: expected the authorities of the stages beside stage_tls_cert, got none",
        ),
        ({"host": "0.0.0.0"}, "tls_cert: expected a certificate to listen on 0.0.0.0"),
        ({"host": "[::]"}, "or insecure to speak plain text there"),
        ({"host": "muse.example"}, "which other machines reach"),
        ({"health_port": 70000}, "health_port: expected 0 to 65535, got 70000"),
        ({"port": 7000, "health_port": 7000}, "health_port: expected another number than port"),
        (
            {"metrics_port": 7000, "health_port": 7000},
            "health_port: expected another number than metrics_port",
        ),
    ],
)
def test_half_a_configuration_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.split(":")[0]) as refused:
        Settings(**wrong)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "accepted",
    [
        {"host": "[::1]"},
        {"host": "0.0.0.0", "insecure": True},
        {"host": "0.0.0.0", **PAIR},
        {**PAIR, "tls_ca": FILE, "tls_clients": ("spiffe://muse/a", "b.muse.svc")},
    ],
)
def test_a_whole_configuration_is_accepted(accepted: dict[str, Any]) -> None:
    ServerSettings(**accepted)


def test_each_setting_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MUSE_HOST": "0.0.0.0",
        "MUSE_TLS_CERT": "/tls/tls.crt",
        "MUSE_TLS_KEY": "/tls/tls.key",
        "MUSE_TLS_CA": "/tls/ca.crt",
        "MUSE_TLS_CLIENTS": "spiffe://muse/a b.muse.svc",
        "MUSE_STAGE_TLS_CA": "/tls/ca.crt",
        "MUSE_INSECURE": "1",
        "MUSE_HEALTH_PORT": "9465",
    }.items():
        monkeypatch.setenv(name, value)
    _, bound, _ = app.parse_args([], exit_on_error=False, print_error=False)

    settings = bound.arguments["settings"]
    assert (settings.tls_cert, settings.tls_key) == (Path("/tls/tls.crt"), Path("/tls/tls.key"))
    assert settings.tls_ca == settings.stage_tls_ca == Path("/tls/ca.crt")
    assert settings.tls_clients == ("spiffe://muse/a", "b.muse.svc")
    assert settings.insecure is True
    assert settings.health_port == 9465


Make = Callable[[Path, Authority], CertificateFiles]


def files(folder: Path, pair: Pair, ca: bytes | None = None) -> CertificateFiles:
    cert, key = pair.write(folder)
    if ca is not None:
        (folder / "ca.crt").write_bytes(ca)
    authorities = None if ca is None else folder / "ca.crt"
    return CertificateFiles(setting="tls", cert=cert, key=key, ca=authorities)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda folder, ca: files(folder, ca.issue("a", begin=-2 * DAY, end=-DAY)),
            "tls_cert: expected a certificate that is valid now",
        ),
        (
            lambda folder, ca: files(folder, ca.issue("a", begin=timedelta(hours=1))),
            "which is valid from",
        ),
        (
            lambda folder, ca: files(folder, Pair(ca.issue("a").cert, ca.issue("a").key)),
            "tls_key: expected the key of the certificate",
        ),
        (
            lambda folder, ca: files(folder, Pair(b"none", ca.issue("a").key)),
            "tls_cert: expected certificates in PEM",
        ),
        (
            lambda folder, ca: files(folder, Pair(ca.issue("a").cert, b"none")),
            "tls_key: expected a private key in PEM without a password",
        ),
        (
            lambda folder, ca: files(folder, Pair(ca.issue("a").cert, ca.issue("a").cert)),
            "tls_key: expected a private key in PEM without a password",
        ),
        (
            lambda folder, ca: files(folder, ca.issue("a"), b"none"),
            "tls_ca: expected certificates in PEM",
        ),
        (
            lambda folder, ca: CertificateFiles(
                setting="tls", cert=folder / "away", key=folder, ca=None
            ),
            "which cannot be read: No such file or directory",
        ),
        (
            lambda folder, ca: CertificateFiles(setting="tls", cert=None, key=None, ca=folder),
            "which cannot be read: Is a directory",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(
    make: Make, said: str, tmp_path: Path
) -> None:
    wrong = make(tmp_path, Authority())

    with pytest.raises(ValueError, match="tls_") as refused:
        wrong.check(wrong.content())
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_refused_change_is_logged_once_however_long_it_stays_and_taken_once_it_is_valid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, moment = Authority(), datetime.now(UTC)
    certificates = ReloadedCertificates(files(tmp_path, authority.issue("a")))
    before = certificates.current
    files(tmp_path, authority.issue("a", begin=timedelta(minutes=1)))

    class Clock(datetime):
        @classmethod
        def now(cls, _: object = None) -> datetime:  # type: ignore[override]
            return moment

    monkeypatch.setattr("services.runtime.server.certificates.datetime", Clock)
    for _ in range(4):
        moment += timedelta(seconds=10)
        assert certificates.changed() is None
    assert certificates.current == before
    assert [each.levelname for each in caplog.records] == ["WARNING"]

    moment += timedelta(minutes=2)
    assert certificates.changed() == certificates.current != before


def test_the_key_is_in_no_description() -> None:
    content = Certificates(cert=b"shown", key=b"secret", ca=None)

    assert "shown" in repr(content)
    assert "secret" not in repr(content)


def test_a_server_ends_before_it_loads_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = Authority().issue("a", begin=-2 * DAY, end=-DAY).write(tmp_path)

    async def build() -> Any:
        raise AssertionError("loaded")

    with pytest.raises(SystemExit):
        run_server(build, ServerSettings(tls_cert=cert, tls_key=key), name="base")

    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert line["message"].startswith("cannot start: tls_cert: expected a certificate that is")


def test_plain_text_beyond_this_machine_is_warned_of_at_each_start() -> None:
    flags = ("--checkpoints=nowhere", "--host=0.0.0.0", "--port=0", "--insecure")
    ended = subprocess.run(
        [sys.executable, "-m", "services.base", *flags],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    (warning,) = [each for each in lines if each["level"] == "WARNING"]
    assert "speaks plain text on 0.0.0.0" in warning["message"]
    assert "cannot start" in lines[-1]["message"]  # there is no checkpoint
