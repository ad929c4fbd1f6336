"""How requests of any dialect name LoRAs: a list, as fal's and vLLM-Omni's clients send it, or one by itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from safelight.api.http.validation import Number, WireModel
from safelight.errors import InvalidRequest
from safelight.limits import MAX_LORAS


class LoraReference(WireModel):
    """An adapter that the server knows."""

    name: str | None = Field(default=None, description="Its name here")
    path: str | None = Field(default=None, description="In place of name: its name, or the hub id it came from")
    scale: Number | None = Field(default=None, description="Strength, -4 to 4; by default the server's, usually 1")


LoraReferences = Annotated[list[LoraReference], Field(max_length=MAX_LORAS)]


def named_loras(loras: list[LoraReference] | None, lora: LoraReference | None) -> list[tuple[str, float | None]]:
    """Name and scale of each. Raises InvalidRequest."""
    references = [*(loras or ()), *([lora] if lora is not None else ())]
    return [(_name(reference), reference.scale) for reference in references]


def _name(reference: LoraReference) -> str:
    if reference.name is not None and reference.path is not None:
        raise InvalidRequest("a LoRA has a name or a path, not both", field="loras")
    name = reference.name or reference.path
    if name is None:
        raise InvalidRequest("a LoRA needs a name", field="loras")
    return name
