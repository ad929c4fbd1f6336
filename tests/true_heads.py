"""FLUX.1's files at their true sizes, as far as their heads: no weights, and next to nothing on the disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import gguf

from safelight.model.heads.safetensors_head import DTYPE_BITS
from safelight.model.single_files import configs, names
from safelight.model.single_files.names import Config, Table

Shapes = Mapping[str, tuple[int, ...]]


def save_shapes(path: Path, shapes: Shapes, dtype: str = "BF16", **dtypes: str) -> Path:
    """A safetensors file with such tensors."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        kind = dtypes.get(name.rpartition(".")[2], dtype)
        start, end = end, end + math.prod(shape) * DTYPE_BITS[kind] // 8
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
    return path


def save_gguf_shapes(path: Path, shapes: Shapes, dtype: str = "Q4_K", architecture: str = "flux") -> Path:
    """A GGUF file with such tensors; those of one dimension are in F32."""
    key, value = b"general.architecture", architecture.encode()
    head = b"GGUF" + struct.pack("<IQQQ", 3, len(shapes), 1, len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    end = 0
    for name, shape in shapes.items():
        small = len(shape) == 1 or shape[-1] % 256 != 0
        kind = gguf.GGMLQuantizationType["F32" if small else dtype]
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, end)
        end += -(-math.prod(shape) // block * block_bytes // 32) * 32
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + end)
    return path


@cache
def true_shapes(component: str, *, guidance: bool = False) -> Shapes:
    """The parameters of FLUX.1's own networks."""
    import torch  # noqa: PLC0415
    from diffusers import AutoencoderKL, FluxTransformer2DModel  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel  # noqa: PLC0415

    config = {
        key: value
        for key, value in configs.COMPONENTS[component].items()
        if key not in ("architectures", "_class_name")
    }
    with torch.device("meta"):
        if component == "transformer":
            network = FluxTransformer2DModel(**config | {"guidance_embeds": guidance})
        elif component == "vae":
            blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
            network = AutoencoderKL(**config, **blocks)
        elif component == "text_encoder":
            network = CLIPTextModel(CLIPTextConfig(**config))
        else:
            network = T5EncoderModel(T5Config(**config))
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    shapes.pop("encoder.embed_tokens.weight", None)
    return shapes


def renamed_shapes(shapes: Shapes, table: Table) -> dict[str, tuple[int, ...]]:
    """Under the names of the table; of what is put together the rows are added up."""
    made: dict[str, tuple[int, ...]] = {}
    for name, source in table.items():
        shape = shapes[name] + ((1, 1) if source.is_convolution else ())
        rows = made[source.name][0] if source.name in made else 0
        made[source.name] = (rows + shape[0], *shape[1:])
    return made


def bfl_shapes(*, guidance: bool = False) -> dict[str, tuple[int, ...]]:
    config: Config = {**configs.COMPONENTS["transformer"], "guidance_embeds": guidance}
    return renamed_shapes(true_shapes("transformer", guidance=guidance), names.bfl_transformer(config))


def part_shapes(component: str) -> dict[str, tuple[int, ...]]:
    """As ComfyUI's files have them."""
    tables = {
        "vae": names.ldm_autoencoder,
        "text_encoder": names.transformers_clip,
        "text_encoder_2": names.transformers_t5,
    }
    return renamed_shapes(true_shapes(component), tables[component](configs.COMPONENTS[component]))


def llama_t5_shapes() -> dict[str, tuple[int, ...]]:
    return renamed_shapes(true_shapes("text_encoder_2"), names.llama_t5(configs.COMPONENTS["text_encoder_2"]))


def save_true_flux(folder: Path) -> Path:
    """FLUX.1-schnell in the diffusers layout, in bf16: 34 GB by its heads, and nothing behind them on the disk."""
    (folder / "model_index.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(configs.INDEX))
    for component, config in configs.COMPONENTS.items():
        (folder / component).mkdir()
        (folder / component / "config.json").write_text(json.dumps(config))
        stem = "model" if component.startswith("text") else "diffusion_pytorch_model"
        save_shapes(folder / component / f"{stem}.safetensors", true_shapes(component))
    return folder
