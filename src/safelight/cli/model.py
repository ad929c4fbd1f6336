"""`safelight model list|show`: what can be served."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safelight.control.catalog import Model, find_model, list_models, spec_of
from safelight.model_spec import Guidance, ModelSpec

app = typer.Typer(help="Show the models that can be served.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the models known by name."""
    models = list_models()
    table = Table(box=None, pad_edge=False)
    table.add_column(
        "name", no_wrap=True, min_width=max(len(model.name) for model in models)
    )  # it is there to be copied
    for title in ("provider", "license", "size", "steps", "gated"):
        table.add_column(title, overflow="fold")
    for model in models:
        table.add_row(model.name, model.provider, *_summary(model), "yes" if model.is_gated else "no")
    Console().print(table)


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A catalogue name, a folder, or a hub id.")]) -> None:
    """Show what a model can do."""
    model = find_model(name)
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _facts(model):
        table.add_row(key, Text(value))
    Console().print(table)


def _summary(model: Model) -> tuple[str, str, str]:
    spec = spec_of(model)
    if spec is None:
        return "", "", ""
    return spec.license, f"{spec.default_width}x{spec.default_height}", str(spec.default_num_inference_steps)


def _facts(model: Model) -> list[tuple[str, str]]:
    facts = [("name", model.name), ("provider", model.provider)]
    if model.hub_id:
        facts.append(("hub id", model.hub_id + (" (gated)" if model.is_gated else "")))
    if model.folder:
        facts.append(("folder", str(model.folder)))
    spec = spec_of(model)
    return facts if spec is None else facts + _capabilities(spec)


def _capabilities(spec: ModelSpec) -> list[tuple[str, str]]:
    return [
        ("version", spec.version),
        ("description", spec.description),
        ("license", spec.license),
        (
            "size",
            f"{spec.default_width}x{spec.default_height}; sides {spec.min_size} to {spec.max_size}, "
            f"multiples of {spec.size_multiple}",
        ),
        ("steps", f"{spec.default_num_inference_steps}; 1 to {spec.max_num_inference_steps}"),
        ("prompt", f"{spec.max_sequence_length} tokens"),
        ("guidance_scale", _GUIDANCE_WORDS[spec.guidance].format(default=spec.default_guidance_scale)),
        ("negative_prompt", f"classifier-free guidance, by default at scale {spec.default_true_cfg_scale:g}"),
        ("schedulers", ", ".join(spec.schedulers)),
        ("examples", "\n".join(spec.examples)),
    ]


_GUIDANCE_WORDS = {
    Guidance.EMBEDDED: "an input of the transformer, by default {default:g}",
    Guidance.TRAINED: "strength of classifier-free guidance, by default {default:g} (1 or less is off)",
    Guidance.NONE: "no effect without a negative_prompt: distilled to need none",
}
