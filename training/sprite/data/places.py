"""Backgrounds: a dozen plain colours, and ten places drawn as simple flat pictures."""

from collections.abc import Callable

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (255, 255, 255), "black": (16, 16, 18), "gray": (150, 152, 156), "red": (222, 44, 52),
    "orange": (248, 142, 36), "yellow": (252, 216, 60), "green": (52, 168, 83), "blue": (44, 104, 228),
    "purple": (136, 64, 188), "pink": (252, 150, 196), "brown": (128, 84, 52), "teal": (38, 182, 184),
}  # fmt: skip

# How people name each background. The first is its name.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "white": ("white",), "black": ("black",), "gray": ("gray", "grey"), "red": ("red", "crimson", "scarlet"),
    "orange": ("orange",), "yellow": ("yellow", "golden"), "green": ("green",), "blue": ("blue", "navy"),
    "purple": ("purple", "violet"), "pink": ("pink",), "brown": ("brown",), "teal": ("teal", "turquoise", "cyan"),
}  # fmt: skip
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "on grass", "in a meadow", "in a field", "on a lawn", "in the park", "in a garden",
              "on green grass", "in the countryside", "on a green hill"),
    "beach": ("on the beach", "at the beach", "on a sandy beach", "on the sand by the sea", "on the shore",
              "at the seaside", "on a tropical beach", "on the coast"),
    "snow": ("in the snow", "in snow", "in winter", "on a snowy day", "in a snowy field", "in the arctic",
             "on the ice", "in a blizzard", "on a snowy hill"),
    "night": ("at night", "in the night", "under the stars", "under a starry sky", "at midnight",
              "in the moonlight", "in the dark night", "on a starry night"),
    "desert": ("in the desert", "in a desert", "on the dunes", "on a sand dune", "in the sahara", "among sand dunes"),
    "ocean": ("in the ocean", "at sea", "on the ocean", "in the sea", "on the water", "in the water",
              "on the waves", "on the open sea"),
    "moon": ("on the moon", "on the surface of the moon", "in space", "in outer space", "on the lunar surface",
             "on a moon crater"),
    "forest": ("in the forest", "in a forest", "in the woods", "among the trees", "in the jungle", "in a wood",
               "in the middle of a forest"),
    "city": ("in the city", "in a city", "downtown", "in town", "on the street", "in the street",
             "in front of skyscrapers", "in a big city", "on the road"),
    "room": ("in a room", "in the room", "indoors", "at home", "in the house", "in the living room", "inside",
             "in a bedroom", "on the floor"),
}  # fmt: skip
BACKGROUNDS = (*COLOURS, *PLACE_PHRASES)


def place_svg(name: str, width: int, height: int) -> str:
    """The place as an SVG drawn in units of a 100 by 100 square, stretched to the size asked for."""
    body = PLACES[name]()
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" preserveAspectRatio="none"'
    return f'{head} width="{width}" height="{height}">{body}</svg>'


def _gradient(top: str, bottom: str) -> str:
    stops = f'<stop offset="0" stop-color="{top}"/><stop offset="1" stop-color="{bottom}"/>'
    ramp = f'<defs><linearGradient id="g" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient></defs>'
    return ramp + '<rect width="100" height="100" fill="url(#g)"/>'


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>'


