"""What the engine adds is what the format of a file means, layer by layer, at FLUX.1's real width.

Expected products are made in the layout of each format's own network, and put into diffusers' by the function that
diffusers converts BFL's checkpoints with, which is no part of how LoRAs are read. One block of each kind is enough.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from torch import Tensor, nn

from safelight.engine.families.flux1.components import Components
from safelight.engine.low_rank import Layers, adapted
from tests.full_width import WIDTH, full_width_components, read

MLP, TEXT, POOLED = 12288, 4096, 768
PROBES = 3
"""Random inputs of each layer: two matrices that agree on them are the same."""
BFL = {
    "img_in": (64, WIDTH),
    "txt_in": (TEXT, WIDTH),
    "time_in.in_layer": (256, WIDTH),
    "time_in.out_layer": (WIDTH, WIDTH),
    "vector_in.in_layer": (POOLED, WIDTH),
    "vector_in.out_layer": (WIDTH, WIDTH),
    "guidance_in.in_layer": (256, WIDTH),
    "guidance_in.out_layer": (WIDTH, WIDTH),
    "final_layer.linear": (WIDTH, 64),
    "final_layer.adaLN_modulation.1": (WIDTH, 2 * WIDTH),
    "double_blocks.0.img_attn.qkv": (WIDTH, 3 * WIDTH),
    "double_blocks.0.img_attn.proj": (WIDTH, WIDTH),
    "double_blocks.0.img_mlp.0": (WIDTH, MLP),
    "double_blocks.0.img_mlp.2": (MLP, WIDTH),
    "double_blocks.0.img_mod.lin": (WIDTH, 6 * WIDTH),
    "double_blocks.0.txt_attn.qkv": (WIDTH, 3 * WIDTH),
    "double_blocks.0.txt_attn.proj": (WIDTH, WIDTH),
    "double_blocks.0.txt_mlp.0": (WIDTH, MLP),
    "double_blocks.0.txt_mlp.2": (MLP, WIDTH),
    "double_blocks.0.txt_mod.lin": (WIDTH, 6 * WIDTH),
    "single_blocks.0.linear1": (WIDTH, 3 * WIDTH + MLP),
    "single_blocks.0.linear2": (WIDTH + MLP, WIDTH),
    "single_blocks.0.modulation.lin": (WIDTH, 3 * WIDTH),
}
"""Inputs and outputs of every linear layer, as BFL's code has them."""
FUSED = {
    "double_blocks.0.img_attn.qkv": (WIDTH,) * 3,
    "double_blocks.0.txt_attn.qkv": (WIDTH,) * 3,
    "single_blocks.0.linear1": (WIDTH, WIDTH, WIDTH, MLP),
}
XLABS = {
    "double_blocks.0.processor.qkv_lora1": ("double_blocks.0.img_attn.qkv", 3 * WIDTH),
    "double_blocks.0.processor.proj_lora1": ("double_blocks.0.img_attn.proj", WIDTH),
    "double_blocks.0.processor.qkv_lora2": ("double_blocks.0.txt_attn.qkv", 3 * WIDTH),
    "double_blocks.0.processor.proj_lora2": ("double_blocks.0.txt_attn.proj", WIDTH),
    "single_blocks.0.processor.qkv_lora": ("single_blocks.0.linear1", 3 * WIDTH),
    "single_blocks.0.processor.proj_lora": ("single_blocks.0.linear2", WIDTH),
}
DOWN_UP, A_B, DEFAULT = ("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")


class Silent(nn.Linear):
    """Puts out zeros."""

    def forward(self, input: Tensor) -> Tensor:
        return input.new_zeros(*input.shape[:-1], self.out_features)


@pytest.fixture(scope="module")
def components() -> Components:
    """What comes out of a layer is what was added."""
    components = full_width_components(guidance_embeds=True)
    for network in (components.transformer, components.text_encoder):
        for _, linear in linears(network):
            linear.__class__ = Silent
    return components


