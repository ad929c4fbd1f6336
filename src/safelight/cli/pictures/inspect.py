"""`safelight inspect`: what a picture says of itself, and whether its signature holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.az.options import Output
from safelight.cli.output import JsonObject, OutputFormat, format_of, print_one

if TYPE_CHECKING:
    from safelight.picture.content_credentials import Verification


def inspect(
    *,
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    trust_anchors: Annotated[
        Path | None, typer.Option(help="PEM file with the authorities whose signatures count as trusted.")
    ] = None,
    output: Output = None,
) -> None:
    """Show the recipe of IMAGE, and whether its Content Credentials are there and hold."""
    from safelight.cli.pictures.picture_files import no_recipe, read_file, read_picture
    from safelight.picture.content_credentials import verify

    content = read_file(image)
    recipe = read_picture(image, content).recipe
    anchors = None if trust_anchors is None else read_file(trust_anchors).decode("ascii", "replace")
    verification = verify(content, trust_anchors=anchors)
    if recipe is None and verification.state == "none":
        raise no_recipe(image)
    facts: JsonObject = {} if recipe is None else recipe.as_dict()
    is_table = format_of(output) is OutputFormat.TABLE
    credentials = (
        _sentence(verification) if is_table else {**asdict(verification), "problems": [*verification.problems]}
    )
    print_one(facts | {"content_credentials": credentials}, output)


def _sentence(verification: Verification) -> str:
    who = f"signed by {verification.signed_by} with {verification.signed_with}" if verification.signed_by else ""
    return ": ".join(
        part for part in (verification.state, "; ".join([*filter(None, [who]), *verification.problems])) if part
    )
