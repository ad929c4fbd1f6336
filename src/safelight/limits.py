"""How much of each thing a request may ask for. Everybody may read these; they read nobody."""

from __future__ import annotations

MAX_SEED = 2**63 - 1 - 10
"""Greatest seed: image i uses seed + i, and torch's generators take 63 bits for sure."""
MAX_IMAGES_PER_PROMPT = 10
MAX_PROMPT_CHARACTERS = 32_000
MAX_PREVIEWS = 10
MAX_LORAS = 8
MAX_LORA_SCALE = 4.0
MAX_GUIDANCE_SCALE = 100.0
