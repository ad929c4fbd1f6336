"""Captions for scenes in the many ways people put them, and what each caption really says of its scene."""

from dataclasses import dataclass, replace
from random import Random

from training.sprite.data.phrases import (
    DOINGS,
    backdrop,
    empty_scene,
    several,
    spoiled,
    thing_phrase,
    unknown_word,
    wrapped,
)
from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import PAIR_RELATIONS, Relation, Scene, has_held_out_part, random_background
from training.sprite.data.things import categories, kind_of, things

UNSAID_WHITE_SHARE = 0.85
UNSAID_OTHER_SHARE = 0.2  # behind a thing alone
# How often a thing's kind is named for it. The shipped text encoders were taught with 0.12 throughout; where a thing is
# alone, the flow learns to see in the noise which of its kind it is.
CATEGORY_SHARE = 0.12
CATEGORY_SHARE_ALONE = 0.4

NO_THING = 0
THING_LABELS = 1 + len(things()) + len(categories())
BACKGROUND_LABELS = 1 + len(BACKGROUNDS)
RELATIONS: tuple[Relation, ...] = ("empty", "one", "many", *PAIR_RELATIONS)
SIZE_LABELS = ("small", "normal", "big")


@dataclass(frozen=True, slots=True)
class Said:
    """A caption and, as class numbers, what it says; 0 where it names no thing or no background."""

    text: str
    first: int
    second: int
    relation: int
    background: int
    count: int
    first_size: int
    second_size: int

    @property
    def is_open(self) -> bool:
        """Whether many pictures fit: it names a kind of thing, or nothing at all."""
        return not self.text or max(self.first, self.second) > len(things())

    def contradicts(self, scene: Scene) -> bool:
        """Whether it names another first thing, or another background, than that scene has."""
        names_another = 0 < self.first <= len(things()) and self.first != 1 + scene.first
        return names_another or self.background not in (0, 1 + BACKGROUNDS.index(scene.background))

    @property
    def labels(self) -> tuple[int, ...]:
        return (self.first, self.second, self.relation, self.background, self.count, self.first_size, self.second_size)


LABEL_COUNTS = (THING_LABELS, THING_LABELS, len(RELATIONS), BACKGROUND_LABELS, 4, 3, 3)
SILENCE = Said("", NO_THING, NO_THING, 0, 0, 0, 1, 1)

Templates = tuple[str, ...]
BESIDE_EITHER_WAY = "{a} next to {b}"
BESIDE: Templates = (
    BESIDE_EITHER_WAY, BESIDE_EITHER_WAY, "{a} beside {b}", "{a} and {b}", "{a} and {b}", "{a} with {b}",
    "{a} near {b}", "{a} by {b}", "{a} alongside {b}", "{a}, {b}", "{a} {is}next to {b}", "{a} {is}close to {b}",
    "{a} to the left of {b}", "{a} left of {b}", "{a} left of {b}", "{a} on the left of {b}", "{a} {is}left of {b}",
    "{b} to the right of {a}", "{b} right of {a}", "{b} right of {a}", "{b} on the right of {a}",
    "{b} {is}right of {a}", "{a} on the left and {b} on the right", "{b} on the right and {a} on the left",
    "on the left {a}, on the right {b}", "{a} on the left side, {b} on the right side", "{a} together with {b}",
)  # fmt: skip
ABOVE: Templates = (
    "{a} above {b}", "{a} above {b}", "{a} over {b}", "{a} {is}above {b}", "{a} floating over {b}",
    "{a} flying over {b}", "{a} hovering above {b}", "{a} high above {b}", "{b} below {a}", "{b} under {a}",
    "{b} {is}below {a}", "{b} beneath {a}", "{b} underneath {a}", "{a} at the top and {b} at the bottom",
)  # fmt: skip
ON_TOP: Templates = (
    "{a} on top of {b}", "{a} on top of {b}", "{a} {is}on top of {b}", "{a} standing on top of {b}",
    "{a} sitting on top of {b}", "{a} placed on top of {b}", "{a} atop {b}", "{b} with {a} on top",
    "{b} with {a} on top of it", "{a} balancing on {b}",
)  # fmt: skip
ON: Templates = ("{a} on {b}", "{a} sitting on {b}", "{a} standing on {b}", "{a} {is}on {b}")
RIDING: Templates = (
    "{a} riding {b}", "{a} riding {b}", "{a} riding {b}", "{a} rides {b}", "{a} {is}riding {b}", "{a} riding on {b}",
    "{b} ridden by {a}", "{a} on the back of {b}", "{a} who rides {b}", "{b} being ridden by {a}",
)  # fmt: skip
DRIVING: Templates = ("{a} driving {b}", "{a} drives {b}")
PLAIN: dict[Relation, Templates] = {
    "beside": (BESIDE_EITHER_WAY, "{a} left of {b}", "{b} right of {a}"),
    "above": ("{a} above {b}",), "on": ("{a} on top of {b}",), "riding": ("{a} riding {b}",),
}  # fmt: skip
MOUNTED: Templates = ("{a} on {b}", "{a} sitting on {b}", "{a} {is}on {b}")


