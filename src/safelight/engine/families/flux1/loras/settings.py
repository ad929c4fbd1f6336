"""How strong a LoRA file means its factors: alpha / rank, with alpha from beside them, or from PEFT's settings."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, sqrt
from typing import Any

import regex

from safelight.engine.families.flux1.loras.names import Network, split_name
from safelight.errors import ModelLoadError

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers writes PEFT's LoraConfig of each network, as NETWORK.FIELD."""
MATCHING_S = 5.0
"""What the patterns of a file, which are anybody's regular expressions, may take altogether."""
_SHOWN = 100
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin training that change the model's own weights: the file alone is not the adapter."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """PEFT's LoraConfig of each network that has one."""

    configs: Mapping[Network, Mapping[str, Any]]
    deadline: float
    """By when its patterns must have been tried, of time.monotonic."""

    def scaling(self, name: str, rank: int, alpha: float | None) -> float:
        """What the factors of a layer are multiplied by. Without any alpha it is 1: the rank is meant.

        Raises ModelLoadError, without the file's name, if there are two alphas or patterns that make no sense.
        """
        network, layer = split_name(name)
        config = self.configs.get(network)
        if config is None:
            return 1.0 if alpha is None else alpha / rank
        told = _alpha_in(config, layer, rank, self.deadline)
        if alpha is not None and not isclose(alpha, told, rel_tol=0.01):  # bf16 has two digits
            raise ModelLoadError(f"says alpha {told:g} of {name} in its settings, and {alpha:g} beside it")
        return told / (sqrt(rank) if config.get("use_rslora") else rank)


def read_settings(metadata: Mapping[str, str], beside: str | None) -> LoraSettings:
    """From the file's own metadata, else from the adapter_config.json beside it, which is about the transformer.

    Raises ModelLoadError for what is no LoRA that can be read, ValueError for what is no JSON.
    """
    configs: dict[Network, Mapping[str, Any]] = {}
    if METADATA_KEY in metadata:
        told = _object(metadata[METADATA_KEY])
        for network in ("transformer", "text_encoder"):
            prefix = f"{network}."
            own = {name.removeprefix(prefix): value for name, value in told.items() if name.startswith(prefix)}
            if own:
                configs[network] = own
    elif beside is not None:
        configs["transformer"] = _object(beside)
    for config in configs.values():
        _check(config)
    return LoraSettings(configs, deadline=time.monotonic() + MATCHING_S)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ModelLoadError("is no LoRA that can be read: its settings are no JSON object")
    return value


def _check(config: Mapping[str, Any]) -> None:
    method = str(config.get("peft_type") or "LORA").removeprefix("PeftType.")
    if method != "LORA":
        raise ModelLoadError(f"is a {method} by its settings; only LoRAs are read")
    if config.get("use_dora"):
        raise ModelLoadError("is a DoRA by its settings (use_dora); only LoRAs are read")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise ModelLoadError(
            f"was trained on weights that init_lora_weights={start!r} had changed; convert it to a plain LoRA (PEFT's "
            "save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _alpha_in(config: Mapping[str, Any], layer: str, rank: int, deadline: float) -> float:
    patterns = config.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        if _is_about(pattern, layer, deadline):
            return float(alpha)
    return float(config.get("lora_alpha", rank))


def _is_about(pattern: str, layer: str, deadline: float) -> bool:
    """As PEFT has it: the pattern fits the layer's name, or the end of it after a dot."""
    if pattern == layer or layer.endswith(f".{pattern}"):
        return True
    remaining = max(deadline - time.monotonic(), 0.001)
    try:
        return regex.fullmatch(rf"(.*\.)?({pattern})", layer, timeout=remaining) is not None
    except (regex.error, TimeoutError) as error:
        raise ModelLoadError(
            f"is no LoRA that can be read: its alpha_pattern {pattern[:_SHOWN]!r} makes no sense, or takes too long"
        ) from error
