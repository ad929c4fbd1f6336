"""`safelight model show` as a terminal calls it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from safelight.cli.main import main

Run = Callable[..., tuple[int, str, str]]
"""Its arguments -> the status, and what was printed and said."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["safelight", "model", "show", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
