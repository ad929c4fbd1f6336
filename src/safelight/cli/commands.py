"""Every command of `safelight`, by name. A command's module is imported when it is asked for, and no other is."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from safelight import __version__

_TYPERS_FLAGS = {"default_map": {"help": False, "install_completion": False, "show_completion": False}}
"""Typer's own are None where they are not given, and to make False of that it imports pydantic."""
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[1])
"""What typer raises for a line that makes no sense; it has no name of it that is not private."""


class LazyCommand(TyperCommand):
    """What the list of commands says of one of them, and where it is.

    `source` is MODULE:NAME of its function, or of the Typer app with its subcommands.
    """

    def __init__(self, name: str, source: str, help: str) -> None:
        super().__init__(name, help=help)
        self._name = name
        self._source = source

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Of the command itself: it is about to be run, or a shell completes its options."""
        command = self.load()
        if extra.get("resilient_parsing"):
            _take_unchecked(command)
        try:
            return command.make_context(*args, **extra)
        except _USAGE_ERROR as error:
            _add_hint(error, command)
            raise

    def load(self) -> TyperCommand | TyperGroup:
        """Import the command itself."""
        module, _, attribute = self._source.partition(":")
        found = getattr(import_module(module), attribute)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=self._name, context_settings=_TYPERS_FLAGS)
        else:
            app.command(self._name)(found)
        command = get_command(app)
        loaded = command.commands[self._name] if isinstance(command, TyperGroup) else command
        assert isinstance(loaded, TyperCommand | TyperGroup)
        return loaded


def _take_unchecked(command: Any) -> None:
    """Have the values of a command's options, and of its subcommands', as they stand in a line that is not finished.

    To check them typer imports pydantic, which takes as long as all else that a completion does.
    """
    command.context_settings = {**command.context_settings, **_TYPERS_FLAGS}
    for parameter in command.params:
        parameter.process_value = lambda _, value: value
    for each in getattr(command, "commands", {}).values():
        _take_unchecked(each)


def _add_hint(error: Any, command: TyperCommand | TyperGroup) -> None:
    """Where an option has the name that another program gives it: what it is called here."""
    from safelight.picture.other_names import hint

    if not hasattr(error, "possibilities"):  # something else than an unknown option
        return
    names = {
        option.strip("-").replace("-", "_"): option
        for each in command.params
        for option in each.opts
        if option[0] == "-"
    }
    if known := hint(error.option_name.strip("-"), names, show=lambda name: names[name]):
        error.message, error.possibilities = error.message + known, None


COMMANDS = (
    LazyCommand("serve", "safelight.cli.serve:serve", "Serve MODEL behind the Hugging Face and the OpenAI image APIs."),
    LazyCommand(
        "generate", "safelight.cli.pictures.generate:generate", "Make a picture of PROMPT and write it to a file."
    ),
    LazyCommand(
        "inspect",
        "safelight.cli.pictures.inspect:inspect",
        "Show the recipe of IMAGE, and whether its Content Credentials are there and hold.",
    ),
    LazyCommand(
        "replay",
        "safelight.cli.pictures.replay:replay",
        "Make IMAGE again from its recipe, and say whether it is the same picture.",
    ),
    LazyCommand("bench", "safelight.cli.bench.bench:bench", "Measure a server of pictures, or two against each other."),
    LazyCommand("model", "safelight.cli.models.model:app", "Show and register the models that can be served."),
    LazyCommand(
        "status",
        "safelight.cli.status:status",
        "Show what the server is doing: endpoints, deployments, replicas, queue, pictures a second.",
    ),
    LazyCommand("connection", "safelight.cli.az.connection:app", "Manage workspace connections: named secrets."),
    LazyCommand("online-endpoint", "safelight.cli.az.online_endpoint:app", "Manage online endpoints."),
    LazyCommand("online-deployment", "safelight.cli.az.online_deployment:app", "Manage online deployments."),
)


def command_line() -> TyperGroup:
    """`safelight` itself."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, context_settings=_TYPERS_FLAGS)
    app.callback()(_root)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for command in COMMANDS:
        group.add_command(command)
    return group


def _print_version(context: typer.Context, is_wanted: bool) -> None:
    if is_wanted and not context.resilient_parsing:  # a shell that completes what follows wants no version
        typer.echo(f"safelight {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """FLUX.1-schnell, and models built like it, served on machines you own."""
