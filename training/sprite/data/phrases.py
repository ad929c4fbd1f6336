"""The words around the things: articles, sizes, numbers, backgrounds, fillers, and people's slips."""

from random import Random

from training.sprite.data.places import COLOUR_WORDS, PLACE_PHRASES
from training.sprite.data.scenes import Size
from training.sprite.data.strange_words import strange_words
from training.sprite.data.things import UNCOUNTED, plural

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "tiny", "little", "mini"),
    "big": ("big", "big", "large", "huge", "giant", "gigantic"),
}
NUMBERS: dict[int, tuple[str, ...]] = {
    2: ("two", "two", "2", "a pair of", "a couple of", "both", ""),
    3: ("three", "three", "3", "a trio of", "several", "some", "a few"),
    4: ("four", "four", "4", "a group of four", "many", "a bunch of", "lots of"),
}
ADJECTIVES = (
    "cute", "happy", "sad", "beautiful", "fluffy", "old", "young", "new", "shiny", "funny", "angry", "friendly",
    "lovely", "pretty", "magical", "colorful", "fresh", "tasty", "wild", "fancy", "cool", "nice", "sleepy", "brave",
    "realistic", "vintage", "wooden", "plastic", "famous", "lonely", "proud", "single", "strange", "simple", "smiling",
)  # fmt: skip
OPENINGS = (
    "a picture of ", "a photo of ", "an image of ", "an illustration of ", "a drawing of ", "draw ", "draw me ",
    "show me ", "a painting of ", "an emoji of ", "an icon of ", "a cartoon of ", "please draw ", "i want ",
    "generate ", "make a picture of ", "create an image of ", "there is ", "picture of ", "photo of ", "a render of ",
    "flat vector art of ", "clipart of ", "a photograph of ", "a simple drawing of ", "this is ", "can you draw ",
)  # fmt: skip
ENDINGS = (
    ", highly detailed", ", 4k", ", flat design", ", vector art", ", masterpiece", ", minimalist", ", digital art",
    " in flat style", ", emoji style", ", cartoon style", ", trending on artstation", ", best quality", ", sharp",
    ", high resolution", " please", ", photorealistic", ", studio lighting", ", cinematic", ", professional photo",
    ", octane render", ", bright colors", ", award winning", " drawing", " illustration", ", cute style",
)  # fmt: skip
DOINGS = (
    "standing", "sitting", "walking", "resting", "playing", "sleeping", "lying", "waiting", "alone", "running",
    "looking around", "having fun", "dancing", "relaxing", "enjoying life", "posing", "jumping", "hiding",
)  # fmt: skip
ONSETS = (
    "b", "br", "c", "ch", "d", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "qu", "r", "s", "st", "t", "v",
    "z",
)  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u", "ea", "oo", "y")
CODAS = ("", "", "n", "r", "s", "t", "l", "m", "x", "ng", "ck", "sh")


def thing_phrase(name: str, size: Size, random: Random, plain: bool) -> str:
    size_word = "" if size == "normal" else random.choice(SIZE_WORDS[size][:1] if plain else SIZE_WORDS[size])
    extra = "" if plain else _filler_adjective(random)
    words = " ".join(word for word in (size_word, extra, name) if word)
    return _with_article(words, name, random, plain)


def several(name: str, count: int, random: Random, plain: bool) -> str:
    if plain:
        return f"{NUMBERS[count][0]} {plural(name)}"
    number = random.choice(NUMBERS[count])
    if name in UNCOUNTED and (number in ("", "some", "a pair of", "a few", "many", "lots of", "several")):
        number = NUMBERS[count][0]
    return " ".join(word for word in (number, _filler_adjective(random), plural(name)) if word)


