"""What messages and rows look like, in a few letters: a change of them that their readers must know of is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel


def shape_of(types: Sequence[Any], *others: object) -> str:
    """Alike for the same fields of the same types with the same defaults, whatever is said about them."""
    schemas = msgspec.json.schema_components(types, schema_hook=_schema_of)
    told = json.dumps([_without_words(json.loads(json.dumps(schemas))), others], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _schema_of(kind: type) -> dict[str, Any]:
    fields = sorted(kind.model_fields) if issubclass(kind, BaseModel) else []
    return {"type": "object", "properties": {name: {} for name in fields}}


def _without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_words(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    said = ("title", "description")
    return {name: _without_words(each) for name, each in schema.items() if not (name in said and isinstance(each, str))}
