"""What a file is that holds no part of FLUX.1: told by names that only it has, and what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_UNET = r"^(?:model\.diffusion_model\.)?(?:input|output)_blocks\.|^(?:down|up)_blocks\.\d+\.attentions"
_KINDS: tuple[tuple[str, str], ...] = (
    (r"controlnet_|control_model\.|input_hint_block|^pulid|ip_adapter", "a ControlNet or an adapter"),
    (r"(?:double|single)_stream_modulation", "FLUX.2"),
    (r"^redux_(?:up|down)\.", "FLUX.1 Redux"),
    (r"distilled_guidance_layer", "Chroma"),
    (r"joint_blocks\.", "Stable Diffusion 3"),
    (r"conditioner\.embedders\.|label_emb\.|^add_embedding\.", "Stable Diffusion XL"),
    (_UNET, "Stable Diffusion 1 or 2"),
    (r"(?:img|txt)_mlp\.fc[12]\.|(?:img|txt)_attn_qkv|individual_token_refiner", "HunyuanVideo"),
    (r"(?:double|single)_stream_blocks\.", "HiDream"),
    (r"transformer_blocks\.\d+\.(?:img|txt)_mod\.1\.", "Qwen-Image"),
    (r"(?:context|noise)_refiner\.", "Z-Image or Lumina"),
    (r"blocks\.\d+\.cross_attn\.[qkvo]\.", "Wan"),
    (r"^(?:blk|model\.layers)\.\d+\.", "a language model"),
    (r"^(?:encoder|decoder)\.layers\.\d+\.(?:conv|weight|0\.)", "a tiny autoencoder"),
)
"""The first that matches is meant."""
_LORA = re.compile(r"lora[._]|\.lora|lokr_|hada_", re.IGNORECASE)


def explain_foreign(path: Path, names: Iterable[str]) -> str | None:
    """A sentence without its subject: `is ...; ...`; None if nothing tells what it is."""
    names = list(names)
    if any(_LORA.search(name) for name in names):
        return f"is a LoRA: serve the model that it changes, with --lora NAME={path}"
    for pattern, kind in _KINDS:
        found = next((name for name in names if re.search(pattern, name)), None)
        if found is not None:
            return f"is of {kind} ({found[:200]}), which Safelight does not serve; it serves FLUX.1 [schnell] and [dev]"
    return None
