"""What a replica that ended unforeseen said last, as its deployment's log may show it: a few lines, and no secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from safelight.control.endpoints.deployments import AppliedDeployment
from safelight.control.secrets.secret_references import HUB_TOKEN

MAX_LINES = 20
MAX_LINE_CHARACTERS = 500
HIDDEN = "[hidden]"
_NAME_OF_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY|DATABASE_URL", re.IGNORECASE)
_MIN_CHARACTERS = 8
"""Of what only its variable's name tells to be a secret: `KEY=1` would hide every 1."""


def known_secrets(deployment: AppliedDeployment, environment: Mapping[str, str]) -> frozenset[str]:
    """What a deployment's references stand for, and of the server's own environment what is named like a secret."""
    own = {
        value
        for name, value in deployment.environment.items()
        if name in (HUB_TOKEN, *deployment.secret_variables) or _is_secret(name, value)
    }
    return frozenset(own | {value for name, value in environment.items() if _is_secret(name, value)})


def last_lines(text: str, secrets: Collection[str]) -> list[str]:
    """The last lines that have anything in them, with every secret hidden, also line by line where it has several."""
    parts = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())}
    for part in sorted(filter(None, parts), key=len, reverse=True):
        text = text.replace(part, HIDDEN)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [_printable(line[:MAX_LINE_CHARACTERS]) for line in lines[-MAX_LINES:]]


def _is_secret(name: str, value: str) -> bool:
    return len(value) >= _MIN_CHARACTERS and _NAME_OF_SECRET.search(name) is not None


def _printable(line: str) -> str:
    """What would move the cursor of a terminal is shown, not obeyed."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