class Format:
    """Random factors under the names of a format, and what they mean on the probes. Ranks and alphas differ."""

    def __init__(self, *, parts: tuple[str, str], alpha: bool, dtype: torch.dtype = torch.float32) -> None:
        self.parts, self.has_alpha, self.dtype = parts, alpha, dtype
        self.tensors: dict[str, Tensor] = {}
        self._random = torch.Generator().manual_seed(0)

    def add(self, name: str, inputs: int, outputs: int) -> Tensor:
        """What the layer adds to its outputs, a column for each probe."""
        rank = 2 + len(self.tensors) % 5
        alpha = 1.0 + len(self.tensors) % 3 if self.has_alpha else float(rank)
        down, up = self._draw(rank, inputs), self._draw(outputs, rank)
        self.tensors[f"{name}.{self.parts[0]}.weight"] = down
        self.tensors[f"{name}.{self.parts[1]}.weight"] = up
        if self.has_alpha:
            self.tensors[f"{name}.alpha"] = torch.tensor(alpha)
        return up.double() @ (down.double() @ probes(inputs)) * (alpha / rank)

    def _draw(self, *shape: int) -> Tensor:
        return (torch.randn(*shape, generator=self._random) * 0.1).to(self.dtype)


def probes(inputs: int) -> Tensor:
    return torch.randn(inputs, PROBES, generator=torch.Generator().manual_seed(inputs)).double()


def linears(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, each) for name, each in network.named_modules() if isinstance(each, nn.Linear))


