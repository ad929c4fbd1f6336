"""FLUX.1-schnell as it is published: what a plan needs to know of it before its 34 GB are downloaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safelight.model.families import flux1
from safelight.model.families.layout import WorkSizes
from safelight.model.memory.stored_parts import StoredPart
from safelight.model.single_files import configs
from safelight.model.spec import ModelSpec

_NUM_REPEATED = {
    "transformer": 11_834_228_736,
    "vae": 0,
    "text_encoder": 84_934_656,
    "text_encoder_2": 4_630_513_664,
}


def published_parts(num_parameters: Mapping[str, int]) -> dict[str, StoredPart]:
    """Component -> how it lies on the hub; `num_parameters` as the catalogue has them."""
    return {
        name: StoredPart(
            format="safetensors",
            dtype="BF16",
            num_bytes=2 * num_parameters[name],
            num_parameters=num_parameters[name],
            num_repeated=repeated,
            files=(),
        )
        for name, repeated in _NUM_REPEATED.items()
    }


def published_work(spec: ModelSpec) -> WorkSizes:
    """What its pictures take beside its weights."""
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs.COMPONENTS.items():
            path = Path(folder, name, "config.json")
            path.parent.mkdir()
            path.write_text(json.dumps(config))
        return flux1.work(Path(folder), spec)
