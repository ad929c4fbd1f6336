"""`safelight inspect`: what a picture says of itself, and whether its signature holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from safelight.cli.options import Output
from safelight.cli.output import JsonObject, OutputFormat, format_of, print_one
from safelight.content_credentials import Verification, verify
from safelight.errors import InvalidRequest
from safelight.images import Picture, decode


def inspect(
    *,
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    trust_anchors: Annotated[
        Path | None, typer.Option(help="PEM file with the authorities whose signatures count as trusted.")
    ] = None,
    output: Output = None,
) -> None:
    """Show the recipe of IMAGE, and whether its Content Credentials are there and hold."""
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


def read_file(path: Path) -> bytes:
    """Raises InvalidRequest naming the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None


def read_picture(path: Path, content: bytes) -> Picture:
    """The picture in a file that was read. Raises InvalidRequest naming it."""
    try:
        return decode(content)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path} {error.message}") from None


def no_recipe(path: Path) -> InvalidRequest:
    return InvalidRequest(f"{path} carries no recipe: Safelight did not make it, or something has removed it since")


def _sentence(verification: Verification) -> str:
    who = f"signed by {verification.signed_by} with {verification.signed_with}" if verification.signed_by else ""
    return ": ".join(
        part for part in (verification.state, "; ".join([*filter(None, [who]), *verification.problems])) if part
    )