def caption(scene: Scene, random: Random, *, plain: bool = False, kind_share: float | None = None) -> Said:
    """One way to put this scene; `plain` keeps to names and the simplest phrasing, as evaluation prompts do.

    `kind_share` is how often a thing is called by the name of its kind.
    """
    says_background = plain or scene.relation == "empty" or random.random() > _unsaid_share(scene)
    if kind_share is None:
        kind_share = CATEGORY_SHARE_ALONE if scene.relation == "one" else CATEGORY_SHARE
    first, first_label = _name(scene.first, kind_share, random, plain)
    second, second_label = _name(scene.second, kind_share, random, plain)
    where = backdrop(scene.background, random, plain) if says_background else ""
    if scene.relation == "empty":
        text = empty_scene(scene.background, random)
    else:
        text = _joined(_subject(scene, first, second, random, plain), where, random, plain)
    if not plain:
        text = spoiled(wrapped(text, random), random)
    return Said(
        text, first_label, second_label, RELATIONS.index(scene.relation),
        1 + BACKGROUNDS.index(scene.background) if says_background else 0,
        scene.count - 1, SIZE_LABELS.index(scene.first_size), SIZE_LABELS.index(scene.second_size),
    )  # fmt: skip


def negative_thing(thing: int, random: Random) -> Said:
    """What people say who do not want this thing."""
    name = random.choice(things()[thing].names)
    text = thing_phrase(name, "normal", random, plain=False) if random.random() < 0.5 else name
    return Said(text, 1 + thing, NO_THING, RELATIONS.index("one"), 0, 0, 1, 1)


def negative_background(background: str, random: Random) -> Said:
    """The same of this background."""
    text, label = empty_scene(background, random), 1 + BACKGROUNDS.index(background)
    return Said(text, NO_THING, NO_THING, RELATIONS.index("empty"), label, 0, 1, 1)


def negative_nothing(random: Random) -> Said:
    """What people say of any picture, as "blurry, low quality": words that name nothing sprite draws."""
    words = [unknown_word(random) for _ in range(random.randint(1, 4))]
    return replace(SILENCE, text=random.choice((", ", " ")).join(words))


def mistaken(scene: Scene, random: Random) -> Scene:
    """A scene like this one, but for its first thing, which is another of its kind, or for its background.

    That of several things does not become white, which may go unsaid: then the caption would not be mistaken.
    """
    if scene.relation == "empty" or random.random() < 0.3:
        changed = replace(scene, background=random_background(random))
        if changed.background == "white" and scene.relation not in ("one", "empty"):
            return scene
    else:
        changed = replace(scene, first=random.choice(kind_of(scene.first).members))
    return scene if has_held_out_part(changed) else changed


def _unsaid_share(scene: Scene) -> float:
    """What goes unsaid behind several things is white: a mean of backgrounds is gray, and a horse lost its legs in it.

    Behind a thing alone it is left open, for there the flow is led on (`settling`).
    """
    if scene.background == "white":
        return UNSAID_WHITE_SHARE
    return UNSAID_OTHER_SHARE if scene.relation == "one" else 0


def _name(index: int, kind_share: float, random: Random, plain: bool) -> tuple[str, int]:
    if index < 0:
        return "", NO_THING
    thing = things()[index]
    if plain or random.random() > kind_share:
        name = thing.name if plain or random.random() < 0.5 else random.choice(thing.names)
        return name, 1 + index
    kind = kind_of(index)
    return random.choice(kind.words), 1 + len(things()) + categories().index(kind)


def _subject(scene: Scene, first: str, second: str, random: Random, plain: bool) -> str:
    if scene.relation == "many":
        return several(first, scene.count, random, plain)
    a = thing_phrase(first, scene.first_size, random, plain)
    if scene.relation == "one":
        return a
    b = thing_phrase(second, scene.second_size, random, plain)
    template = random.choice(PLAIN[scene.relation] if plain else _templates(scene))
    verb = random.choice(("is ", "standing ", "sitting ", "that is ", "placed "))
    return template.format(a=a, b=b, **{"is": verb})


def _templates(scene: Scene) -> Templates:
    a, b = things()[scene.first], things()[scene.second]
    is_mounting = a.category == "person" and b.is_mount
    match scene.relation:
        case "beside":
            return BESIDE
        case "above":
            return ABOVE
        case "on":
            return ON_TOP if is_mounting else ON_TOP + ON
        case _:
            driving = DRIVING if b.category == "vehicle" else ()
            return RIDING + driving + (MOUNTED if is_mounting else ())


def _joined(subject: str, where: str, random: Random, plain: bool) -> str:
    if not where:
        return subject
    if plain or random.random() < 0.85:
        doing = "" if plain or random.random() < 0.88 else random.choice(DOINGS) + " "
        return f"{subject} {doing}{where}"
    return f"{where}{random.choice((', ', ' '))}{subject}"
