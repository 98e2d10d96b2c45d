"""`python -m training launch`: what it renders, and what it refuses."""

import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects, Workload
from k8s.checks.rendering import Manifest, parse
from k8s.checks.schemas import schema_mistakes

RUN = "base --preset muse-3b --data /work/data --checkpoints /work/checkpoints --out /work/runs/b"
OWN = "--image registry.test/muse-training:1 --bucket of-a-team"
Launch = Callable[[str], tuple[str | int, str]]


@pytest.fixture
def launch(
    rendered: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Launch:
    """Runs `python -m training launch` here; returns its exit status, or its error, and output."""
    from training.__main__ import main

    def run(words: str) -> tuple[str | int, str]:
        monkeypatch.setattr(sys, "argv", ["training", "launch", *shlex.split(words)])
        code: str | int | None = 0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of cyclopts: it takes sys.argv
                main()
        except SystemExit as ended:
            code = ended.code
        return code or 0, capsys.readouterr().out

    return run


def trainer(manifests: list[Manifest]) -> Workload:
    (found,) = Objects(manifests).workloads("JobSet")
    return found


@pytest.mark.parametrize(
    ("words", "hosts", "chips", "topology"),
    [
        ("--hosts 16 --mesh=fsdp=64", 16, 4, "8x8"),
        ("--hosts 1 --topology 1x1", 1, 1, "1x1"),
        ("--hosts 64 --accelerator tpu-v4-podslice --mesh data=4,fsdp=64", 64, 4, "4x8x8"),
        ("--hosts 4 --accelerator tpu-v6e-slice --topology 4x4", 4, 4, "4x4"),
        ("--hosts 2 --accelerator tpu-v5p-slice", 2, 4, "2x2x2"),
    ],
)
def test_a_dry_run_prints_whole_manifests_of_the_hosts(
    words: str, hosts: int, chips: int, topology: str, launch: Launch
) -> None:
    status, printed = launch(f"{RUN} {words} {OWN} --dry-run")

    assert status == 0
    manifests = parse(printed)
    assert schema_mistakes(manifests) == []
    assert mistakes(manifests) == []
    pods = trainer(manifests)
    assert (pods.spec["parallelism"], pods.spec["completions"]) == (hosts, hosts)
    assert pods.chips("google.com/tpu") == chips
    assert pods.node_selector["cloud.google.com/gke-tpu-topology"] == topology
    (bucket,) = Objects(manifests).of("PersistentVolume")
    assert bucket["spec"]["csi"]["volumeHandle"] == "of-a-team"
    assert pods.containers[0]["image"] == "registry.test/muse-training:1"


def test_each_pod_gets_the_flags_of_the_run_and_its_own_number(launch: Launch) -> None:
    _, printed = launch(f"{RUN} --learning-rate=3e-4 --hosts 4 --name wide --dry-run")

    pods = trainer(parse(printed))
    (box,) = pods.containers
    assert box["command"] == ["python", "-m", "training"]
    assert box["args"] == [
        *(*RUN.split(), "--learning-rate=3e-4", "--coordinator=$(COORDINATOR):8476"),
        *("--processes=4", "--process-id=$(JOB_COMPLETION_INDEX)"),
    ]
    (source,) = [entry for entry in box["env"] if entry["name"] == "COORDINATOR"]
    annotation = "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    assert source["valueFrom"]["fieldRef"]["fieldPath"] == annotation
    assert (pods.name, pods.labels["app.kubernetes.io/name"]) == ("wide", "wide")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--hosts 4", "expected --dry-run, which prints the manifests, or --apply"),
        ("--hosts 4 --dry-run --apply", "got both"),
        ("--hosts 3 --dry-run", "hosts: expected one of 1, 2, 4, 8, 16, 32, 64"),
        (
            "--hosts 16 --topology 4x4 --dry-run",
            "hosts: expected 4 for the topology 4x4, at 4 chips a host, got 16",
        ),
        ("--hosts 4 --topology 4x4x4 --dry-run", "topology: expected one of 1x1, 2x2, 2x4, 4x4"),
        ("--hosts 4 --accelerator v5e --dry-run", "accelerator: expected one of tpu-v4-podslice"),
        ("--hosts 4 --mesh fsdp=8 --dry-run", "mesh: fsdp=8 takes 8 devices, expected the 16"),
        ("--hosts 4 --coordinator auto --dry-run", "expected no --coordinator"),
        ("--hosts 4 --name Base_1 --dry-run", "name: expected lower-case letters"),
        (f"--hosts 4 --name {'a' * 26} --dry-run", "name: expected at most 25 characters"),
        ("--hosts 4 --image registry.test/muse --dry-run", "image: expected a tag or digest"),
        ("--hosts 4 --apply", "image: k8s/training names only an example"),
        ("--hosts 4 --image registry.test/muse:1 --apply", "bucket: k8s/training names only an"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(words: str, message: str, launch: Launch) -> None:
    error, printed = launch(f"{RUN} {words}")

    assert isinstance(error, str)
    assert message in error
    assert "\n" not in error
    assert printed == ""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("/work/runs/b", "runs/b", "out: expected a folder below /work"),
        ("/work/checkpoints", "/checkpoints", "checkpoints: expected a folder below /work"),
        ("/work/data", "data", "data: expected a folder below /work"),
        ("muse-3b", "muse-4b", "muse-4b"),
    ],
)
def test_what_every_pod_would_fail_of_is_refused_here(
    before: str, after: str, message: str, launch: Launch
) -> None:
    error, printed = launch(f"{RUN.replace(before, after)} --hosts 4 --dry-run")

    assert isinstance(error, str)
    assert message in error
    assert printed == ""


