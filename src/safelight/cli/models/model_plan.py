"""`safelight model show --plan`: what a device would hold of a model, be the device here or not; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safelight.errors import ConfigurationError, InvalidRequest
from safelight.model import hub
from safelight.model.catalog import Model
from safelight.model.checkpoint import check_checkpoint
from safelight.model.families.layout import WorkSizes
from safelight.model.locate import locate
from safelight.model.memory.plan import DeviceFacts, choose_plan
from safelight.model.memory.published import published_parts, published_work
from safelight.model.memory.report import PlanReport, report_plan
from safelight.model.memory.stored_parts import StoredPart, describe_parts
from safelight.model.spec import ModelSpec
from safelight.settings import EngineOptions, Settings, load_settings, part_of


def plan_of(model: Model, flags: Mapping[str, str | None]) -> PlanReport:
    """By the flags of `EngineOptions`. Raises ConfigurationError where nothing fits, naming what would."""
    settings = load_settings(**flags)
    device = _device(settings)
    spec, parts, work = _needs(model)
    plan = choose_plan(parts, work, device, part_of(settings, EngineOptions))
    return report_plan(plan, device, max_pixels=spec.max_pixels)


def _device(settings: Settings) -> DeviceFacts:
    """What is there, or of a device that is not what was said of it."""
    if settings.memory is not None and settings.device in ("cuda", "mps"):
        number_bytes = 4 if settings.dtype == "float32" else 2
        return DeviceFacts(type=settings.device, free_bytes=settings.memory, number_bytes=number_bytes)
    from safelight.engine.devices import (
        choose_device,
        choose_dtype,
        read_device_facts,
    )

    try:
        device = choose_device(settings.device)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error.message}. For the plan of a device that is not here say its memory, such as --memory 24GB"
        ) from None
    facts = read_device_facts(device, choose_dtype(settings.dtype, device), None)
    return facts if settings.memory is None else replace(facts, free_bytes=settings.memory)


def _needs(model: Model) -> tuple[ModelSpec, Mapping[str, StoredPart], WorkSizes]:
    if model.folder is None and model.spec is not None and model.num_parameters:
        return model.spec, published_parts(model.num_parameters), published_work(model.spec)
    folder, spec = locate(model, _cached)
    return spec, describe_parts(folder), check_checkpoint(folder).work(folder, spec)


def _cached(hub_id: str, revision: str | None) -> Path:
    folder = hub.find_cached(hub_id, revision=revision or "main")
    if folder is None:
        raise InvalidRequest(
            f"the files of {hub_id} tell what it needs, and they are not here; fetch them with: hf download {hub_id}",
            field="reference",
        )
    return folder
