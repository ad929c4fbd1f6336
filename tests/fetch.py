"""`make fetch`: what the tests need from registries, fetched once and before them; they themselves reach no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FETCHED = Path(__file__).parents[1] / ".fetched"
WHY_NOT = FETCHED / "why-not.txt"
"""What the registry's client said when it could not be reached."""
WEB = Path(__file__).parents[1] / "web"
"""The page's sources, and its tools in `node_modules`."""
PACKAGE_JSON = Path(__file__).parent / "compat" / "javascript" / "package.json"
NODE_MODULES = FETCHED / "javascript" / "node_modules"


def openai_sdist() -> Path:
    """Where the source of the installed `openai` client is, with the tests that its package leaves out."""
    return FETCHED / f"openai-{version('openai')}.tar.gz"


def fetch() -> None:
    """By pip the openai client's tests; by npm the artwork of sprite's recipe, the page's tools, JavaScript clients.

    Raises SystemExit with their words.
    """
    FETCHED.mkdir(exist_ok=True)
    WHY_NOT.unlink(missing_ok=True)
    if not openai_sdist().exists():
        _fetch_openai_sdist()
    _fetch_by_npm()


def _fetch_openai_sdist() -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    wanted = ["--no-binary", ":all:", "--dest", str(FETCHED), f"openai=={version('openai')}"]
    outcome = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if outcome.returncode:
        _give_up(f"pip could not fetch {wanted[-1]}: {outcome.stderr.strip()[-2000:]}")


def _fetch_by_npm() -> None:
    os.environ["SPRITE_WORK"] = str(FETCHED)
    from training.sprite.data.artwork import fetch_artwork  # noqa: PLC0415  it reads where to

    try:
        fetch_artwork()
        fetch_page_tools()
        fetch_clients()
    except SystemExit as failure:
        _give_up(str(failure))


def _give_up(why: str) -> None:
    WHY_NOT.write_text(why, encoding="utf-8")
    raise SystemExit(why)


def fetch_clients() -> None:
    """Whole or not at all, and again if others are wanted. Raises SystemExit with npm's words."""
    folder = NODE_MODULES.parent
    wanted = PACKAGE_JSON.read_text(encoding="utf-8")
    if NODE_MODULES.exists() and (folder / "package.json").read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text(wanted, encoding="utf-8")
    try:
        _npm(folder, "install", "--silent", "--no-package-lock")
    except SystemExit:
        shutil.rmtree(folder)
        raise


def fetch_page_tools() -> None:
    """Exactly what the lock file says. Raises SystemExit with npm's words."""
    lock, fetched = WEB / "package-lock.json", WEB / "node_modules" / ".fetched-lock.json"
    if fetched.exists() and fetched.read_bytes() == lock.read_bytes():
        return
    _npm(WEB, "ci")
    shutil.copy(lock, fetched)


def _npm(folder: Path, *command: str) -> None:
    options = ("--no-audit", "--no-fund", "--ignore-scripts")
    try:
        done = subprocess.run(["npm", *command, *options], cwd=folder, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(
            "the page's tools and the JavaScript clients are fetched with npm, which is not installed: install Node.js"
        ) from None
    if done.returncode:
        raise SystemExit(f"npm cannot fetch into {folder.name}: {(done.stderr or done.stdout).strip()}")


if __name__ == "__main__":
    fetch()
    art = sorted(path.name for path in (FETCHED / "art").iterdir())
    sys.stdout.write(f"fetched: {', '.join([openai_sdist().name, *art])}; the page's tools; JavaScript clients\n")
