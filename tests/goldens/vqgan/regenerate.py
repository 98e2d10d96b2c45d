"""Makes the goldens of published VQGANs from the libraries that they were published with.

    python -m tests.goldens.vqgan.regenerate --taming A --latent-diffusion B --open-muse C \
        --llamagen D --maskgit E

Needs torch, diffusers, einops, flax and ml_collections, and checkouts of
CompVis/taming-transformers 3ba01b2, CompVis/latent-diffusion a506df5, huggingface/open-muse
64e1afe, FoundationVision/LlamaGen ce98ec4 and google-research/maskgit 1db2359. Writes beside itself
a file for each network: names and shapes of its tensors, whose values `drawn_tensors` draws, and
what the library's own module makes of drawn images and drawn tokens.
"""

import argparse
import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tests.drawn_tensors import drawn_image, drawn_tensors

FOLDER = Path(__file__).parent
SIZES = ((8, 8), (16, 24))  # of the images
CODES, CODE_DIM = 64, 8


class Reference(NamedTuple):
    """A library's network.

    Attributes:
        shapes: Of its tensors.
        encode: Images in [-1, 1], [height width 3], to ids.
        decode: Ids to images in the range of the network's own pixels.
        described: Its config.json, where it has one.
    """

    shapes: Mapping[str, tuple[int, ...]]
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]
    described: Mapping[str, Any]


