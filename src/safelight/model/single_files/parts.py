"""Which of FLUX.1's parts a file holds, in whose names, and what their configs are: told by its head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safelight.errors import UnsupportedModel
from safelight.model.heads.file_head import read_head
from safelight.model.heads.quantizer_marks import FLOAT8, INSTEAD, PLAIN, Scales, find_scales
from safelight.model.heads.tensor_head import FileHead
from safelight.model.single_files import names
from safelight.model.single_files.foreign import explain_foreign
from safelight.model.single_files.names import Config, Source, Table

TITLES = {
    "transformer": "transformer",
    "vae": "autoencoder (VAE)",
    "text_encoder": "CLIP text encoder",
    "text_encoder_2": "T5 encoder",
}
"""What the parts are called in messages."""


@dataclass(frozen=True, slots=True)
class Naming:
    """One way in which a part's tensors are named."""

    component: str
    title: str
    mark: str
    """A tensor that only this part in these names has."""
    table: Callable[[Config], Table]
    prefixes: tuple[str, ...] = ("",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names in the file -> what the same tensor is called in other files."""
    inert: str = "$^"
    """Pattern of names that the part may have, and that no picture depends on."""


_UNET_PREFIXES = ("", "model.diffusion_model.", "transformer.")
_CLIP_PREFIXES = ("", "text_encoders.clip_l.transformer.", "text_encoders.clip_l.", "clip_l.transformer.", "clip_l.")
_T5_PREFIXES = ("", "text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", "t5xxl.transformer.", "t5xxl.")
_VAE_PREFIXES = ("", "vae.", "first_stage_model.")
_OF_CLIP = r"(^|\.)(position_ids|logit_scale|text_projection(\.weight)?)$|^vision_model\.|^visual_projection\."
_OF_T5 = (
    r"^(decoder|dec|lm_head)\.|^output\.weight$|^(encoder\.embed_tokens|shared)\.weight$|logit_scale$|^spiece_model$"
)
NAMINGS = (
    Naming("transformer", "BFL", "double_blocks.0.img_attn.qkv.weight", names.bfl_transformer, _UNET_PREFIXES),
    Naming(
        "transformer",
        "diffusers",
        "transformer_blocks.0.attn.add_q_proj.weight",
        names.as_saved(names.bfl_transformer),
        _UNET_PREFIXES,
    ),
    Naming("vae", "BFL", "decoder.mid.block_1.conv1.weight", names.ldm_autoencoder, _VAE_PREFIXES),
    Naming(
        "vae",
        "diffusers",
        "decoder.mid_block.resnets.0.conv1.weight",
        names.as_saved(names.ldm_autoencoder),
        _VAE_PREFIXES,
    ),
    Naming(
        "text_encoder",
        "transformers",
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        names.transformers_clip,
        _CLIP_PREFIXES,
        inert=_OF_CLIP,
    ),
    Naming(
        "text_encoder",
        "transformers 5",
        "encoder.layers.0.self_attn.q_proj.weight",
        names.bare_clip,
        _CLIP_PREFIXES,
        inert=_OF_CLIP,
    ),
    Naming(
        "text_encoder_2",
        "transformers",
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        names.transformers_t5,
        _T5_PREFIXES,
        aliases={"shared.weight": "encoder.embed_tokens.weight"},
        inert=_OF_T5,
    ),
    Naming("text_encoder_2", "llama.cpp", "enc.blk.0.attn_q.weight", names.llama_t5, inert=_OF_T5),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part in a file."""

    path: Path
    head: FileHead
    scales: Scales
    naming: Naming
    prefix: str
    own: frozenset[str]
    """The tensors under its prefix, which are no other part's."""

    @property
    def component(self) -> str:
        return self.naming.component

    @property
    def tensor_names(self) -> list[str]:
        """Without the prefix."""
        return [name.removeprefix(self.prefix) for name in self.own]

    def table(self, config: Config) -> Table:
        """Parameter -> where it lies, by the names in the file."""
        return {name: self._placed(source) for name, source in self.naming.table(config).items()}

    def _placed(self, source: Source) -> Source:
        name, alias = source.name, self.naming.aliases.get(source.name)
        if alias is not None and self.prefix + name not in self.head.tensors:
            name = alias
        return Source(self.prefix + name, source.rows, source.is_convolution)


def read_parts(path: Path) -> dict[str, Part]:
    """Component -> its part in a file.

    Raises UnsupportedModel for what holds none, or is quantized in a way that is not read; ModelLoadError if the file
    is missing, broken or cut short.
    """
    head = read_head(path)
    explanation = explain_foreign(path, head.tensors)
    if explanation is not None:
        raise UnsupportedModel(f"{path} {explanation}")
    found = dict[str, tuple[Naming, str]]()
    for naming in NAMINGS:
        for prefix in naming.prefixes:
            if prefix + naming.mark in head.tensors and naming.component not in found:
                found[naming.component] = (naming, prefix)
    if not found:
        raise UnsupportedModel(f"{path} {_why_nothing(head)}")
    _check_whole_file(path, head)
    scales, owned = find_scales(path, head), _share_out(path, head, {prefix for _, prefix in found.values()})
    return {
        component: Part(path, head, scales, naming, prefix, owned[prefix])
        for component, (naming, prefix) in found.items()
    }


def read_part(path: Path, component: str) -> Part:
    """Raises as `read_parts`, and UnsupportedModel if the file holds another part."""
    parts = read_parts(path)
    if component not in parts:
        held = " and ".join(f"FLUX.1's {TITLES[each]}" for each in parts)
        raise UnsupportedModel(f"{path} holds {held}, not its {TITLES[component]}; give it in its own place")
    return parts[component]


def check_complete(part: Part, config: Config) -> None:
    """Raises UnsupportedModel if tensors of the part are missing, or left over."""
    table = part.table(config)
    asked = {source.name for source in table.values()}
    _check_alike(part)
    title = TITLES[part.component]
    lacking = sorted(asked - part.head.tensors.keys())
    if lacking:
        raise UnsupportedModel(
            f"{part.path} lacks {len(lacking)} tensors of FLUX.1's {title}, such as {lacking[0]}: it is another model, "
            "or not whole; download it again, or use another file"
        )
    for name in asked if part.head.format == "safetensors" else ():
        dtype = part.head.tensors[name].dtype
        if dtype not in (*PLAIN, *FLOAT8):
            raise UnsupportedModel(f"{part.path} has {name} as {dtype}, which is not read; {INSTEAD}")
    inert = re.compile(part.naming.inert)
    own = {name for name in part.own if not inert.search(name.removeprefix(part.prefix))}
    others = sorted(own - asked - part.scales.names)
    if others:
        raise UnsupportedModel(
            f"{part.path} has {len(others)} tensors that FLUX.1's {title} has no place for, such as {others[0][:200]}: "
            "they would be left out, and change the picture; use another file"
        )


def _check_alike(part: Part) -> None:
    """Raises UnsupportedModel where a block has other shapes than the first: the autoencoder's may."""
    tensors = part.head.tensors
    for name in sorted(part.own) if part.component != "vae" else ():
        first = tensors.get(_BLOCK.sub(r"\1.0.", name, count=1))
        if first is not None and first.shape != tensors[name].shape:
            raise UnsupportedModel(
                f"{part.path} has {name} as {list(tensors[name].shape)}, and the same of its first block as "
                f"{list(first.shape)}: it is of another model, or broken; use another file"
            )


_BLOCK = re.compile(r"(blocks|layers|block|blk)\.\d+\.")


def _share_out(path: Path, head: FileHead, prefixes: set[str]) -> dict[str, frozenset[str]]:
    """Prefix -> the names that begin with it, and with no longer one."""
    shares: dict[str, set[str]] = {prefix: set() for prefix in prefixes}
    longest_first = sorted(prefixes, key=len, reverse=True)
    for name in head.tensors:
        prefix = next((each for each in longest_first if name.startswith(each)), None)
        if prefix is not None:
            shares[prefix].add(name)
        elif not _OF_NO_PART.search(name):
            raise UnsupportedModel(
                f"{path} has more than FLUX.1's parts ({name[:200]}), and Safelight would leave it out; use another "
                "file"
            )
    return {prefix: frozenset(names) for prefix, names in shares.items()}


_OF_NO_PART = re.compile(r"(^|\.)(logit_scale|text_projection(\.weight)?|scaled_fp8)$")


def _check_whole_file(path: Path, head: FileHead) -> None:
    count = head.metadata.get("split.count", 0)
    if isinstance(count, int) and count > 1:
        raise UnsupportedModel(
            f"{path} is one of {count} pieces of a GGUF file; put them together with `llama-gguf-split --merge`"
        )


def _why_nothing(head: FileHead) -> str:
    architecture = str(head.metadata.get("general.architecture", ""))[:40]
    of = f" of {architecture}" if architecture.strip() and architecture.isprintable() else ""
    example = next((f", such as {name[:100]}" for name in head.tensors), "")
    return f"holds no part of FLUX.1, but {len(head.tensors)} other tensors{of}{example}; use FLUX.1's file"
