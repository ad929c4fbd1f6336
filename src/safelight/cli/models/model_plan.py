"""`safelight model show --plan`: what a device would hold of a model, be the device here or not; nothing is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safelight.cli.given_files import files_in
from safelight.cli.models.registered_models import find_registered
from safelight.errors import ConfigurationError, InvalidRequest
from safelight.model import hub
from safelight.model.catalog import FLUX_SCHNELL, Model, find_model
from safelight.model.checkpoint import check_checkpoint, read_model_spec
from safelight.model.families.layout import WorkSizes
from safelight.model.file_sets import NETWORKS, GivenFiles, outline
from safelight.model.locate import locate, locate_folder
from safelight.model.memory.plan import DeviceFacts, choose_plan
from safelight.model.memory.published import published_parts, published_work
from safelight.model.memory.report import PlanReport, report_plan
from safelight.model.memory.stored_parts import StoredPart, describe_network, describe_part, describe_parts
from safelight.model.spec import ModelSpec
from safelight.settings import EngineOptions, Settings, load_settings, part_of

Needs = tuple[ModelSpec, Mapping[str, StoredPart], WorkSizes]


def plan_of(reference: str, flags: Mapping[str, str | Path | None], data_dir: Path | None) -> PlanReport:
    """By the flags of `EngineOptions`, and those that name files.

    Raises ConfigurationError where nothing fits, naming what would.
    """
    settings = load_settings(model=reference, **flags)
    device = _device(settings)
    given = files_in(settings, _cached_file)
    spec, parts, work = _needs(find_registered(reference, data_dir)) if given is None else _needs_of_files(given)
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


def _needs(model: Model) -> Needs:
    if _is_published(model) and model.spec is not None:
        return model.spec, published_parts(model.num_parameters), published_work(model.spec)
    folder, spec = locate(model, _cached)
    return spec, describe_parts(folder), check_checkpoint(folder).work(folder, spec)


def _is_published(model: Model) -> bool:
    """Whether it is known without its files."""
    return model.folder is None and bool(model.num_parameters)


def _needs_of_files(given: GivenFiles) -> Needs:
    """What they lack counts as it lies in the folder that has it, or on the hub: for the plan nothing is fetched."""
    base = None if given.base is None or _is_published(given.base) else locate_folder(given.base, _cached)
    with tempfile.TemporaryDirectory() as scratch:
        configs = Path(scratch)
        held = outline(given, base, configs)
        spec = read_model_spec(configs)
        work = check_checkpoint(configs).work(configs, spec)
    published = published_parts(find_model(FLUX_SCHNELL.name).num_parameters)
    parts = {name: describe_part(part) for name, part in held.items()}
    for name, network in NETWORKS.items():
        if name not in parts:
            parts[name] = published[name] if base is None else describe_network(base, network)
    return spec, {name: parts[name] for name in NETWORKS}, work


def _cached(hub_id: str, revision: str | None) -> Path:
    folder = hub.find_cached(hub_id, revision=revision or "main")
    if folder is None:
        raise _not_here(hub_id, f"hf download {hub_id}")
    return folder


def _cached_file(hub_id: str, file: str) -> Path:
    folder = hub.find_cached_files(hub_id, files=[file], one_of=[file])
    if folder is None:
        raise _not_here(f"{hub_id}/{file}", f"hf download {hub_id} {file}")
    return folder / file


def _not_here(what: str, command: str) -> InvalidRequest:
    return InvalidRequest(
        f"the files of {what} tell what it needs, and they are not here; fetch them with: {command}", field="reference"
    )