class Taming(nn.Module):
    """taming's and LDM's `VQModel` without PyTorch Lightning: the same parts by the same names."""

    def __init__(self, model: Any, quantize: Any, shape: Mapping[str, Any], code_dim: int) -> None:
        """Builds the parts from the modules of a checkout."""
        super().__init__()
        latent = shape["z_channels"]
        self.encoder, self.decoder = model.Encoder(**shape), model.Decoder(**shape)
        self.quantize = quantize.VectorQuantizer2(CODES, code_dim, beta=0.25)
        self.quant_conv = nn.Conv2d(latent, code_dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, latent, 1)

    def ids(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the ids of images."""
        return self.quantize(self.quant_conv(self.encoder(images)))[2][2]

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images of a grid of ids."""
        codes = self.quantize.get_codebook_entry(ids.flatten(), (1, *ids.shape, -1))
        return self.decoder(self.post_quant_conv(codes))


def torch_reference(
    module: nn.Module,
    ids: Callable[[torch.Tensor], torch.Tensor],
    images: Callable[[torch.Tensor], torch.Tensor],
    *,
    factor: int,
    signed: bool,
    described: Mapping[str, Any] | None = None,
) -> Reference:
    """Draws the tensors of a module, and wraps it to take images in [-1, 1]."""
    shapes = {name: tuple(each.shape) for name, each in module.state_dict().items()}
    shapes.pop("quantize.codebook_used", None)
    drawn = {name: torch.from_numpy(each) for name, each in drawn_tensors(shapes).items()}
    missing = module.load_state_dict(drawn, strict=False)
    assert set(missing.missing_keys) <= {"quantize.codebook_used"}, missing
    module.eval()

    def encode(image: np.ndarray) -> np.ndarray:
        pixels = image if signed else (image + 1) / 2
        with torch.no_grad():
            found = ids(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        return found.numpy().reshape(image.shape[0] // factor, image.shape[1] // factor)

    def decode(grid: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return images(torch.from_numpy(grid))[0].permute(1, 2, 0).numpy()

    return Reference(shapes, encode, decode, described or {})


def diffusers_reference(**changes: Any) -> Reference:
    """`VQModel` of diffusers; in its usual shape as aMUSEd's, without attention."""
    from diffusers import VQModel

    shape = {
        "block_out_channels": [32, 64],
        "down_block_types": 2 * ["DownEncoderBlock2D"],
        "up_block_types": 2 * ["UpDecoderBlock2D"],
        "layers_per_block": 2,
        "latent_channels": CODE_DIM,
        "num_vq_embeddings": CODES,
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
        **changes,
    }
    model = VQModel(**shape)

    def ids(images: torch.Tensor) -> torch.Tensor:
        return model.quantize(model.encode(images).latents)[2][2]

    def images(grid: torch.Tensor) -> torch.Tensor:
        shape = (1, *grid.shape, CODE_DIM)
        return model.decode(grid.flatten(), force_not_quantize=True, shape=shape).sample

    factor = 2 ** (len(shape["block_out_channels"]) - 1)
    described = {"_class_name": "VQModel", **shape}
    return torch_reference(model, ids, images, factor=factor, signed=False, described=described)


def taming_reference(checkout: Path) -> Reference:
    """taming's network with attention at its lowest resolution, as f16."""
    model = _module(checkout, "taming.modules.diffusionmodules.model")
    quantize = _module(checkout, "taming.modules.vqvae.quantize")
    module = Taming(model, quantize, _taming_shape(attended=16, latent=12), CODE_DIM)
    return torch_reference(module, module.ids, module.images, factor=2, signed=True)


def latent_diffusion_reference(checkout: Path, taming: Path) -> Reference:
    """LDM's network with codes of 4 numbers, as vq-f8."""
    model = _module(checkout, "ldm.modules.diffusionmodules.model")
    quantize = _module(taming, "taming.modules.vqvae.quantize")
    module = Taming(model, quantize, _taming_shape(attended=16, latent=4), 4)
    return torch_reference(module, module.ids, module.images, factor=2, signed=True)


def _taming_shape(*, attended: int, latent: int) -> dict[str, Any]:
    return {
        "double_z": False,
        "z_channels": latent,
        "resolution": 32,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": (1, 2),
        "num_res_blocks": 1,
        "attn_resolutions": [attended],
        "dropout": 0.0,
    }


def open_muse_reference(checkout: Path) -> Reference:
    """open-muse's `VQGANModel` without attention in the middle, and with it at a level."""
    module = _open_muse(checkout, "modeling_taming_vqgan")
    shape = {
        "resolution": 32,
        "hidden_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 2,
        "attn_resolutions": [16],
        "no_attn_mid_block": True,
        "z_channels": 12,
        "num_embeddings": CODES,
        "quantized_embed_dim": CODE_DIM,
    }
    model = module.VQGANModel(**shape)
    described = {"_class_name": "VQGANModel", **shape}
    # Its `decode_code` knows square grids alone.
    return torch_reference(
        model,
        model.get_code,
        lambda grid: model.decode(model.quantize.embedding(grid)[None].permute(0, 3, 1, 2)),
        factor=2,
        signed=False,
        described=described,
    )


def open_muse_maskgit_reference(checkout: Path) -> Reference:
    """open-muse's `MaskGitVQGAN`."""
    module = _open_muse(checkout, "modeling_maskgit_vqgan")
    model = module.MaskGitVQGAN(
        resolution=32,
        hidden_channels=32,
        channel_mult=(1, 2),
        z_channels=CODE_DIM,
        num_embeddings=CODES,
        quantized_embed_dim=CODE_DIM,
    )
    return torch_reference(
        model,
        model.get_code,
        lambda grid: model.decode(model.quantize.embedding(grid)[None].permute(0, 3, 1, 2)),
        factor=2,
        signed=False,
        described={"_class_name": "MaskGitVQGAN"},
    )


def llamagen_reference(checkout: Path) -> Reference:
    """LlamaGen's network, a quarter as wide."""
    module = _file(checkout / "tokenizer" / "tokenizer_image" / "vq_model.py", "llamagen_vq_model")
    args = module.ModelArgs(
        codebook_size=CODES,
        codebook_embed_dim=CODE_DIM,
        encoder_ch_mult=[1, 2],
        decoder_ch_mult=[1, 2],
        z_channels=12,
    )
    model = module.VQModel(args)
    narrow = {"ch": 32, "ch_mult": (1, 2), "z_channels": 12, "num_res_blocks": 1}
    model.encoder, model.decoder = module.Encoder(**narrow), module.Decoder(**narrow)

    def ids(images: torch.Tensor) -> torch.Tensor:
        return model.encode(images)[2][2]

    def images(grid: torch.Tensor) -> torch.Tensor:
        return model.decode_code(grid.flatten(), (1, CODE_DIM, *grid.shape))

    return torch_reference(model, ids, images, factor=2, signed=True)


def maskgit_reference(checkout: Path) -> Reference:
    """MaskGIT's network in JAX."""
    import jax
    import jax.numpy as jnp
    import ml_collections
    from flax.traverse_util import flatten_dict, unflatten_dict

    module = _module(checkout, "maskgit.nets.vqgan_tokenizer")
    config = ml_collections.ConfigDict(
        {
            "vqvae": {
                "quantizer": "vq",
                "codebook_size": CODES,
                "filters": 32,
                "num_res_blocks": 2,
                "channel_multipliers": [1, 2],
                "embedding_dim": CODE_DIM,
                "conv_downsample": False,
                "activation_fn": "swish",
                "norm_type": "GN",
            }
        }
    )
    model = module.VQVAE(config=config, train=False)

    def both(self: Any, images: Any) -> Any:
        return self.decode_from_indices(self.encode_to_indices(images))

    made = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), method=both)
    )
    flat = flatten_dict(made["params"], sep=".")
    shapes = {name: tuple(leaf.shape) for name, leaf in flat.items()}
    variables = {"params": unflatten_dict(drawn_tensors(shapes), sep=".")}

    def encode(image: np.ndarray) -> np.ndarray:
        pixels = (image[None] + 1) / 2
        return np.asarray(model.apply(variables, pixels, method=model.encode_to_indices))[0]

    def decode(grid: np.ndarray) -> np.ndarray:
        images = model.apply(variables, grid[None], method=model.decode_from_indices)
        return np.asarray(images)[0]

    return Reference(shapes, encode, decode, {})


def _module(checkout: Path, name: str) -> Any:
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(checkout))


