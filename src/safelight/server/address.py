"""Where the server over a data directory listens: written when it starts, read by the command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safelight.errors import ConfigurationError
from safelight.whole_files import write_whole

ADDRESS_FILE = "server.json"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """How to reach a server on this machine."""

    url: str
    certificate: str | None = None
    """The PEM file to check it against, where it made its own."""


def write_address(data_dir: Path, address: ServerAddress) -> None:
    """Raises ConfigurationError if it cannot be written, and is not there already."""
    path = data_dir / ADDRESS_FILE
    text = json.dumps(asdict(address))
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return  # a server that is started again over a full disk
        write_whole(path, text, mode=0o666)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def read_address(data_dir: Path) -> ServerAddress:
    """Raises ConfigurationError if no server has been started over this directory."""
    try:
        address = ServerAddress(**json.loads((data_dir / ADDRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        address = None
    if address is None or not (isinstance(address.url, str) and isinstance(address.certificate, str | None)):
        raise ConfigurationError(
            f"no server has been started over {data_dir}; run `safelight serve`, or name its --data-dir"
        )
    return address
