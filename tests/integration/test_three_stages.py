"""A system without a superres as `muse up` runs it, through every kind of request."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from muse_client import InvalidRequest, MuseClient, sampling
from PIL import Image

from services.presets import preset
from tests.integration.every_edit import check_every_edit
from tests.integration.ports import GATEWAY_OFFSET, free_base_port, http_of
from tools.local.folders import OF_SUPERRES

SIDE_PX = preset("tiny").low_tokenizer.image_size
STAGES = ["text_encoder", "base", "tokenizer"]
MUSE = [sys.executable, "-c", "from tools.cli.main import main; main()"]


@pytest.fixture(scope="module")
def address(
    checkpoints: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """`muse up` with the checkpoints of three stages, until SIGTERM."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    shutil.copytree(checkpoints, folder)
    for place in OF_SUPERRES:
        shutil.rmtree(folder / place)
    port, log = free_base_port(), cache / "up-without-superres.log"
    words = ["up", f"--checkpoints={folder}", f"--base-port={port}"]
    words += [f"--gateway-port={port + GATEWAY_OFFSET}"]
    process = subprocess.Popen(
        [*MUSE, *words],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"serving on 127.0.0.1:{port}\n", log.read_text()[-2000:]
    assert process.stdout.readline() == f"HTTP on {http_of(port)}\n"
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "stopped\n"


def http(address: str, path: str, **body: Any) -> Any:
    """The answer of the gateway."""
    request = urllib.request.Request(
        http_of(int(address.split(":")[1])) + path,
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_status_has_the_stages_that_run(address: str) -> None:
    asked = [*MUSE, "status", "--json", "--server", address]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    stages = {row["stage"]: row for row in json.loads(ended.stdout)["stages"]}
    assert list(stages) == STAGES
    low = {"low_codebook": stages["base"]["status"]["fingerprints"]["codebook"]}
    assert stages["tokenizer"]["status"]["fingerprints"] == low


def test_generate_prints_the_time_of_each_and_takes_shared_flags(
    address: str, tmp_path: Path
) -> None:
    words = ["generate", "a fox", "--guidance-scale=2", "--count=2", "--trace", "--server", address]
    ended = subprocess.run(
        [*MUSE, *words, f"--out={tmp_path / 'fox.png'}", f"--preview-dir={tmp_path / 'previews'}"],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stderr
    assert all(stage in ended.stdout for stage in STAGES)
    assert "superres" not in ended.stdout
    with Image.open(tmp_path / "fox-1.png") as image:
        assert image.size == (SIDE_PX, SIDE_PX)
        assert "superres" not in json.loads(image.info["checkpoints"])


def test_every_edit_passes_the_whole_stack(address: str) -> None:
    with MuseClient(address) as client:
        for each in check_every_edit(client):
            assert {decode.stage for decode in each.decodes} == {"base"}


def test_a_seed_gives_the_same_bytes_over_grpc_and_http(address: str) -> None:
    with MuseClient(address) as client:
        (expected,) = client.generate("a fox", seed=7)
    answer = http(address, "/v1/images/generations", prompt="a fox", seed=7)

    assert base64.b64decode(answer["data"][0]["b64_json"]) == expected.png


def test_parameters_of_a_superres_are_refused_over_grpc_and_http(address: str) -> None:
    with MuseClient(address) as client, pytest.raises(InvalidRequest) as refused:
        client.generate("a fox", superres=sampling(steps=8))
    with pytest.raises(urllib.error.HTTPError) as answered:
        http(address, "/v1/muse/generate", prompt="a fox", superres={"steps": 8})

    assert [each.field for each in refused.value.violations] == ["superres.steps"]
    assert answered.value.code == 400
    assert "this system has no superres" in json.load(answered.value)["error"]["message"]
