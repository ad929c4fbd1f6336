"""The artwork, fetched by npm package name and rendered once to pixels: icons with alpha, and places."""

import hashlib
import io
import json
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from training.sprite.data.places import BACKGROUNDS, COLOURS, place_svg
from training.sprite.data.things import things
from training.sprite.paths import work_folder

Pixels = NDArray[np.uint8]
ICON_SIDE = 256
PACKAGES = {
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
    "emojibase": "emojibase-data@17.0.0",
}


@cache
def icons() -> tuple[Pixels, ...]:
    """Every thing's icon, RGBA, cut to what is drawn, its longer side 256 pixels."""
    cached = work_folder() / f"icons-{_version()}.npz"
    if not cached.exists():
        part = cached.with_suffix(".part.npz")
        np.savez_compressed(part, **{f"{thing.index:04}": _render_icon(thing.icon) for thing in things()})
        part.rename(cached)
    with np.load(cached) as arrays:
        return tuple(arrays[key] for key in sorted(arrays.files))


@cache
def icon_at(index: int, side: int) -> Pixels:
    """The icon with its longer side scaled to `side`, colour premultiplied by alpha."""
    icon = icons()[index]
    scale = side / max(icon.shape[:2])
    size = (max(1, round(icon.shape[1] * scale)), max(1, round(icon.shape[0] * scale)))
    resample = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
    scaled = np.asarray(Image.fromarray(icon).resize(size, resample)).astype(np.uint16)
    scaled[..., :3] = (scaled[..., :3] * scaled[..., 3:] + 127) // 255
    return scaled.astype(np.uint8)


@cache
def background_at(name: str, width: int, height: int) -> Pixels:
    if name in COLOURS:
        return np.full((height, width, 3), COLOURS[name], np.uint8)
    return _render_svg(place_svg(name, width, height), width, height)[..., :3].copy()


def fetch_artwork() -> None:
    for short, package in PACKAGES.items():
        if not package_folder(short).exists():
            _fetch_package(package, work_folder() / "art" / short)


def prepare() -> None:
    fetch_artwork()
    icons()
    for name in BACKGROUNDS:
        background_at(name, 256, 256)


def _version() -> str:
    """Of the rendered icons: another artwork, or another list of things, makes others."""
    told = [PACKAGES["fluent"], *(thing.icon for thing in things())]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _fetch_package(package: str, folder: Path) -> None:
    """Whole or not at all. Ends with npm's own words if it cannot be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise SystemExit(f"{package} is fetched with npm, which is not installed: install Node.js") from None
    if packed.returncode:
        raise SystemExit(f"npm cannot fetch {package}: {(packed.stderr or packed.stdout).strip()}")
    with TemporaryDirectory(dir=folder) as part:
        with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
            archive.extractall(part, filter="data")
        (Path(part) / "package").rename(folder / "package")


def package_folder(short: str) -> Path:
    return work_folder() / "art" / short / "package"


@cache
def _icon_bodies() -> dict[str, str]:
    drawn = json.loads((package_folder("fluent") / "icons.json").read_text())
    return {name: icon["body"] for name, icon in drawn["icons"].items()} | {
        "": f"0 0 {drawn.get('width', 16)} {drawn.get('height', 16)}"
    }


def _render_icon(icon: str) -> Pixels:
    bodies = _icon_bodies()
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{bodies[""]}">{bodies[icon]}</svg>'
    rendered = Image.fromarray(_render_svg(svg, 320, 320))
    cut = rendered.crop(rendered.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox())
    scale = ICON_SIDE / max(cut.size)
    return np.asarray(cut.resize((round(cut.width * scale), round(cut.height * scale)), Image.Resampling.LANCZOS))


def _render_svg(svg: str, width: int, height: int) -> Pixels:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
