"""How a model computes: the flags that every command which loads one takes. They set fields of `EngineOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

Device = Annotated[str | None, typer.Option("--device", help="auto, cuda, mps or cpu [auto].")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="What is computed in: auto, bfloat16, float16 or float32 [auto].")
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        help="What the transformer's weights are kept as: auto, none (as in their file), int8, fp8 or nf4 [auto].",
    ),
]
TextEncoder2Quantization = Annotated[
    str | None, typer.Option("--text-encoder-2-quantization", help="The same for the T5 encoder [auto].")
]
Offload = Annotated[
    str | None,
    typer.Option(
        "--offload",
        help="What waits in the machine's memory until a GPU needs it: auto, none, encoders, model or layers [auto].",
    ),
]
VaeTiling = Annotated[
    str | None, typer.Option("--vae-tiling", help="Decode large pictures in tiles: auto, on or off [auto].")
]
Memory = Annotated[
    str | None, typer.Option("--memory", help="How much of the device to take, such as 12GB or 11GiB [what is free].")
]

_NAMES = ("device", "dtype", "quantization", "text_encoder_2_quantization", "offload", "vae_tiling", "memory")


def among(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of a command's parameters that are these flags."""
    return {name: parameters[name] for name in _NAMES}
