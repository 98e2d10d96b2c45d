"""Both clients over TLS: who is trusted, what an error says, and renewed certificates."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from muse.orchestrator.v1.orchestrator_pb2 import GetStatusResponse as Answer
from muse_client import AsyncMuseClient, MuseClient, MuseError, Tls, Unavailable

from services.runtime.server.certificates import CertificateFiles
from tests.authority import DAY, Authority
from tests.tls_orchestrator import serving

HOST = "127.0.0.1"
Ask = Callable[..., Awaitable[Answer]]


async def ask_asynchronously(address: str, tls: Tls | None) -> Answer:
    async with AsyncMuseClient(address, tls=tls) as client:
        return await client.status()


async def ask_blocking(address: str, tls: Tls | None) -> Answer:
    def ask() -> Answer:
        with MuseClient(address, tls=tls) as client:
            return client.status()

    return await asyncio.to_thread(ask)


both = pytest.mark.parametrize("ask", [ask_asynchronously, ask_blocking])


@both
async def test_a_client_with_a_certificate_is_answered(ask: Ask, tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    cert, key = authority.issue("client").write(tmp_path, "client")
    async with serving(tmp_path, authority.issue(HOST), tls_ca=ca) as address:
        assert await ask(address, Tls(ca=ca, cert=str(cert), key=str(key))) == Answer()


@both
@pytest.mark.parametrize(
    ("names", "begin", "end", "trusted", "said"),
    [
        ((HOST,), -2 * DAY, -timedelta(seconds=1), True, "its certificate has expired"),
        ((HOST,), timedelta(hours=1), DAY, True, "its certificate is not valid yet"),
        (("elsewhere",), -DAY, DAY, True, "its certificate is of another host"),
        ((HOST,), -DAY, DAY, False, "its certificate is not signed by an authority that is"),
    ],
)
async def test_an_error_says_what_is_wrong_with_the_servers_certificate(
    ask: Ask,
    names: tuple[str, ...],
    begin: timedelta,
    end: timedelta,
    trusted: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CertificateFiles, "check", lambda *_: None)  # such a server does not start
    authority = Authority()
    pair = authority.issue(*names, begin=begin, end=end)
    ca = (authority if trusted else Authority("other")).write(tmp_path)
    async with serving(tmp_path, pair) as address:
        with pytest.raises(Unavailable) as refused:
            await ask(address, Tls(ca=ca))
    assert refused.value.message.startswith(f"no orchestrator answers at {address}: {said}")


@both
async def test_an_error_says_that_only_one_side_speaks_tls(ask: Ask, tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    async with serving(tmp_path, None) as plain:
        with pytest.raises(Unavailable, match="it speaks plain text, and this client TLS"):
            await ask(plain, Tls(ca=ca))
    async with serving(tmp_path, authority.issue(HOST)) as secure:
        with pytest.raises(Unavailable, match="as one does that speaks TLS; this client does not"):
            await ask(secure, None)


@both
async def test_an_error_says_which_certificate_of_the_client_was_refused(
    ask: Ask, tmp_path: Path
) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    async with serving(tmp_path, authority.issue(HOST), tls_ca=ca) as address:
        with pytest.raises(Unavailable, match="needs a certificate; this client has none"):
            await ask(address, Tls(ca=ca))
        for name, pair in {
            "expired": authority.issue("client", begin=-2 * DAY, end=-DAY),
            "other": Authority("other").issue("client"),
        }.items():
            cert, key = pair.write(tmp_path, name)
            with pytest.raises(Unavailable, match=f"that of {cert} may have expired"):
                await ask(address, Tls(ca=ca, cert=cert, key=key))


@both
async def test_the_name_of_a_server_may_be_given(ask: Ask, tmp_path: Path) -> None:
    authority = Authority()
    async with serving(tmp_path, authority.issue("orchestrator")) as address:
        ca = authority.write(tmp_path)
        assert await ask(address, Tls(ca=ca, server_name="orchestrator")) == Answer()


async def test_a_renewed_certificate_is_shown_at_the_next_call(tmp_path: Path) -> None:
    authority = Authority()
    ca, first, second = authority.write(tmp_path), "spiffe://muse/first", "spiffe://muse/second"
    cert, key = authority.issue(first).write(tmp_path, "client")
    accepted = {"tls_ca": ca, "tls_clients": (second,)}
    tls = Tls(ca=ca, cert=cert, key=key)
    async with (
        serving(tmp_path, authority.issue(HOST), **accepted) as address,
        AsyncMuseClient(address, tls=tls) as client,
    ):
        with MuseClient(address, tls=tls) as blocking:
            with pytest.raises(MuseError, match=f"does not accept calls of {first}"):
                await client.status()
            with pytest.raises(MuseError, match=f"does not accept calls of {first}"):
                await asyncio.to_thread(blocking.status)
            authority.issue(second).write(tmp_path, "client")
            assert await client.status() == Answer()
            assert await asyncio.to_thread(blocking.status) == Answer()

            key.unlink()  # the certificates of the last call stay in use
            assert await client.status() == Answer()
            assert await asyncio.to_thread(blocking.status) == Answer()


def test_files_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.issue("a").write(tmp_path, "a")
    _, other = authority.issue("b").write(tmp_path, "b")
    none = tmp_path / "none"
    none.write_text("no PEM")

    with pytest.raises(ValueError, match="tls key: expected a file beside that of the cert"):
        Tls(cert=cert)
    with pytest.raises(ValueError, match="tls cert: expected a file beside that of the key"):
        Tls(key=key)
    for wrong, said in (
        (Tls(ca=none), "tls ca: expected certificates in PEM"),
        (Tls(ca=tmp_path / "away"), "cannot be read: No such file or directory"),
        (Tls(cert=cert, key=other), "or not of each other"),
        (Tls(cert=none, key=key), "expected a certificate and its key in PEM"),
    ):
        with pytest.raises(ValueError, match=said) as refused:
            MuseClient(f"{HOST}:1", tls=wrong)
        assert str(tmp_path) in str(refused.value)
    assert "BEGIN" not in repr(Tls(cert=cert, key=key).content()).replace("BEGIN CERT", "")
