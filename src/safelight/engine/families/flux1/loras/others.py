"""What a file that does not fit is instead: a LoRA for another model, another method, or no adapter at all.

Recognised by the names of its tensors, their sizes, and what it says of itself. Names were looked up in the trainers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from safelight.engine.families.flux1.loras.names import Place

LONGEST_NAME = 300
"""Characters of a name that are looked at."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Two factors that the model has a place for, in another size."""

    name: str
    """The layer, as the file names it."""
    place: Place
    columns: int
    """Of the factor that multiplies the input."""
    rows: int
    """Of the other one."""
    width: int
    """The columns that would fit."""


_UNET = r"(?:input|output|middle|down|up|mid)_blocks?[._]"
_MODELS: tuple[tuple[str, str, str], ...] = (
    (
        "FLUX.2",
        r"(?:double|single)_stream_modulation|to_qkv_mlp_proj|time_guidance_embed|ff(?:_context)?[._]linear_(?:in|out)|"
        r"single_transformer_blocks[._]\d+[._]attn[._]to_out",
        r"flux[._-]?2|klein",
    ),
    (
        "a FLUX.1 with a control picture (Canny or Depth)",
        r"(?:query|key)_norm\.scale|attn\.norm_(?:added_)?[qk]\.weight$|img_in\.reshape_weight",
        r"flux.*(?:canny|depth|control)",
    ),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)[._]", r"qwen"),
    ("Stable Diffusion 3", r"joint_blocks[._]", r"stable-diffusion-?3|\bsd3"),
    (
        "HunyuanVideo",
        r"(?:img|txt)_mlp[._]fc[12]|(?:img|txt)_mod[._]linear|individual_token_refiner",
        r"hunyuan",
    ),
    ("Chroma", r"distilled_guidance_layer", r"chroma"),
    ("HiDream", r"(?:double|single)_stream_blocks", r"hidream"),
    ("Z-Image or Lumina", r"(?:context|noise)_refiner[._]|layers[._]\d+[._]attention[._]", r"z-?image|lumina"),
    ("Wan", r"blocks[._]\d+[._](?:self|cross)_attn[._][qkvo](?:_img)?\b", r"\bwan"),
    ("Stable Cascade", r"lora_prior_", r"cascade"),
    (
        "Stable Diffusion XL",
        rf"{_UNET}[\w.]{{1,60}}transformer_blocks[._][1-9]|lora_te2_text_model_|text_encoder_2\.text_model\.",
        r"sdxl|stable-diffusion-xl",
    ),
    ("Stable Diffusion 1 or 2", _UNET, r"stable-diffusion-v[12]|\bsd_v[12]"),
)
"""Name, how keys look that only it has, and what the metadata call it. The first that matches is meant."""
_KINDS = (
    (
        "Qwen-Image, or another model of more than 19 blocks",
        r"(?<!single_)transformer_blocks[._](?:19|[2-9]\d)[._]",
    ),
    ("another model (LTX-Video, PixArt or one like it)", r"transformer_blocks[._]\d+[._]attn[12][._]"),
)
"""What keys look like that several models have: Stable Diffusion 3 among them, which its width tells better."""

