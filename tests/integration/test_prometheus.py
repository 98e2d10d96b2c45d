"""Rules, dashboard and autoscalers: every query names what is exported, and has a result.

Debian's package `prometheus` is what evaluates them.
"""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from muse.orchestrator.v1 import orchestrator_pb2
from muse_client import MuseClient

from services.runtime.observability.instruments import INSTRUMENTS, SECONDS
from services.stages import ORCHESTRATOR, STAGES
from tools.local import local_stack

COMPONENTS = Path(__file__).parents[2] / "k8s/components"
RULES = COMPONENTS / "monitoring/prometheus/rules.yaml"
BY_PROMETHEUS = {"instance", "job", "namespace", "pod", "le"}  # labels that no server sets itself
WORDS = {"sum", "avg", "by", "rate", "increase", "histogram_quantile", "avg_over_time"}
WORDS |= {"or", "and", "bool"}
PATIENCE_S = 120.0


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def adapter_rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(
        (COMPONENTS / "hpa-stages/adapter-rules.yaml").read_text()
    )["rules"]
    return found


def objects(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((COMPONENTS / path).read_text()))


def queries() -> dict[str, str]:
    """Returns every query by where it stands, as Prometheus is asked it."""
    found = {}
    for rule in rules():
        if "record" in rule:
            found[f"rule {rule['record']}"] = rule["expr"]
        else:  # asked whether it fires, an alert has a result at rest too
            found[f"alert {rule['alert']}"] = re.sub(r" ([<>]) ", r" \1 bool ", rule["expr"])
    dashboard = json.loads((COMPONENTS / "monitoring/grafana/muse.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            where = f"panel {panel['title']} {target['refId']}"
            found[where] = target["expr"].replace("$__rate_interval", "1m")
    for each in objects("keda/scaled-objects.yaml"):
        for number, trigger in enumerate(each["spec"]["triggers"]):
            where = f"keda {each['metadata']['name']} {number}"
            found[where] = trigger["metadata"]["query"]
    for rule in adapter_rules():
        query = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"])
        query = query.replace("<<.LabelMatchers>>", 'namespace="muse",pod=~"base|superres"')
        found[f"adapter {rule['name']['as']}"] = query.replace("<<.GroupBy>>", "pod")
        found[f"adapter's series {rule['name']['as']}"] = rule["seriesQuery"]
    return found


QUERIES = queries()
SERVERS = (ORCHESTRATOR, *STAGES)
EDITS = orchestrator_pb2.GenerateRequest.DESCRIPTOR.oneofs_by_name["edit"].fields
EXTRA = {
    "stage": SERVERS,
    "target": tuple(STAGES),
    "kind": ("generate", "encode", "decode", "get_status", *(edit.name for edit in EDITS)),
}
EXPORTED = {
    name: {"stage": SERVERS, **{label: held or EXTRA[label] for label, held in each.labels.items()}}
    for each in INSTRUMENTS
    for name in each.prometheus_names
}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize("where", QUERIES)
def test_every_query_names_what_is_exported(where: str) -> None:
    query = QUERIES[where]
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", query)
    names = set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - WORDS
    assert names
    assert names <= EXPORTED.keys() | RECORDED | {"up"}

    labels: dict[str, set[str]] = {}
    for name in names:
        for label, held in EXPORTED.get(name, {}).items():
            labels.setdefault(label, set()).update(held)
    for label, operator, text in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', query):
        if label == "le":
            assert float(text) in SECONDS
        elif label not in BY_PROMETHEUS:
            values = text.split("|") if "~" in operator else [text]
            assert labels[label] >= set(values), (label, values)
    for group in re.findall(r"by \(([^)]*)\)", query):
        assert {each.strip() for each in group.split(",")} <= labels.keys() | BY_PROMETHEUS


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(query for where, query in QUERIES.items() if where.startswith("panel "))

    for each in INSTRUMENTS:
        assert any(name in shown for name in each.prometheus_names), each.name


def test_the_autoscalers_of_pods_ask_for_what_the_adapter_serves() -> None:
    served = {rule["name"]["as"] for rule in adapter_rules()}
    asked = {
        metric["pods"]["metric"]["name"]
        for each in objects("hpa-stages/stages.yaml")
        for metric in each["spec"]["metrics"]
    }

    assert asked == served
    assert {
        each["metadata"]["name"].replace("-", "_") for each in objects("hpa-stages/stages.yaml")
    } == set(STAGES)


def test_the_scrape_finds_the_port_that_pods_name() -> None:
    (job,) = yaml.safe_load((COMPONENTS / "monitoring/prometheus/scrape.yaml").read_text())[
        "scrape_configs"
    ]
    kept = [each["regex"] for each in job["relabel_configs"] if each.get("action") == "keep"]

    assert job["job_name"] == "muse"
    assert kept == ["metrics"]
    assert {each.get("target_label") for each in job["relabel_configs"]} >= {"namespace", "pod"}


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def result(self, query: str) -> list[Any]:
        found: list[Any] = self.get("api/v1/query", query=query)["result"]
        return found


@contextmanager
def prometheus(folder: Path, targets: dict[str, str]) -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes every second.

    Args:
        folder: Where it may write.
        targets: "host:port" of each server's endpoint, by the server's name.
    """
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "muse",
                "static_configs": [
                    {"targets": [target], "labels": {"namespace": "muse", "pod": name}}
                    for name, target in targets.items()
                ],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder}/prometheus.yml"),
                *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"),
            ],
            stdout=log,
            stderr=log,
        )
        try:
            running = Prometheus(f"http://127.0.0.1:{port}")
            deadline_s = time.monotonic() + PATIENCE_S
            while True:
                try:
                    running.result("vector(1)")
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, (folder / "prometheus.log").read_text()
                    assert time.monotonic() < deadline_s
                    time.sleep(0.2)
            yield running
        finally:
            process.terminate()
            process.wait(30)


def endpoints(log: Path) -> dict[str, str]:
    """Returns where each server says its metrics are, by its name."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {
        line["service"].removeprefix("muse."): urllib.parse.urlsplit(line["address"]).netloc
        for line in lines
        if line["message"] == "metrics"
    }


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="NOT RUN: no query is evaluated, for want of prometheus (apt-get install prometheus)",
)
def test_prometheus_scrapes_the_stack_and_evaluates_every_query(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    log = tmp_path / "servers.log"
    with log.open("w") as writing, local_stack(checkpoints, writing) as stack:
        targets = endpoints(log)
        assert set(targets) == set(SERVERS)
        with (
            prometheus(tmp_path, targets) as running,
            MuseClient(stack.address) as client,
        ):
            left, deadline_s = dict(QUERIES), time.monotonic() + PATIENCE_S
            while left:
                assert time.monotonic() < deadline_s, f"without a result: {left}"
                client.generate("a fox")
                left = {where: query for where, query in left.items() if not running.result(query)}
                time.sleep(0.2)
            groups = running.get("api/v1/rules")["groups"]
            up = running.result('up{job="muse"}')

    evaluated = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in evaluated} == {
        rule.get("record") or rule["alert"] for rule in rules()
    }
    assert {rule["health"] for rule in evaluated} == {"ok"}
    assert [each["value"][1] for each in up] == ["1"] * len(SERVERS)
