"""`safelight model list|show`: what can be served, from the catalogue and from what users have registered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import engine_flags, model_flags
from safelight.cli.az.options import DataDir, Output, Workspace
from safelight.cli.az.resource_files import note
from safelight.cli.completion import complete_served_models
from safelight.cli.models.model_create import create
from safelight.cli.models.model_quantize import quantize
from safelight.cli.models.registered_models import find_registered, registered_models
from safelight.cli.output import OutputFormat, format_of, print_list, print_one
from safelight.errors import InvalidRequest, ModelLoadError
from safelight.model.card import model_card
from safelight.model.catalog import Model, list_models

JsonObject = dict[str, Any]
Registry = Annotated[str | None, typer.Option("--registry-name", "-r", help="HuggingFace or Safelight.")]
COLUMNS = ("name", "version", "provider", "license", "gated")

app = typer.Typer(help="Show and register the models that can be served.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    registry_name: Registry = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """List the models known by name, and those registered with the running server."""
    models = [*list_models()] if registry_name else [*list_models(), *registered_models(data_dir)]
    cards = [_card(model) for model in models if registry_name in (None, model.registry)]
    if format_of(output) is OutputFormat.TABLE:
        print_list([_row(card) for card in cards], COLUMNS, output)
    else:
        print_list(cards, (), output)


@app.command("show")
def show(
    *,
    reference: Annotated[
        str | None,
        typer.Argument(
            help="A name, a URI (azureml://..., azureml:NAME:VERSION), a folder, a hub id, or with --plan a file.",
            autocompletion=complete_served_models,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="Name, as `az ml` takes it.", autocompletion=complete_served_models),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", "-v", help="By default the latest.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="latest.")] = None,
    registry_name: Registry = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Show what would lie where on the device, and what a picture would take, instead of the card.",
        ),
    ] = False,
    device: engine_flags.Device = None,
    dtype: engine_flags.Dtype = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    memory: engine_flags.Memory = None,
    components: model_flags.Components = None,
    vae: model_flags.Vae = None,
    text_encoder: model_flags.TextEncoder = None,
    text_encoder_2: model_flags.TextEncoder2 = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show a model's card: licence, gate, memory, and what each parameter does. With --plan, what fits a device.

    The device of a plan need not be here, if its memory is said: --plan --device cuda --memory 12GB. Nor need all of
    the model: of a file, what it lacks counts as it is published, or as the options say.
    """
    flags = engine_flags.among(locals()) | model_flags.among(locals())
    if not plan and any(flags.values()):
        raise InvalidRequest("options of the device and of files go with --plan", field="plan")
    named = reference or _uri(name, version, label, registry_name)
    if plan:
        _show_plan(named, flags, data_dir, output)
        return
    card = asdict(model_card(find_registered(named, data_dir)))
    if format_of(output) is not OutputFormat.TABLE:
        print_one(card, output)
        return
    from rich.console import Console

    from safelight.cli.models.model_table import card_table

    Console(emoji=False, highlight=False).print(card_table(card))


app.command("create")(create)
app.command("quantize")(quantize)


def _show_plan(reference: str, flags: JsonObject, data_dir: Path | None, output: OutputFormat | None) -> None:
    from safelight.cli.models.model_plan import plan_of

    report = plan_of(reference, flags, data_dir)
    if format_of(output) is not OutputFormat.TABLE:
        print_one(asdict(report), output)
        return
    from rich.console import Console

    from safelight.cli.models.plan_table import plan_table

    Console(emoji=False, highlight=False, soft_wrap=True).print(plan_table(report), markup=False)


def _uri(name: str | None, version: str | None, label: str | None, registry: str | None) -> str:
    """What the options of `az ml model show` mean."""
    if name is None:
        raise InvalidRequest("give the model's name, such as: safelight model show sprite", field="name")
    if registry is not None:
        return f"azureml://registries/{registry}/models/{name}/" + (
            f"versions/{version}" if version else f"labels/{label or 'latest'}"
        )
    if version is None and label is None:
        return name
    return f"azureml:{name}:{version}" if version else f"azureml:{name}@{label}"


def _card(model: Model) -> JsonObject:
    """One broken folder does not keep the others from being listed."""
    try:
        return asdict(model_card(model))
    except ModelLoadError as error:
        note(f"{model.uri}: {error.message}")
        return {"name": model.name, "version": model.version, "uri": model.uri, "provider": model.provider}


def _row(card: JsonObject) -> JsonObject:
    gated = {True: "yes", False: "no", None: "?"}[card.get("is_gated")]
    return card | {"gated": gated}