def backdrop(background: str, random: Random, plain: bool) -> str:
    if background in COLOUR_WORDS:
        return _colour_phrase(background, random, plain)
    phrases = PLACE_PHRASES[background]
    if plain:
        return phrases[0]
    if random.random() < 0.12:
        return random.choice((", {} background", "with a {} background", ", {}", "{} scene")).format(background)
    return random.choice(phrases[:3]) if random.random() < 0.4 else random.choice(phrases)


def empty_scene(background: str, random: Random) -> str:
    if background in COLOUR_WORDS:
        word = random.choice(COLOUR_WORDS[background])
        forms = ("{}", "{} background", "a {} background", "a plain {} background", "the color {}", "just {}")
        return random.choice(forms).format(word)
    if random.random() < 0.5:
        forms = ("{}", "{}", "a {}", "the {}", "an empty {}", "{} background", "{} scene", "{} landscape")
        return random.choice(forms).format(background)
    phrase = random.choice(PLACE_PHRASES[background])
    return random.choice(("{}", "nothing {}", "nobody {}")).format(phrase)


def wrapped(text: str, random: Random) -> str:
    opening = random.choice(OPENINGS) if random.random() < 0.25 else ""
    ending = random.choice(ENDINGS) if random.random() < 0.12 else ""
    stop = random.choice((".", "!", " ", "...")) if random.random() < 0.15 else ""
    return _cased(opening + text.lstrip(", ") + ending + stop, random)


def spoiled(text: str, random: Random) -> str:
    """Now and then a slip of the keyboard, or a word that means nothing."""
    words = text.split(" ")
    if random.random() < 0.10:
        at = random.randrange(len(words))
        words[at] = _slip(words[at], random)
    if random.random() < 0.04:
        words.insert(random.randrange(len(words) + 1), unknown_word(random))
    return " ".join(words)


def _filler_adjective(random: Random) -> str:
    chance = random.random()
    if chance < 0.03:
        return random.choice(random.choice(tuple(COLOUR_WORDS.values())))
    if chance < 0.13:
        return random.choice(ADJECTIVES)
    return unknown_word(random) if chance < 0.15 else ""


def _with_article(words: str, name: str, random: Random, plain: bool) -> str:
    if name in UNCOUNTED:
        return words if plain or random.random() < 0.7 else random.choice(("some ", "the ", "")) + words
    indefinite = ("an " if words[0] in "aeiou" and not words.startswith(("un", "ufo", "eu")) else "a ") + words
    chance = 0.0 if plain else random.random()
    if chance < 0.72:
        return indefinite
    return random.choice(("the ", "one ", "", "", "my ", "this ")) + words


def _colour_phrase(background: str, random: Random, plain: bool) -> str:
    if plain:
        article = "an" if background[0] in "aeiou" else "a"
        return f"on {article} {background} background"
    word = random.choice(COLOUR_WORDS[background])
    forms = (
        "on a {} background", "on a {} background", "with a {} background", "{} background", ", {} background",
        "against a {} background", "in front of a {} wall", "on a plain {} background", "on {}", "{} backdrop",
        "in front of a {} background", "over a {} backdrop", "background {}", "on a solid {} background",
    )  # fmt: skip
    return random.choice(forms).format(word)


def _cased(text: str, random: Random) -> str:
    chance = random.random()
    if chance < 0.05:
        return text.upper()
    if chance < 0.20:
        return text[:1].upper() + text[1:]
    return text.title() if chance < 0.22 else text


def _slip(word: str, random: Random) -> str:
    if len(word) < 4:
        return word
    at = random.randrange(1, len(word) - 1)
    match random.randrange(4):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + word[at] + word[at:]
        case 2:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case _:
            return word[:at] + random.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]


def unknown_word(random: Random) -> str:
    """A real word that names nothing sprite draws, or an invented one."""
    if random.random() < 0.6:
        return random.choice(strange_words("training"))
    syllables = (
        random.choice(ONSETS) + random.choice(VOWELS) + random.choice(CODAS) for _ in range(random.randint(2, 3))
    )
    return "".join(syllables)