def test_a_flag_that_the_stage_has_not_is_refused_as_by_the_stage(launch: Launch) -> None:
    refused = launch(f"{RUN} --learning-rat 1 --hosts 4 --dry-run")

    assert refused == (2, "")  # cyclopts says it on stderr


def test_in_an_image_without_the_manifests_it_says_where_to_run_it(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "k8s.deployment.training_runs", None)

    error, _ = launch(f"{RUN} --hosts 4 --dry-run")

    assert error == (
        "error: launch needs k8s.deployment.training_runs, which is not installed: run it from a "
        "checkout"
    )


def test_without_kubectl_it_says_what_to_install(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from k8s.checks import rendering

    monkeypatch.setattr(rendering, "renderer", lambda: None)

    error, _ = launch(f"{RUN} --hosts 4 --dry-run")

    assert isinstance(error, str)
    assert error.startswith("error: no kubectl and no kustomize on the PATH: install one")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that renders as the real one does, and keeps what it is given to apply."""
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("no kubectl on the PATH")
    script = tmp_path / "kubectl"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = kustomize ] && exec {shlex.quote(real)} "$@"\n'
        f'echo "$@" >{tmp_path}/words\ncat >{tmp_path}/manifests\necho jobset applied\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_apply_hands_the_manifests_of_the_dry_run_to_kubectl(launch: Launch, kubectl: Path) -> None:
    words = f"{RUN} --hosts 4 {OWN}"
    _, dry = launch(f"{words} --dry-run")
    assert not (kubectl / "words").exists()

    status, printed = launch(f"{words} --apply --context pod")

    assert status == 0
    assert (kubectl / "manifests").read_text() == dry
    assert (kubectl / "words").read_text() == "apply --server-side --filename=- --context=pod\n"
    assert printed.splitlines() == [
        "jobset applied",
        "kubectl -n muse-training logs -f -l app.kubernetes.io/name=train-base",
    ]


def test_what_kubectl_refuses_is_the_error(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    error, printed = launch(f"{RUN} --hosts 4 {OWN} --apply --context away")

    assert isinstance(error, str)
    assert error.startswith("error: kubectl apply: ")
    assert "away" in error
    assert printed == ""
