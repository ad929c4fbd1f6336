"""How the nouns of `az ml` print: a table on a terminal, JSON elsewhere, or what `-o` says.

Only what is printed in a format pays for its library.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

JsonObject = dict[str, Any]


class OutputFormat(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def print_list(items: Sequence[JsonObject], columns: Sequence[str], output: OutputFormat | None) -> None:
    """Several resources: as rows, or as one JSON or YAML list."""
    if format_of(output) is not OutputFormat.TABLE:
        _print_text(list(items), output)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")  # a name is there to be copied
    for item in items:
        table.add_row(*(_cell(item.get(column)) for column in columns))
    Console(emoji=False, highlight=False).print(table, markup=False)


def print_one(item: JsonObject, output: OutputFormat | None) -> None:
    """One resource: as two columns, or as JSON or YAML."""
    if format_of(output) is not OutputFormat.TABLE:
        _print_text(item, output)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in item.items():
        if value not in (None, "", {}, []):
            table.add_row(key, _cell(value))
    Console(emoji=False, highlight=False).print(table, markup=False)


def format_of(output: OutputFormat | None) -> OutputFormat:
    """The format in force."""
    if output is not None:
        return output
    return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON


def _print_text(value: object, output: OutputFormat | None) -> None:
    if format_of(output) is OutputFormat.YAML:
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(printable(f"{key}={each}") for key, each in value.items())
    if isinstance(value, list):
        return "\n".join(printable(str(each)) for each in value)
    if isinstance(value, tuple):
        return ", ".join(_cell(each) for each in value)
    return "" if value is None else printable(str(value))


def printable(text: str) -> str:
    """Text of a stranger: what would move the cursor of a terminal is shown, not obeyed."""
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)
