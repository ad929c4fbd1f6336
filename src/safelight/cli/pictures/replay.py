"""`safelight replay`: make a picture again from the recipe in its file, and say whether it is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safelight.cli import engine_flags
from safelight.cli.completion import complete_models
from safelight.cli.pictures.patience import Timeout


def replay(
    *,
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file that Safelight made.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the new picture.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the model is now, if the recipe's name does not say: a folder or hub id.",
            autocompletion=complete_models,
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The prompt, if it was withheld.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="The negative prompt, if it was withheld.")] = None,
    source: Annotated[Path | None, typer.Option(help="The image that an edit started from.")] = None,
    mask: Annotated[Path | None, typer.Option(help="The mask of an edit.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="A LoRA that it was made with, as NAME=PATH_OR_HUB_ID.")
    ] = None,
    device: engine_flags.Device = None,
    dtype: Annotated[str | None, typer.Option(help="By default the recipe's.")] = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    memory: engine_flags.Memory = None,
    timeout: Timeout = None,
) -> None:
    """Make IMAGE again from its recipe, and say whether it is the same picture.

    Exit status: 0 the same, pixel by pixel; 3 another one; 1 it cannot be made again.
    """
    flags = engine_flags.among(locals())
    from safelight.cli.pictures.remake import remake

    status = remake(
        image,
        output=output,
        model=model,
        prompts={"prompt": prompt, "negative_prompt": negative_prompt},
        source=source,
        mask=mask,
        loras=lora or [],
        flags=flags,
        timeout=timeout,
    )
    raise typer.Exit(status)
