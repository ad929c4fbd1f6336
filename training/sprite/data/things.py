"""The things sprite can draw, read from things.txt: their icons, names, plurals and categories."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

UNCOUNTED = {
    "deer", "sheep", "fish", "angelfish", "pufferfish", "blowfish", "tropical fish", "moose", "elk", "shrimp",
    "dice", "grapes", "cherries", "pancakes", "french fries", "fries", "chips", "noodles", "swords",
    "crossed swords", "jeans", "trousers", "glasses", "sunglasses", "scissors", "spectacles", "books",
    "spaghetti", "pasta", "sushi", "ramen", "popcorn", "bread", "corn", "maize", "honey", "milk", "wine",
    "beer", "coffee", "tea", "cheese", "luggage", "lightning", "bison", "food", "fruit", "aircraft",
}  # fmt: skip
IRREGULAR = {
    "mouse": "mice", "goose": "geese", "wolf": "wolves", "loaf of bread": "loaves of bread", "thief": "thieves",
    "old man": "old men", "old woman": "old women", "fireman": "firemen", "policeman": "policemen",
    "spaceman": "spacemen", "snowman": "snowmen", "person": "people", "die": "dice", "infant": "infants",
    "somebody": "people", "someone": "people", "scarf": "scarves", "ox": "oxen", "knife": "knives",
    "maple leaf": "maple leaves", "bow and arrow": "bows and arrows", "means of transport": "vehicles",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    index: int
    icon: str
    names: tuple[str, ...]
    category: str
    is_mount: bool

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def is_rider(self) -> bool:
        return self.category in ("person", "animal")


@dataclass(frozen=True, slots=True)
class Category:
    name: str
    words: tuple[str, ...]
    members: tuple[int, ...]


@cache
def things() -> tuple[Thing, ...]:
    found: list[Thing] = []
    category = ""
    for line in _lines():
        if line.startswith("["):
            category = line[1 : line.index("]")]
        else:
            found.append(_thing(len(found), category, line))
    return tuple(found)


@cache
def categories() -> tuple[Category, ...]:
    return tuple(_category(line) for line in _lines() if line.startswith("["))


@cache
def kind_of(thing: int) -> Category:
    return next(category for category in categories() if thing in category.members)


def plural(name: str) -> str:
    if name in UNCOUNTED:
        return name
    if name in IRREGULAR:
        return IRREGULAR[name]
    head, of, rest = name.partition(" of ")
    return _regular_plural(head) + of + rest


def _regular_plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith("o") and word in ("tomato", "potato", "mango", "volcano", "mosquito", "hero", "buffalo"):
        return word + "es"
    return word + "s"


def _lines() -> list[str]:
    lines = (line.strip() for line in (Path(__file__).with_name("things.txt")).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _thing(index: int, category: str, line: str) -> Thing:
    icon, names = line.split("|")
    words = tuple(word.strip() for word in names.rstrip("* ").split(","))
    return Thing(index, icon.strip(), words, category, names.rstrip().endswith("*"))


def _category(line: str) -> Category:
    name, words = line[1:].split("]")
    members = tuple(thing.index for thing in things() if thing.category == name)
    return Category(name, tuple(word.strip() for word in words.split(",")), members)
