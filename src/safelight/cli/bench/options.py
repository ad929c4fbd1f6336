"""The options of `safelight bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safelight.cli.completion import complete_models

Subject = Annotated[
    str,
    typer.Argument(
        metavar="URL_OR_MODEL",
        help="A running server (http://127.0.0.1:8000, https://api.example.org/v1), or a model that a server is "
        "started for.",
        autocompletion=complete_models,
    ),
]
Api = Annotated[
    str | None,
    typer.Option(
        help="openai or huggingface [openai where the URL ends with /v1, /v1/openai, /openai/deployments/NAME or "
        "/images/generations]."
    ),
]
Compare = Annotated[
    str | None, typer.Option(metavar="URL", help="Another server: both in turns, and the ratios of their figures.")
]
CompareApi = Annotated[str | None, typer.Option(help="The same as --api, of the other server.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="With --compare: turns of each server [5].")]
Clients = Annotated[
    int | None, typer.Option(min=1, max=900, help="Clients that each wait for their picture (closed loop) [1].")
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Requests a second, at random moments (Poisson), however slow the answers are (open loop); in place of "
        "--clients."
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(
        help="What is asked for: WIDTHxHEIGHT@STEPS:WEIGHT, with commas, such as 256x256@4:9,512x512@8-16:1 "
        "[what the server makes if not told]."
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(help="Ask for this, in turns if given several times [prompts that do not repeat soon]."),
]
Duration = Annotated[float | None, typer.Option(help="Seconds that count; in rounds, of each [30; in rounds 10].")]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests that count, in place of --duration.")]
WarmUp = Annotated[float, typer.Option(min=0, help="Seconds of load before it counts.")]
Timeout = Annotated[float, typer.Option(help="Seconds until an answer is given up.")]
HonourRetryAfter = Annotated[
    bool | None,
    typer.Option(
        "--honour-retry-after/--ignore-retry-after",
        help="Whether a client that is refused waits as long as it is told, or asks on at once [it waits].",
    ),
]
ApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="Variable that holds the Bearer key.")]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File that holds the Bearer key.")]
CompareApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="The same for the other server.")]
CompareApiKeyFile = Annotated[Path | None, typer.Option(help="The same for the other server.")]
Certificate = Annotated[Path | None, typer.Option(help="PEM file to check the servers' certificates against.")]
ModelName = Annotated[str | None, typer.Option("--model", help="OpenAI's `model`, for servers that have several.")]
Extra = Annotated[
    str | None, typer.Option(metavar="JSON", help='More fields of each request, such as \'{"quality": "low"}\'.')
]
PricePerHour = Annotated[float | None, typer.Option(help="Of the machine: 1,000 pictures are priced by it.")]
ServeOptions = Annotated[
    str | None, typer.Option(help='For MODEL: options of `safelight serve`, such as "--replicas 2".')
]
Seed = Annotated[int, typer.Option(help="Of what is asked, and when: the same for the same seed.")]
Json = Annotated[Path | None, typer.Option("--json", help="File for the figures; - for standard output.")]
Plot = Annotated[Path | None, typer.Option(help="File for a plot (SVG).")]