_METHODS = {
    "a DoRA's magnitudes": r"dora_scale|lora_magnitude_vector",
    "LoKr factors": r"lokr_",
    "LoHa factors": r"hada_",
    "an OFT's rotations": r"\boft_|[._]oft_",
    "a BOFT's rotations": r"boft_",
    "an IA3's scales": r"ia3_|\.on_input$",
    "GLoRA factors": r"\.[ab][12]\.weight$",
    "a convolution's factors": r"lora_mid",
    "AdaLoRA or VeRA factors": r"lora_E\b|vera_lambda",
    "whole differences of weights": r"\.diff(?:_b)?$|\.[wb]_norm$",
    "whole weights beside the LoRA": r"\.set_weight$|modules_to_save",
    "factors for weights that Nunchaku quantized": r"\.lora_(?:down|up)$|\.smooth(?:_factor)?$",
    "scales of scaled fp8": r"scale_weight|scale_input|scaled_fp8",
    "an IP-Adapter": r"ip_adapter|ip_layers|image_proj",
    "a ControlNet": r"controlnet_|control_model",
    "an embedding (textual inversion)": r"bundle_emb|emb_params|string_to_param|^(?:clip_l|clip_g|t5xxl|t5)$",
    "T5 weights": r"^(?:text_encoder_2\.|lora_te[23]_|text_encoders\.t5xxl\.|t5xxl\.|t5\.)",
    "a LoRA of CLIP's projection, which FLUX.1 does not use": r"text_projection",
    "a LoRA of CLIP's embeddings": r"position_embedding|token_embedding",
}
"""What is not read here, and how the names of such tensors look."""
_PATTERNS = {name: re.compile(pattern) for name, pattern in _METHODS.items()}
_NOT_ADDED = re.compile(r"dora_scale|lora_magnitude_vector|ia3_|\.on_input$|\.set_weight$|modules_to_save")
_CHANNELS = {128: "a FLUX.1 with a control picture (Canny or Depth)", 384: "FLUX.1 Fill"}
_BLOCK_WIDTHS = {
    3072: "FLUX.1 in its full width, or another model as wide",
    1536: "Stable Diffusion 3 (Medium)",
    2432: "Stable Diffusion 3.5 (Large)",
    4096: "FLUX.2 [klein] 9B",
    6144: "FLUX.2 [dev]",
}
_TEXT_WIDTHS = {7680: "FLUX.2 [klein] 4B", 12288: "FLUX.2 [klein] 9B", 15360: "FLUX.2 [dev]"}


def name_model(keys: Iterable[str], misfits: Sequence[Misfit], metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """The other model that a file is for, and what shows it; None if nothing does."""
    short = [key[:LONGEST_NAME] for key in keys]
    return (
        _model_of_names(short, [(model, pattern) for model, pattern, _ in _MODELS])
        or next((found for misfit in misfits if (found := _model_of_size(misfit))), None)
        or _model_of_metadata(metadata, _MODELS)
        or _model_of_names(short, _KINDS)
    )


def declared_flux_2(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """FLUX.2, if the file says so: its smallest model shares names and sizes of many layers with FLUX.1."""
    return _model_of_metadata(metadata, _MODELS[:1])


def name_method(key: str) -> str | None:
    """What a tensor that is no part of a LoRA is."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(key[:LONGEST_NAME])), None)


def is_added(key: str) -> bool:
    """Whether zeros under this key change nothing; what is multiplied or put in place would."""
    return not _NOT_ADDED.search(key[:LONGEST_NAME])


def _model_of_names(keys: Sequence[str], models: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    for model, pattern in models:
        if found := next((key for key in keys if re.search(pattern, key)), None):
            return model, found
    return None


def _model_of_size(misfit: Misfit) -> tuple[str, str] | None:
    model = _name_size(misfit)
    return None if model is None else (model, f"{misfit.name} has {misfit.columns} inputs and {misfit.rows} outputs")


def _name_size(misfit: Misfit) -> str | None:
    layer, columns = misfit.place.layers[-1], misfit.columns
    if layer == "x_embedder":
        return _CHANNELS.get(columns) if misfit.width == 64 else None
    if layer == "context_embedder":
        return _TEXT_WIDTHS.get(columns)
    if columns == misfit.width:  # FLUX.2 as wide as FLUX.1: its feed-forward layers are gated
        gated = {"proj_mlp": 9, "ff.net.0.proj": 6, "ff_context.net.0.proj": 6}
        times = next((times for name, times in gated.items() if layer.endswith(name)), None)
        return "FLUX.2" if times and misfit.rows == times * columns else None
    return _BLOCK_WIDTHS.get(columns) if "blocks." in layer else None


def _model_of_metadata(metadata: Mapping[str, str], models: Sequence[tuple[str, str, str]]) -> tuple[str, str] | None:
    for name in ("modelspec.architecture", "ss_base_model_version"):
        told = metadata.get(name, "")[:LONGEST_NAME].lower()
        for model, _, pattern in models:
            if pattern and re.search(pattern, told):
                return model, f"its metadata say {name}: {told}"
    return None
