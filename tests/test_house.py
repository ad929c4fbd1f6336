"""How large the rooms of the house may get: a function, a file, a folder."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
FILES = sorted(SOURCE.rglob("*.py"))


def test_no_function_is_longer_than_60_lines() -> None:
    functions = [
        (f"{file.relative_to(SOURCE)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert [(name, lines) for name, lines in functions if lines > 60] == []


def test_no_file_is_longer_than_400_lines() -> None:
    lines = {str(file.relative_to(SOURCE)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}

    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_folder_has_more_than_12_modules() -> None:
    folders = Counter(str(file.parent.relative_to(SOURCE)) for file in FILES if file.name != "__init__.py")

    assert {name: count for name, count in folders.items() if count > 12} == {}
