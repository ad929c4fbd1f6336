"""FLUX.1's files at their true sizes are known by their heads, and every other one is called what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from safelight.errors import UnsupportedModel
from safelight.model.single_files import configs
from safelight.model.single_files.parts import check_complete, read_part, read_parts
from safelight.model.single_files.sizes import read_config
from tests.single_files import ALL_IN_ONE
from tests.true_heads import (
    Shapes,
    bfl_shapes,
    llama_t5_shapes,
    part_shapes,
    save_gguf_shapes,
    save_shapes,
    true_shapes,
)


def read_configs(path: Path) -> dict[str, Mapping[str, object]]:
    """Of all parts in the file, which are complete."""
    found = {name: read_config(part, configs.COMPONENTS[name]) for name, part in read_parts(path).items()}
    for name, part in read_parts(path).items():
        check_complete(part, found[name])
    return found


def refusal(path: Path) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        read_configs(path)
    assert caught.value.message.startswith(f"{path} ")
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path} ")


def prefixed(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_the_transformer_of_schnell_and_dev_is_told_by_its_tensors(tmp_path: Path, prefix: str, guidance: bool) -> None:
    shapes = prefixed(bfl_shapes(guidance=guidance), prefix)
    wanted = {"transformer": {**configs.COMPONENTS["transformer"], "guidance_embeds": guidance}}

    assert read_configs(save_shapes(tmp_path / "flux1.safetensors", shapes)) == wanted
    assert read_configs(save_gguf_shapes(tmp_path / "flux1-Q4_K_S.gguf", shapes)) == wanted


def test_the_transformer_in_diffusers_names_is_one_file_too(tmp_path: Path) -> None:
    path = save_shapes(tmp_path / "flux1.safetensors", true_shapes("transformer"), "F8_E4M3")

    assert read_configs(path) == {"transformer": configs.COMPONENTS["transformer"]}


def test_t5_of_llama_cpp_and_of_comfyui_is_told(tmp_path: Path) -> None:
    wanted = {"text_encoder_2": configs.COMPONENTS["text_encoder_2"]}

    assert read_configs(save_gguf_shapes(tmp_path / "t5.gguf", llama_t5_shapes(), "Q8_0", "t5encoder")) == wanted
    assert read_configs(save_shapes(tmp_path / "t5.safetensors", part_shapes("text_encoder_2"), "F16")) == wanted


@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_the_small_parts_are_told(tmp_path: Path, component: str) -> None:
    found = read_configs(save_shapes(tmp_path / "part.safetensors", part_shapes(component)))[component]

    assert configs.COMPONENTS[component].items() <= found.items()


def all_in_one() -> dict[str, tuple[int, ...]]:
    shapes = prefixed(bfl_shapes(), ALL_IN_ONE["transformer"])
    for component, prefix in ALL_IN_ONE.items():
        if component != "transformer":
            shapes |= prefixed(part_shapes(component), prefix)
    return shapes


def test_an_all_in_one_has_all_four(tmp_path: Path) -> None:
    path = save_shapes(tmp_path / "all.safetensors", all_in_one(), "F8_E4M3")

    assert read_configs(path).keys() == ALL_IN_ONE.keys()


def with_columns(name: str, columns: int) -> dict[str, tuple[int, ...]]:
    shapes = bfl_shapes(guidance=True)
    return shapes | {name: (shapes[name][0], columns)}


def scaled(shapes: Shapes, name: str) -> dict[str, tuple[int, ...]]:
    return dict(shapes) | {name: ()}


UNET = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
FOREIGN: Mapping[str, tuple[Callable[[], Shapes], str]] = {
    "a LoRA": (
        lambda: {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)},
        "is a LoRA: serve the model",
    ),
    "a LoRA of PEFT": (lambda: {"transformer.x_embedder.lora_A.weight": (4, 64)}, "is a LoRA: serve the model"),
    "SD 1.5": (lambda: UNET, "is of Stable Diffusion 1 or 2"),
    "SDXL": (lambda: UNET | {"conditioner.embedders.1.model.ln_final.weight": (1280,)}, "is of Stable Diffusion XL"),
    "SD3": (
        lambda: {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (9, 3)},
        "is of Stable Diffusion 3",
    ),
    "FLUX.2": (lambda: bfl_shapes() | {"double_stream_modulation_img.lin.weight": (9, 3)}, "is of FLUX.2"),
    "Chroma": (lambda: bfl_shapes() | {"distilled_guidance_layer.in_proj.weight": (9, 3)}, "is of Chroma"),
    "Fill": (lambda: with_columns("img_in.weight", 384), "is of FLUX.1 Fill"),
    "Canny or Depth": (lambda: with_columns("img_in.weight", 128), "is of a FLUX.1 with a control picture"),
    "Redux": (lambda: {"redux_up.weight": (12288, 1152)}, "is of FLUX.1 Redux"),
    "a ControlNet": (lambda: bfl_shapes() | {"controlnet_x_embedder.weight": (9, 3)}, "is of a ControlNet"),
    "Qwen-Image": (
        lambda: {
            "transformer_blocks.0.img_mod.1.weight": (9, 3),
            "transformer_blocks.0.attn.add_q_proj.weight": (9, 3),
        },
        "is of Qwen-Image",
    ),
    "a language model": (lambda: {"model.layers.0.self_attn.q_proj.weight": (9, 3)}, "is of a language model"),
    "nothing known": (
        lambda: {"some.weight": (9, 3)},
        "holds no part of FLUX.1, but 1 other tensors, such as some.weight",
    ),
    "no tensors": (dict, "holds no part of FLUX.1, but 0 other tensors"),
    "nf4": (lambda: scaled(bfl_shapes(), "double_blocks.0.img_attn.qkv.weight.absmax"), "quantized with bitsandbytes"),
    "nvfp4": (lambda: scaled(bfl_shapes(), "double_blocks.0.img_attn.qkv.weight_scale_2"), "quantized with nvfp4"),
    "Nunchaku": (lambda: scaled(bfl_shapes(), "double_blocks.0.img_attn.qkv.wscales"), "quantized with Nunchaku"),
    "half converted": (
        lambda: (
            {k: v for k, v in bfl_shapes().items() if not k.startswith("single_blocks.37.")}
            | {"single_blocks.38.linear2.bias": (3072,)}
        ),
        "lacks 15 tensors of FLUX.1's transformer, such as single_blocks.37.",
    ),
    "with both namings": (
        lambda: bfl_shapes() | {"single_transformer_blocks.0.proj_mlp.weight": (9, 3)},
        "has 1 tensors that FLUX.1's transformer has no place for",
    ),
    "UMT5": (
        lambda: (
            part_shapes("text_encoder_2")
            | {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64)}
        ),
        "is a UMT5, of another model",
    ),
    "T5 1.0": (
        lambda: {name.replace("wi_0", "wi"): shape for name, shape in part_shapes("text_encoder_2").items()},
        "is a T5 of version 1.0",
    ),
    "heads of 64": (
        lambda: {
            name: (64,) if "norm.scale" in name or "_norm.scale" in name else shape
            for name, shape in bfl_shapes().items()
        },
        "has attention heads of 64, and FLUX.1's have 128",
    ),
    "blocks without end": (
        lambda: bfl_shapes() | {"double_blocks.99999999999.img_mod.lin.bias": (9,)},
        "numbers its blocks up to",
    ),
}


@pytest.mark.parametrize(("make", "said"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_served_is_called_what_it_is(tmp_path: Path, make: Callable[[], Shapes], said: str) -> None:
    dtypes = {"absmax": "F32"}
    path = save_shapes(tmp_path / "file.safetensors", make(), **dtypes)

    assert said in refusal(path)


def test_fp4_is_refused_by_its_dtype(tmp_path: Path) -> None:
    path = save_shapes(tmp_path / "file.safetensors", bfl_shapes(), "F4")

    assert "as F4, which is not read" in refusal(path)


def test_a_piece_of_a_gguf_says_how_the_pieces_are_put_together(tmp_path: Path) -> None:
    path = save_gguf_shapes(tmp_path / "piece.gguf", {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)})
    content = path.read_bytes()
    more = b"\x0b\0\0\0\0\0\0\0split.count" + b"\x02\0\0\0" + b"\x03\0"
    head = content[:16] + b"\x02" + content[17:24] + more + content[24:]
    path.write_bytes(head[: -len(more) % 32 - 32 or None] + bytes(64))

    assert "is one of 3 pieces of a GGUF file; put them together with `llama-gguf-split --merge`" in refusal(path)


def test_the_wrong_part_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = save_shapes(tmp_path / "ae.safetensors", part_shapes("vae"))

    with pytest.raises(UnsupportedModel, match=r"holds FLUX\.1's autoencoder \(VAE\), not its T5 encoder"):
        read_part(path, "text_encoder_2")


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 5), (), (0, 3072)])
def test_a_block_of_another_shape_than_the_first_is_refused_by_its_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    name = "double_blocks.3.img_mlp.0.weight"
    path = save_shapes(tmp_path / "file.safetensors", bfl_shapes() | {name: shape})
    part = read_part(path, "transformer")

    with pytest.raises(UnsupportedModel, match=rf"has {name} as .*first block as \[12288, 3072\]: .*; use"):
        check_complete(part, read_config(part, configs.COMPONENTS["transformer"]))
