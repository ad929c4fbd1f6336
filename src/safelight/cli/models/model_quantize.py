"""`safelight model quantize`: a model's folder once more, in fewer bytes, so that each start maps it from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from safelight.cli.az.options import DataDir, Output, at_home
from safelight.cli.completion import complete_models
from safelight.cli.output import print_one

Kind = Literal["int8", "fp8", "nf4"]
KindOrNone = Literal["none", "int8", "fp8", "nf4"]


def quantize(
    *,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name, a folder in the diffusers layout, or a hub id.",
            autocompletion=complete_models,
        ),
    ],
    to: Annotated[Kind, typer.Option(help="What the transformer's weights become.")],
    out: Annotated[Path, typer.Option(help="The new folder.")],
    text_encoder_2_to: Annotated[
        KindOrNone | None, typer.Option(help="What those of the T5 encoder become; by default the same.")
    ] = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Write MODEL to a folder with its large networks quantized, which every command then takes as a model."""
    out = at_home(out, "out").absolute()
    from safelight.cli.download import download
    from safelight.cli.models.registered_models import find_registered
    from safelight.model.checkpoint import check_checkpoint
    from safelight.model.locate import locate
    from safelight.model.memory.stored_parts import describe_parts

    folder, spec = locate(find_registered(reference, data_dir), download)
    describe_parts(folder)  # what is broken is refused before torch is imported
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from safelight.engine.families.quantized_checkpoint import quantize_checkpoint
    from safelight.engine.family import network_classes

    console = Console(emoji=False, stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Quantizing", total=None)
        kept = quantize_checkpoint(
            folder,
            out,
            spec=spec,
            kinds={"transformer": to, "text_encoder_2": text_encoder_2_to or to},
            classes=network_classes(check_checkpoint(folder)),
            report=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    for name in kept:
        console.print(f"[yellow]note:[/] the {name} is quantized already, and stays as it is")
    parts = describe_parts(out)
    print_one(
        {
            "path": str(out),
            "components": {name: part.dtype.lower() for name, part in parts.items()},
            "bytes": sum(part.num_bytes for part in parts.values()),
        },
        output,
    )