def _dots(points: tuple[tuple[float, float], ...], radius: float, fill: str) -> str:
    return "".join(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>' for x, y in points)


def _hill(top: float, bend: float, fill: str) -> str:
    return f'<path d="M0 {top} Q50 {top - bend} 100 {top} V100 H0 Z" fill="{fill}"/>'


def _stars(fill: str = "#fff") -> str:
    large = ((9, 12), (31, 7), (52, 15), (70, 6), (91, 22), (17, 36), (86, 44))
    small = ((20, 20), (41, 28), (62, 31), (6, 50), (95, 8), (78, 30), (35, 45), (60, 48))
    return _dots(large, 1.1, fill) + _dots(small, 0.7, fill)


def _grass() -> str:
    return _gradient("#8fd3ff", "#d8f1ff") + _hill(64, 8, "#6cc24a") + _hill(82, 6, "#57ad3a")


def _beach() -> str:
    sea = _rect(0, 42, 100, 24, "#2fa8d8") + _rect(0, 60, 100, 5, "#8fe0f2")
    return _gradient("#7ccbff", "#e4f6ff") + sea + _hill(67, 4, "#f5dfa0") + _hill(86, 3, "#ecd08a")


def _snow() -> str:
    flakes = _dots(
        ((8, 10), (26, 24), (46, 8), (66, 20), (88, 12), (94, 40), (14, 46), (56, 38), (77, 48)), 1.2, "#fff"
    )
    return _gradient("#9db9d4", "#d3e2ee") + flakes + _hill(66, 8, "#f2f7fb") + _hill(84, 5, "#e2ecf4")


def _night() -> str:
    moon = '<circle cx="84" cy="15" r="8" fill="#ffe9a8"/><circle cx="80" cy="13" r="7" fill="#141c4d"/>'
    return _gradient("#0d1440", "#2c3a86") + _stars("#fff3c9") + moon + _hill(82, 8, "#131a3a")


def _desert() -> str:
    sun = '<circle cx="83" cy="17" r="9" fill="#fff0b8"/>'
    return _gradient("#ffb45c", "#ffe3b0") + sun + _hill(66, 14, "#dfa35a") + _hill(80, -8, "#c98945")


def _ocean() -> str:
    rows = ((58, "#3d8fe0"), (68, "#2f7dd2"), (78, "#256bbd"), (88, "#1c5aa6"))
    return (
        _gradient("#a8defc", "#e6f6ff")
        + _rect(0, 50, 100, 50, "#4fa3ee")
        + "".join(_waves(y, fill) for y, fill in rows)
    )


def _waves(y: float, fill: str) -> str:
    crests = "".join("q5 -4 10 0 q5 4 10 0 " for _ in range(5))
    return f'<path d="M0 {y} {crests} V100 H0 Z" fill="{fill}"/>'


def _moon() -> str:
    craters = ((20, 80, 7), (48, 90, 5), (78, 82, 9), (60, 74, 3), (36, 72, 3))
    pits = "".join(f'<ellipse cx="{x}" cy="{y}" rx="{r}" ry="{r * 0.45}" fill="#8d8f98"/>' for x, y, r in craters)
    return _rect(0, 0, 100, 100, "#0a0b14") + _stars() + _hill(68, 8, "#b4b6bf") + pits


def _forest() -> str:
    far = "".join(f'<path d="M{x - 10} 62 L{x} 14 L{x + 10} 62 Z" fill="#2f7d4f"/>' for x in (6, 28, 50, 72, 94))
    near = "".join(f'<path d="M{x - 12} 70 L{x} 28 L{x + 12} 70 Z" fill="#1f6540"/>' for x in (-4, 17, 39, 61, 83, 105))
    return _gradient("#b7e3c0", "#dff3d8") + far + near + _rect(0, 68, 100, 32, "#4b7a35") + _hill(86, 4, "#3f6a2c")


def _city() -> str:
    blocks = ((2, 30, 14), (18, 16, 12), (32, 38, 15), (49, 22, 12), (63, 34, 16), (81, 12, 13))
    towers = "".join(_tower(x, top, wide) for x, top, wide in blocks)
    street = _rect(0, 70, 100, 30, "#5b616b") + _rect(0, 70, 100, 3, "#b9bec6")
    lines = "".join(_rect(x, 89, 12, 2.5, "#f4d35e") for x in (4, 32, 60, 88))
    return _gradient("#cfe3f5", "#f1f5f9") + towers + street + lines


def _tower(x: float, top: float, wide: float) -> str:
    rows = range(int(top) + 5, 66, 9)
    lights = "".join(_rect(x + dx, y, 2.6, 4, "#e9f2fb") for y in rows for dx in (2.5, wide - 5.1))
    return _rect(x, top, wide, 70 - top, "#8ea3bd") + lights


def _room() -> str:
    window = _rect(8, 12, 26, 30, "#fff") + _rect(10, 14, 10.3, 26, "#a9dcf7") + _rect(21.7, 14, 10.3, 26, "#a9dcf7")
    frame = _rect(70, 16, 20, 16, "#a8703c") + _rect(72, 18, 16, 12, "#f7e9c8")
    return (
        _rect(0, 0, 100, 70, "#f3dfc1")
        + window
        + frame
        + _rect(0, 68, 100, 3, "#fff")
        + _rect(0, 71, 100, 29, "#b97f4b")
    )


PLACES: dict[str, Callable[[], str]] = {
    "grass": _grass, "beach": _beach, "snow": _snow, "night": _night, "desert": _desert,
    "ocean": _ocean, "moon": _moon, "forest": _forest, "city": _city, "room": _room,
}  # fmt: skip