def in_diffusers(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From BFL's layers to diffusers', by diffusers' converter of checkpoints; what is not there adds nothing."""
    checkpoint = {}
    for layer, (_, outputs) in BFL.items():
        checkpoint[f"{layer}.weight"] = rows.get(layer, torch.zeros(outputs, PROBES).double())
        checkpoint[f"{layer}.bias"] = torch.zeros(outputs)
    for norm in ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0"):
        for each in ("query_norm", "key_norm"):
            checkpoint[f"{norm}.norm.{each}.scale"] = torch.zeros(1)
    converted = convert_flux_transformer_checkpoint_to_diffusers(checkpoint)
    return {name.removesuffix(".weight"): each for name, each in converted.items() if each.shape[1:] == (PROBES,)}


def assert_adds(layers: Layers, network: nn.Module, expected: Mapping[str, Tensor]) -> None:
    """That every layer of the network puts out what is expected of it, and zeros where nothing is."""
    found = dict(linears(network))
    assert found.keys() >= expected.keys()
    with torch.no_grad(), adapted(network, [[(layers, 1.0)]]):
        for name, linear in found.items():
            added = linear(probes(linear.in_features).float().T.unsqueeze(0))[0].T
            right = expected.get(name, torch.zeros_like(added))
            torch.testing.assert_close(added.double(), right.double(), rtol=1e-4, atol=1e-4, msg=f"{name} is wrong")
    assert sum(int(each.any()) for each in expected.values()) == len(layers)


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


def one_trainer(name: str) -> str:
    return f"lora_transformer_{name.replace('.', '_')}"


Naming = tuple[Callable[[str], str], tuple[str, str], bool, torch.dtype]
NAMINGS: dict[str, Naming] = {
    "kohya": (kohya, DOWN_UP, True, torch.float32),
    "kohya in bf16": (kohya, DOWN_UP, True, torch.bfloat16),
    "kohya in fp8": (kohya, DOWN_UP, True, torch.float8_e4m3fn),
    "kohya in the other fp8": (kohya, DOWN_UP, True, torch.float8_e5m2),
    "kohya without alpha": (kohya, DOWN_UP, False, torch.float32),
    "ComfyUI's": ("diffusion_model.{}".format, DOWN_UP, True, torch.float32),
    "ComfyUI's with A and B": ("diffusion_model.{}".format, A_B, False, torch.float32),
    "BFL's checkpoint names": ("model.diffusion_model.{}".format, A_B, False, torch.float32),
    "bare": ("{}".format, A_B, False, torch.float32),
    "bare with down and up": ("{}".format, DOWN_UP, True, torch.float32),
    "fal's": ("base_model.model.{}".format, A_B, False, torch.float32),
    "PEFT's, of a model in memory": ("base_model.model.{}".format, DEFAULT, False, torch.float32),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_bfls_layers_add_what_they_mean(components: Components, tmp_path: Path, naming: str) -> None:
    rename, parts, has_alpha, dtype = NAMINGS[naming]
    made = Format(parts=parts, alpha=has_alpha, dtype=dtype)
    rows = {layer: made.add(rename(layer), *sizes) for layer, sizes in BFL.items()}

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


@pytest.mark.parametrize(
    ("rename", "parts"),
    [
        (one_trainer, DOWN_UP),
        (lambda name: f"lycoris_{name.replace('.', '_')}", DOWN_UP),  # LyCORIS in SimpleTuner
        (lambda name: f"lora_unet_{name.replace('.', '_')}_", DOWN_UP),  # TheLastBen's
        (lambda name: f"transformer.{name}", A_B),
        (lambda name: f"transformer.{name}", DOWN_UP),
        (lambda name: f"transformer.base_model.model.{name}", A_B),  # SimpleTuner's first ones
        (lambda name: f"base_model.model.{name}", A_B),
        (lambda name: f"base_model.model.transformer.{name}", DEFAULT),
        (lambda name: name, ("lora_A.lora_1", "lora_B.lora_1")),
    ],
)
@pytest.mark.parametrize("alpha", [True, False])
def test_diffusers_layers_add_what_they_mean(
    components: Components, tmp_path: Path, rename: Callable[[str], str], parts: tuple[str, str], alpha: bool
) -> None:
    made = Format(parts=parts, alpha=alpha)
    expected = {
        name: made.add(rename(name), linear.in_features, linear.out_features)
        for name, linear in linears(components.transformer)
    }

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, expected)


def test_one_trainers_numbered_parts_of_bfls_layers_add_what_they_mean(components: Components, tmp_path: Path) -> None:
    made, rows = Format(parts=DOWN_UP, alpha=True), {}
    for layer, (inputs, outputs) in BFL.items():
        name = "transformer.img_in.proj" if layer == "img_in" else f"transformer.{layer}"
        if layer in FUSED:
            parts = [made.add(f"{name}.{index}", inputs, each) for index, each in enumerate(FUSED[layer])]
            rows[layer] = torch.cat(parts)
        else:
            rows[layer] = made.add(name, inputs, outputs)

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


def test_xlabs_processors_add_what_they_mean(components: Components, tmp_path: Path) -> None:
    made, rows = Format(parts=("down", "up"), alpha=False), {}
    for name, (layer, outputs) in XLABS.items():
        added = made.add(name, BFL[layer][0], outputs)
        rows[layer] = torch.cat([added, torch.zeros(BFL[layer][1] - outputs, PROBES).double()])

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


@pytest.mark.parametrize(
    ("front", "is_flat"),
    [
        ("lora_te1_text_model_", True),
        ("lora_te_text_model_", True),
        ("text_encoder.text_model.", False),
        ("text_encoder.base_model.model.text_model.", False),
        ("text_encoders.clip_l.transformer.text_model.", False),
        ("clip_l.text_model.", False),
    ],
)
def test_clips_layers_add_what_they_mean_whatever_the_transformers_naming(
    components: Components, tmp_path: Path, front: str, is_flat: bool
) -> None:
    made, transformers = Format(parts=DOWN_UP, alpha=True), Format(parts=A_B, alpha=False)
    expected = {}
    for name, linear in linears(components.text_encoder):
        short = name.removeprefix("text_model.")
        full = front + (short.replace(".", "_") if is_flat else short)
        expected[name] = made.add(full, linear.in_features, linear.out_features)
    rows = {"img_in": transformers.add("diffusion_model.img_in", *BFL["img_in"])}

    lora = read(tmp_path / "film", components, made.tensors | transformers.tensors)

    assert_adds(lora.text_encoder, components.text_encoder, expected)
    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


def test_fused_layers_with_a_block_for_each_part_are_split_without_the_zeros(
    components: Components, tmp_path: Path
) -> None:
    """As kohya's split_qkv and converters to its format write them: three ranks of 4 are one of 12."""
    made, layer = Format(parts=DOWN_UP, alpha=True), "double_blocks.0.img_attn.qkv"
    name = kohya(layer)
    made.add(name, *BFL[layer])
    down, up = torch.randn(12, WIDTH) * 0.1, torch.zeros(3 * WIDTH, 12)
    for index in range(3):
        up[index * WIDTH : (index + 1) * WIDTH, index * 4 : (index + 1) * 4] = torch.randn(WIDTH, 4)
    made.tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(6)}

    lora = read(tmp_path / "film", components, made.tensors)

    added = up.double() @ (down.double() @ probes(WIDTH)) * (6 / 12)
    assert_adds(lora.transformer, components.transformer, in_diffusers({layer: added}))
    assert {len(each.down) for each in lora.transformer.values()} == {4}


