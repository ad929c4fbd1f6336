"""The chart, rendered: by `helm template` where there is helm, else by Go's templates with Debian's sprig."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/safelight"
SPRIG = Path("/usr/share/gocode/src/github.com/Masterminds/sprig")
RENDERER = Path(__file__).with_name("render.go")


def missing_package() -> str | None:
    """The Debian package that is needed to render, if it is not there."""
    if shutil.which("helm"):
        return None
    if shutil.which("go") is None:
        return "golang-go"
    return None if SPRIG.is_dir() else "golang-github-masterminds-sprig-dev"


def render(values: Mapping[str, Any], work: Path, *, release: str = "pictures") -> list[dict[str, Any]]:
    """The manifests of a release. Raises ValueError with the chart's own refusal."""
    if shutil.which("helm"):
        file = work / "values.yaml"
        file.write_text(json.dumps(values))
        text = _run(["helm", "template", release, str(CHART), "--values", str(file)], stdin="", work=work)
    else:
        text = "\n---\n".join(_rendered_by_go(values, work, release).values())
    return [each for each in yaml.safe_load_all(text) if each]


def _rendered_by_go(values: Mapping[str, Any], work: Path, release: str) -> dict[str, str]:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    data = {
        "Values": merged(yaml.safe_load((CHART / "values.yaml").read_text()), values),
        "Chart": {"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
        "Release": {"Name": release, "Namespace": "default", "Service": "Helm"},
    }
    renderer = work.parent / "render"
    if not renderer.exists():
        _run(["go", "build", "-o", str(renderer), str(RENDERER)], stdin="", work=work)
    text = _run([str(renderer), str(CHART / "templates")], stdin=json.dumps(data), work=work)
    rendered: dict[str, str] = json.loads(text)
    del rendered["NOTES.txt"]
    return rendered


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm does: maps are merged, everything else replaced."""
    both = {**defaults, **values}
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping):
            both[name] = merged(defaults[name], value)
    return both


def _run(command: list[str], *, stdin: str, work: Path) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(work.parent / "go-cache"),
        "GOFLAGS": "-p=1",
    }
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr)
    return done.stdout
