"""YAML as people write it: parsed, or refused without a word of it, since some of them are secrets."""

from __future__ import annotations

import re

import yaml


class NotYaml(ValueError):
    """What the text is instead of YAML, and where."""


def parse_yaml(text: str) -> object:
    """Raises NotYaml."""
    try:
        value: object = yaml.safe_load(text)
    except _NOT_YAML as error:
        raise NotYaml(_why_not(error)) from None
    return value


_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
"""The last three are what PyYAML's constructors let through, with the value in it, of a date or number that is none."""
_QUOTED = re.compile("'[^']*'|\"[^\"]*\"")


def _why_not(error: Exception) -> str:
    """Where and why, without the line itself and its words: it may be the one with the secret."""
    if isinstance(error, yaml.reader.ReaderError | RecursionError):
        return str(error)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "a value in it looks like a date or a number, or is marked as one, and is none; write it in quotes"
    mark = error.problem_mark
    problem = _QUOTED.sub(
        lambda each: each[0] if _is_yamls_own(each[0]) else "'…'", error.problem or "it cannot be read"
    )
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _is_yamls_own(quoted: str) -> bool:
    """`','` or `'<block end>'`, and no word of the file."""
    return len(quoted) <= 3 or quoted.startswith("'<")