@pytest.mark.parametrize("name", ["final_layer.adaLN_modulation.1", "double_blocks.0.txt_attn.qkv", "img_in"])
def test_a_bias_of_the_factors_is_added_and_scaled_with_them(components: Components, tmp_path: Path, name: str) -> None:
    made = Format(parts=A_B, alpha=True)
    rows = made.add(name, *BFL[name])
    bias = torch.randn(BFL[name][1])
    made.tensors[f"{name}.lora_B.bias"] = bias
    scaling = made.tensors[f"{name}.alpha"].item() / len(made.tensors[f"{name}.lora_A.weight"])

    lora = read(tmp_path / "film", components, made.tensors)

    expected = in_diffusers({name: rows + scaling * bias.double()[:, None]})
    assert_adds(lora.transformer, components.transformer, expected)


PEFT = {"lora_alpha": 7, "alpha_pattern": {"img_mlp.0": 3, r"^double_blocks\.\d+\.txt_mlp\.0": 5, "img_in": 11}}
ALPHAS = {
    "img_in": 11.0,
    "double_blocks.0.img_mlp.0": 3.0,
    "double_blocks.0.txt_mlp.0": 5.0,
    "single_blocks.0.linear1": 7.0,
}


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_alphas_of_pefts_settings_are_used(
    components: Components, tmp_path: Path, rank_stabilized: bool, place: str
) -> None:
    made, rows = Format(parts=A_B, alpha=False), {}
    for layer, alpha in ALPHAS.items():
        plain = made.add(f"base_model.model.{layer}", *BFL[layer])
        rank = len(made.tensors[f"base_model.model.{layer}.lora_A.weight"])
        rows[layer] = plain * alpha / (rank**0.5 if rank_stabilized else rank)
    config = PEFT | {"peft_type": "LORA", "r": 4, "use_rslora": rank_stabilized, "init_lora_weights": True}
    metadata = {}
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        own = {f"transformer.{name}": value for name, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(own)

    lora = read(tmp_path / "film", components, made.tensors, **metadata)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


def test_settings_beside_a_file_that_is_not_pefts_are_not_its_own(components: Components, tmp_path: Path) -> None:
    made = Format(parts=DOWN_UP, alpha=True)
    rows = {"img_in": made.add(kohya("img_in"), *BFL["img_in"])}
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT))

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))


@pytest.mark.parametrize("kind", [torch.int64, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_alpha_may_be_any_one_number(
    components: Components, tmp_path: Path, kind: torch.dtype, shape: tuple[int, ...]
) -> None:
    made = Format(parts=DOWN_UP, alpha=True)
    rows = {"img_in": made.add(kohya("img_in"), *BFL["img_in"])}
    alpha = f"{kohya('img_in')}.alpha"
    made.tensors[alpha] = made.tensors[alpha].to(kind).reshape(shape)

    lora = read(tmp_path / "film", components, made.tensors)

    assert_adds(lora.transformer, components.transformer, in_diffusers(rows))
