"""What `safelight` imports before it does anything: the time that every command takes to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from safelight.cli.commands import COMMANDS, LazyCommand

RUN = """
import contextlib, io, json, sys
already, commands = set(sys.modules), json.loads(sys.argv[1])
out = sys.stdout
for command in commands:
    from safelight.cli.main import main
    sys.argv = ["safelight", *command]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
print(*(sys.modules.keys() - already), file=out)
"""
INTERRUPTED = """
import sys
_, interrupted, *arguments = sys.argv
class Interrupt:
    def find_spec(self, name, *_):
        if name == interrupted:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from safelight.cli.main import main
sys.argv = ["safelight", *arguments]
main()
"""
TYPER = {"typer", "click", "shellingham", "annotated_doc", "typing_extensions"}
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}
"""With it typer checks the values of a command's options, and the settings are checked."""
TABLES = {"rich", "pygments", "markdown_it", "mdurl", "attr"}
SETTINGS = {"pydantic_settings", "dotenv"}
SPECS = {"msgspec"}


def imported(data_dir: Path, *commands: Sequence[str], env: Mapping[str, str] | None = None) -> set[str]:
    """The packages of others that commands import, by their first names; and asyncio, which is as heavy as some."""
    (data_dir / "server.json").write_text('{"url": "http://127.0.0.1:9"}')
    (data_dir / "admin-token").write_text("token")
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        env=os.environ | {"SAFELIGHT_DATA_DIR": str(data_dir)} | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    names = {name.partition(".")[0] for name in done.stdout.split() if not name.startswith("_")}
    assert "safelight" in names
    return names - (sys.stdlib_module_names - {"asyncio"}) - {"safelight"}


def test_help_imports_typer_and_no_more(tmp_path: Path) -> None:
    assert imported(tmp_path, ["--help"], ["--version"], [], ["nonsense"]) <= TYPER


def test_the_help_of_every_command_imports_its_options_and_no_more(tmp_path: Path) -> None:
    assert imported(tmp_path, *([command.name, "--help"] for command in COMMANDS if command.name)) <= TYPER | SPECS


@pytest.mark.parametrize(
    "line",
    [
        "safelight ",
        "safelight serve --",
        "safelight generate --model ",
        "safelight replay --",
        "safelight inspect --",
        "safelight model show ",
        "safelight connection create --secret ",
        "safelight online-endpoint ",
        "safelight online-endpoint show -n ",
        "safelight online-deployment show -e flux -n ",
    ],
)
def test_a_completion_imports_typer_and_no_more(tmp_path: Path, line: str) -> None:
    asked = {"COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": str(line.count(" "))}

    found = imported(tmp_path, [], env=asked | {"_SAFELIGHT_COMPLETE": "complete_bash"})
    assert found <= TYPER | (SPECS if "model" in line else set())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_that_show_help_beside_a_completion_have_it_rendered_and_no_more(tmp_path: Path, shell: str) -> None:
    asked = {"_TYPER_COMPLETE_ARGS": "safelight ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}

    assert imported(tmp_path, [], env=asked | {"_SAFELIGHT_COMPLETE": f"complete_{shell}"}) <= TYPER | TABLES


@pytest.mark.parametrize(
    "arguments",
    [
        ["model", "list"],
        ["model", "show", "sprite"],
        ["model", "create", "--name", "mine", "--path", "."],
        ["connection", "list"],
        ["online-endpoint", "show", "-n", "flux"],
        ["online-deployment", "list", "-e", "flux", "-o", "table"],
    ],
    ids=str,
)
def test_what_talks_to_a_server_imports_the_settings_and_no_server(tmp_path: Path, arguments: list[str]) -> None:
    assert imported(tmp_path, arguments) <= TYPER | PYDANTIC | SETTINGS | TABLES | SPECS | {"asyncio"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_list_of_commands_says_what_each_says_of_itself(command: LazyCommand) -> None:
    loaded = command.load()

    assert loaded.name == command.name
    assert loaded.help is not None
    assert " ".join(loaded.help.partition("\n\n")[0].split()) == command.help


@pytest.mark.parametrize("module", ["typer", "safelight.cli.models.model", "safelight.settings", "http.client"])
def test_whoever_changes_their_mind_during_an_import_is_obeyed(tmp_path: Path, module: str) -> None:
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9"}')
    (tmp_path / "admin-token").write_text("token")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "model", "list"],
        env=os.environ | {"SAFELIGHT_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
