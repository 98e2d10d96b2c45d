"""Webhooks: signed, sent again until they are acknowledged, and never to a private address."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from services.gateway.jobs.webhooks.signatures import read_secrets, signed_headers
from tests.gateway.jobs.conftest import (
    BODY,
    JOBS,
    SECRET,
    Held,
    Receiver,
    StartJobs,
    added,
    job,
    reached,
)
from tests.gateway.test_bad_input import refusal_of
from tests.small_stages import House
from tests.waiting import until

OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def is_signed(receiver: Receiver, number: int, secret: str = SECRET) -> bool:
    """Whether a webhook that came was signed by a secret, as a receiver checks it."""
    headers, body = receiver.headers[number], receiver.bodies[number]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{digest}" in headers["webhook-signature"].split(" ")


async def test_the_end_of_a_job_is_posted_and_signed(
    start_jobs: StartJobs, receiver: Receiver, hooks: dict[str, Any]
) -> None:
    async with start_jobs(**hooks) as gateway:
        job_id = await added(gateway, webhook=receiver.url)
        done = await reached(gateway, job_id, "succeeded")
        await until(lambda: receiver.bodies)

    event = json.loads(receiver.bodies[0])
    assert event == {"type": "job.succeeded", "timestamp": done["finished_at"], "data": done}
    assert receiver.headers[0]["webhook-id"] == f"evt_{job_id}"
    assert receiver.headers[0]["content-type"] == "application/json"
    assert is_signed(receiver, 0)
    assert not is_signed(receiver, 0, OTHER_SECRET)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_job_that_fails_or_is_cancelled_is_posted_too(
    house: House, start_jobs: StartJobs, receiver: Receiver, hooks: dict[str, Any], end: str
) -> None:
    async with start_jobs(**hooks) as gateway:
        if end == "failed":
            await added(gateway, webhook=receiver.url, adapters={"cat": 1})
        else:
            Held(house)
            job_id = await added(gateway, webhook=receiver.url)
            await gateway.http.delete(f"{JOBS}/{job_id}")
        await until(lambda: receiver.bodies)
    event = json.loads(receiver.bodies[0])
    assert (event["type"], event["data"]["state"]) == (f"job.{end}", end)
    assert ("error" in event["data"]) == (end == "failed")


async def test_a_webhook_is_sent_again_until_it_is_acknowledged_and_not_once_more(
    start_jobs: StartJobs, receiver: Receiver, hooks: dict[str, Any]
) -> None:
    receiver.statuses = [500, 302, 404]  # a redirect is not followed
    async with start_jobs(**hooks) as first:
        await added(first, webhook=receiver.url)
        await until(lambda: len(receiver.bodies) == 4)
    async with start_jobs(**hooks) as second:
        await added(second, webhook=receiver.url, seed=8)
        await until(lambda: len(receiver.bodies) == 5)

    assert len({each["webhook-id"] for each in receiver.headers[:4]}) == 1
    assert len(set(receiver.bodies[:4])) == 1
    assert all(is_signed(receiver, number) for number in range(5))
    assert receiver.headers[4]["webhook-id"] != receiver.headers[0]["webhook-id"]


async def test_what_one_gateway_could_not_deliver_another_does(
    start_jobs: StartJobs, receiver: Receiver, hooks: dict[str, Any]
) -> None:
    receiver.statuses = [503]
    async with start_jobs(**hooks) as first:
        job_id = await added(first, webhook=receiver.url)
        await until(lambda: len(receiver.bodies) == 1)
    async with start_jobs(**hooks):
        await until(lambda: len(receiver.bodies) == 2)
    assert {each["webhook-id"] for each in receiver.headers} == {f"evt_{job_id}"}


async def test_a_webhook_is_given_up_after_its_attempts(
    start_jobs: StartJobs,
    receiver: Receiver,
    hooks: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.statuses = [500] * 9
    async with start_jobs(**hooks, webhook_attempts=2) as gateway:
        job_id = await added(gateway, webhook=receiver.url)
        await until(lambda: "webhook given up" in caplog.text)
        assert (await job(gateway, job_id))["state"] == "succeeded"
    assert len(receiver.bodies) == 2


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("https://127.0.0.1/hook", "private_address", "which is 127.0.0.1"),
        ("https://localhost/hook", "private_address", "expected a public address, got localhost"),
        ("https://2130706433/hook", "private_address", "which is 127.0.0.1"),
        ("https://10.1.2.3/hook", "private_address", "10.1.2.3"),
        ("https://169.254.169.254/latest/meta-data", "private_address", "169.254.169.254"),
        ("https://[::1]/hook", "private_address", "::1"),
        ("https://[::ffff:127.0.0.1]/hook", "private_address", "127.0.0.1"),
        ("https://[fe80::1]/hook", "private_address", "fe80::1"),
        ("http://192.0.43.7/hook", "invalid_value", "expected https://"),
        ("https://nowhere.invalid/hook", "invalid_value", "expected a host with an address"),
        ("ftp://example.com/hook", "invalid_value", "expected a URL such as"),
        ("https:///hook", "invalid_value", "expected a URL such as"),
        ("https://example.com:99999/", "invalid_value", "expected a URL such as"),
        ("https://user:word@example.com/", "invalid_value", "without user and password"),
        ("https://example.com/ hook", "invalid_value", "printable ASCII"),
        ("https://example.com/" + 2048 * "a", "invalid_value", "at most 2048 characters"),
        ("", "invalid_value", "expected a URL such as"),
    ],
)
async def test_a_url_that_webhooks_may_not_reach_is_refused(
    start_jobs: StartJobs, hooks: dict[str, Any], url: str, code: str, words: str
) -> None:
    async with start_jobs(**hooks | {"webhook_allowed": ()}) as gateway:
        response = await gateway.http.post(JOBS, json={**BODY, "webhook": url})

    assert response.status_code == 400
    error = refusal_of(response)
    assert (error["param"], error["code"]) == ("webhook", code)
    assert words in error["message"]


async def test_a_name_that_resolves_to_another_address_later_is_not_reached(
    start_jobs: StartJobs,
    receiver: Receiver,
    hooks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    public, real, asked = "192.0.43.7", socket.getaddrinfo, []

    def rebound(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebound.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = public if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    port = receiver.url.split(":")[-1].split("/")[0]
    changes = {"webhook_allowed": (), "webhook_attempts": 2}
    async with start_jobs(**hooks | changes) as gateway:
        await added(gateway, webhook=f"https://rebound.test:{port}/hook")
        await until(lambda: "webhook given up" in caplog.text)

    (given_up,) = [each for each in caplog.records if each.message == "webhook given up"]
    assert "rebound.test is 127.0.0.1, which is no public address" in vars(given_up)["problem"]
    assert len(asked) >= 3
    assert receiver.bodies == []


async def test_a_host_is_allowed_by_its_name(
    start_jobs: StartJobs, receiver: Receiver, hooks: dict[str, Any]
) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")
    async with start_jobs(**hooks | {"webhook_allowed": ("LocalHost",)}) as gateway:
        await added(gateway, webhook=url)
        await until(lambda: receiver.bodies)
        refused = await gateway.http.post(JOBS, json={**BODY, "webhook": receiver.url})
    assert refusal_of(refused)["code"] == "private_address"


async def test_without_a_secret_there_are_no_webhooks(start_jobs: StartJobs) -> None:
    async with start_jobs() as gateway:
        response = await gateway.http.post(JOBS, json={**BODY, "webhook": "https://example.com/"})
    assert response.status_code == 501
    assert "no --webhook-secret-file" in refusal_of(response)["message"]


def test_the_signature_is_that_of_standard_webhooks(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{OTHER_SECRET}\n{SECRET}\n")
    headers = signed_headers(
        read_secrets(file),
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )

    # Of the reference libraries' own tests.
    of_reference = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    signatures = headers["webhook-signature"].split(" ")
    assert signatures[1] == of_reference
    assert len(signatures) == 2


@pytest.mark.parametrize("content", ["", "none", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ="])
def test_a_file_without_secrets_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secrets"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"^webhook_secret_file: expected ") as caught:
        read_secrets(file)
    assert not content or content not in str(caught.value).replace("whsec_ and", "")


def test_a_file_of_secrets_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_secrets(tmp_path / "none")


async def test_a_receiver_that_does_not_answer_is_tried_again(
    start_jobs: StartJobs, hooks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with start_jobs(**hooks, webhook_attempts=2) as gateway, server:
        await added(gateway, webhook=f"http://127.0.0.1:{port}/")
        await until(lambda: "webhook given up" in caplog.text)
    (given_up,) = [each for each in caplog.records if each.message == "webhook given up"]
    assert "Disconnected" in vars(given_up)["problem"]
