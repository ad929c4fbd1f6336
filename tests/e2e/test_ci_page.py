"""The commands of docs/ci.md, one after another as they stand, but for the ports, write what the page says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.pictures import open_picture
from tests.e2e.processes import SAFELIGHT, environment

PAGE = Path(__file__).parents[2] / "docs" / "ci.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```(?:\n```\n(.*?)```)?", TEXT, re.DOTALL)
WORKFLOW = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0])
STEPS = {each.get("name"): each.get("run") for each in WORKFLOW["jobs"]["test"]["steps"]}
MARK = "--- block"


def script(ports: dict[str, str]) -> str:
    """The step of the workflow that starts the server, and every block; all servers end with it."""
    start = STEPS["Start Safelight"].replace(".safelight/.venv/bin/safelight serve", "safelight serve --port 8000")
    parts = ["set -eo pipefail; trap 'kill $(jobs -p)' EXIT", start]
    for language, block, _ in BLOCKS:
        parts += [f"echo '{MARK}'", block if language == "sh" else f"python3 - <<'END'\n{block}END"]
    text = "\n".join(parts)
    for port, free in ports.items():
        text = text.replace(port, free)
    return text


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_the_pages_commands_write_what_the_page_says(tmp_path: Path) -> None:
    env = environment(WORKFLOW["jobs"]["test"]["env"])
    env["PATH"] = f"{SAFELIGHT.parent}:{Path(sys.executable).parent}:{env['PATH']}"

    done = subprocess.run(
        ["bash", "-c", script(dict(zip(("8000", "8001"), free_ports(2), strict=True)))],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split(f"{MARK}\n")[1:] == [expected for _, _, expected in BLOCKS]
    assert open_picture(tmp_path / "first.png").size == (256, 256)
    assert len(BLOCKS) == 6
