"""Lines of a prompt file that look like JSON, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight.cli.pictures.prompt_file import read_prompt_file


def test_bytes_of_other_systems_are_read(tmp_path: Path) -> None:
    (tmp_path / "it.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "one"}\r\n  \r\n\r\n{"prompt": "two"}')

    lines = read_prompt_file(str(tmp_path / "it.jsonl"), {})

    assert [(line.number, line.prompt, line.error) for line in lines] == [(1, "one", None), (4, "two", None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "\\ud800 fox"}', "half of a surrogate pair"),
        ('{"prompt": "fox", "guidance_scale": NaN}', "a number out of all bounds"),
        ('{"prompt": "fox", "guidance_scale": 1e999}', "a number out of all bounds"),
        ('{"prompt": "fox", "seed": ' + "9" * 5000 + "}", "a number out of all bounds"),
        ('{"prompt": ' + "[" * 100_000, "too deep"),
    ],
)
def test_a_line_that_can_be_neither_sent_nor_written_down_has_an_error(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "it.jsonl").write_text(f'{line}\n{{"prompt": "a dog"}}\n')

    first, second = read_prompt_file(str(tmp_path / "it.jsonl"), {})

    assert first.error is not None
    assert message in first.error.message
    assert second.error is None


@pytest.mark.parametrize(
    "fields",
    ['"steps": 4, "num_inference_steps": 5', '"num_inference_steps": 5, "steps": 4'],
)
def test_both_names_of_a_field_that_is_given_twice_are_named(tmp_path: Path, fields: str) -> None:
    (tmp_path / "it.jsonl").write_text(f'{{"prompt": "a fox", {fields}}}\n')

    (line,) = read_prompt_file(str(tmp_path / "it.jsonl"), {})

    assert line.error is not None
    assert {"steps", "num_inference_steps"} <= set(line.error.message.replace(";", " ").split())


def test_a_default_out_of_all_bounds_is_an_error_of_every_line(tmp_path: Path) -> None:
    (tmp_path / "it.txt").write_text("a fox\n")

    (line,) = read_prompt_file(str(tmp_path / "it.txt"), {"guidance_scale": float("nan")})

    assert line.error is not None
