"""Real English words that name nothing sprite can draw, from the tags of emojibase: they must do no harm."""

import json
import re
from functools import cache
from typing import Literal

from training.sprite.data.artwork import package_folder
from training.sprite.data.places import COLOUR_WORDS, PLACE_PHRASES
from training.sprite.data.things import categories, plural, things

OTHER_MEANINGS = frozenset({
    "one", "two", "three", "four", "pair", "couple", "both", "some", "few", "many", "several", "group", "lots",
    "small", "little", "tiny", "mini", "big", "large", "huge", "giant", "gigantic", "left", "right", "top", "bottom",
    "above", "over", "under", "below", "beneath", "next", "near", "side", "with", "and", "ride", "riding", "rider",
    "drive", "driving", "driver", "on", "in", "at", "up", "down", "back", "no", "nothing", "winter", "ice", "space",
    "sea", "water", "street", "road", "building", "woods", "tree", "sand", "surf", "lunar", "evening", "dark", "colour",
})  # fmt: skip


@cache
def strange_words(use: Literal["training", "evaluation"]) -> tuple[str, ...]:
    """Every fifth word is kept for the evaluation."""
    words = sorted(_emojibase_words() - _known_words())
    kept = set(words[::5])
    return tuple(word for word in words if (word in kept) == (use == "evaluation"))


@cache
def _emojibase_words() -> frozenset[str]:
    entries = json.loads((package_folder("emojibase") / "en" / "data.json").read_text())
    phrases = [entry["label"] for entry in entries] + [tag for entry in entries for tag in entry.get("tags", ())]
    words = (word for phrase in phrases for word in phrase.lower().split())
    return frozenset(word for word in words if re.fullmatch("[a-z]{4,12}", word))


@cache
def _known_words() -> frozenset[str]:
    names = [name for thing in things() for name in thing.names]
    names += [word for category in categories() for word in category.words]
    phrases = names + [plural(name) for name in names]
    phrases += [phrase for known in (COLOUR_WORDS, PLACE_PHRASES) for said in known.values() for phrase in said]
    words = {word for phrase in phrases for word in phrase.replace("-", " ").split()}
    icons = {word for thing in things() for word in thing.icon.split("-")}
    return frozenset(words | icons | {plural(word) for word in words | icons}) | OTHER_MEANINGS