def _file(file: Path, name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _open_muse(checkout: Path, name: str) -> Any:
    """Loads a module of open-muse without what loads and saves its models."""

    def register_to_config(init: Callable[..., None]) -> Callable[..., None]:
        def registered(self: Any, **changes: Any) -> None:
            nn.Module.__init__(self)
            defaults = inspect.signature(init).parameters.values()
            values = {each.name: each.default for each in defaults if each.name != "self"}
            self.config = types.SimpleNamespace(**{**values, **changes})
            init(self, **changes)

        return registered

    base = types.ModuleType("open_muse.modeling_utils")
    base.ConfigMixin = type("ConfigMixin", (), {})  # type: ignore[attr-defined]
    base.ModelMixin = nn.Module  # type: ignore[attr-defined]
    base.register_to_config = register_to_config  # type: ignore[attr-defined]
    sys.modules["open_muse"] = types.ModuleType("open_muse")
    sys.modules["open_muse.modeling_utils"] = base
    return _file(checkout / "muse" / f"{name}.py", f"open_muse.{name}")


def write(name: str, reference: Reference) -> None:
    """Writes what a network makes of drawn images and tokens."""
    arrays: dict[str, np.ndarray] = {
        "shapes": np.array(json.dumps(reference.shapes)),
        "described": np.array(json.dumps(reference.described)),
    }
    for index, (height, width) in enumerate(SIZES):
        ids = reference.encode(drawn_image(height, width, seed=index))
        tokens = np.random.RandomState(index).randint(0, CODES, ids.shape)
        pixels = reference.decode(tokens)
        print(f"{name}: {height}x{width}, {len(np.unique(ids))} different ids")
        arrays[f"ids.{index}"], arrays[f"tokens.{index}"] = ids.astype(np.int32), tokens
        arrays[f"pixels.{index}"] = pixels
    with (FOLDER / f"{name}.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def main() -> None:
    """Writes every golden."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("taming", "latent-diffusion", "open-muse", "llamagen", "maskgit"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    write("diffusers", diffusers_reference())
    write("taming", taming_reference(given.taming))
    write("ldm", latent_diffusion_reference(given.latent_diffusion, given.taming))
    write("openmuse", open_muse_reference(given.open_muse))
    write("openmuse_maskgit", open_muse_maskgit_reference(given.open_muse))
    write("llamagen", llamagen_reference(given.llamagen))
    write("maskgit", maskgit_reference(given.maskgit))


if __name__ == "__main__":
    main()
