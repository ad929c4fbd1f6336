"""What a model is made of, and what its pictures say: the flags that several commands take. They set `Settings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Components = Annotated[
    str | None,
    typer.Option("--components", help="For MODEL as a file: folder or hub id that has what the file lacks."),
]
Vae = Annotated[Path | None, typer.Option("--vae", help="File of the autoencoder, in place of the model's own.")]
TextEncoder = Annotated[
    Path | None, typer.Option("--text-encoder", help="File of the CLIP text encoder, in place of the model's own.")
]
TextEncoder2 = Annotated[
    Path | None, typer.Option("--text-encoder-2", help="File of the T5 encoder, in place of the model's own.")
]
PrivatePrompts = Annotated[
    bool | None,
    typer.Option(
        "--private-prompts/--prompts-in-pictures", help="Leave prompts out of what pictures say of themselves."
    ),
]


def among(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's parameters that say what a model is made of."""
    names = ("components", "vae", "text_encoder", "text_encoder_2")
    return {name: parameters[name] for name in names if name in parameters}
