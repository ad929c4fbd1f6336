"""Captions that leave something open, taught from where the flow's own first steps lead.

From pure noise "an animal" points to a mean of animals. A step towards it ends where no picture with noise ever is, and
a flow that has only seen those goes on to a blur. So some rows are taken there by the flow itself, in one, three or ten
steps, a part of them away from a negative prompt, as guidance does (https://arxiv.org/abs/2207.12598), and are pointed
at one of the kind from there: the one that the transformer's middle sees most of, less a price that rises each time it
is chosen. (Where the noise chose, or a price without a ceiling, the flow hesitated between all of a kind, and drew
haze. Led on by one step alone, it drew kinds under a negative prompt worse in 32 steps than in 4.)

Where guidance leads from what is open and there is nothing to see yet, it is to go straight on: what it made of answers
in doubt, at each of 32 steps, was a picture of nothing. There the flow learns to answer what it answered at pure noise.

Captions that leave nothing open are led on too, and stay what they are: half of those to where several steps come
without guidance, and half away from words that have nothing to do with them, as what a prompt names must be drawn
whatever a negative prompt says.

Where a negative prompt has led further, both prompts are to point to the same picture: guidance multiplies what is left
between them. So such a row is there twice, with each of the two, and what guidance makes of both answers has an error
as well.
"""

from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from training.sprite.data.captions import SILENCE, Said, negative_background, negative_nothing, negative_thing
from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import Scene, has_held_out_part, random_background
from training.sprite.data.things import kind_of, things
from training.sprite.networks.devices import device
from training.sprite.networks.network import Taught, encoded_text, inputs, told_apart
from training.sprite.networks.text import TextEncoders
from training.sprite.stages.batches import WHOLE, Batch, pictures

# The sigmas that are reached from pure noise in so many steps. A picture of 4 steps comes there in one to three, of 32
# in many. In one, 4 steps never come below 0.75, nor 2 below 0.5; after three, 32 are still at 0.9.
SIGMAS = {1: (0.5, 0.97), 3: (0.2, 0.9), 10: (0.2, 0.97)}
# Sigmas where guidance of a caption that leaves something open goes straight on: 4 steps first look at 0.75.
STRAIGHT = (0.77, 0.98)
STRAIGHT_SHARE = 0.5  # of those rows are led only that far; others end there by SIGMAS
STRAIGHT_WEIGHT = 2.0  # on top of WEIGHT: guidance multiplies even small errors of theirs at each step
GUIDED_SHARE = 0.5  # of the rows that are led on
EARLY = 0.8  # a sigma: above it rows that leave nothing open are not led on, as there they learn what to draw
WEIGHT = 2.0  # of an error of theirs in the picture: they learn what no other row shows
GUIDED_WEIGHT = 0.25  # of what guidance makes of two answers, next to what both errors weigh together
BESIDE_THE_POINT = 0.25  # of the negative prompts, where the caption leaves something open
SEEN_SHARE = 0.5  # of the other negative prompts name what comes most without them
RISE = 0.02  # of a price: little, so that the same noise is seldom asked for another thing the next time
DEAREST = 0.3  # price: a few of a kind come often and others never, or the flow would hesitate between all
NEGATIVE_SCALE = 4.0  # what Safelight takes where a negative prompt comes without a guidance_scale


@dataclass(frozen=True, slots=True, eq=False)
class Led:
    """Rows of a batch that the flow has led on from pure noise."""

    rows: list[int]  # which of the batch; the numbers below are places in this list
    against: list[Said]  # their negative prompts, or silence
    guided: list[int]  # numbers of those that have one
    straight: list[int]  # numbers of those of them that show nothing yet, and go straight on
    sigma: Tensor  # (rows,)
    noisy: Tensor  # (rows, tokens, 128)
    at_noise: Tensor  # (rows and then guided ones once more, tokens, 128): the flow's answers there
    seen: Tensor  # (rows, tokens, classes): what the transformer's middle sees there


@torch.no_grad()
def settle(
    taught: Taught, encoders: TextEncoders, batch: Batch, noise: Tensor, sigma: Tensor, share: float, random: Random
) -> tuple[Batch, Tensor, Tensor]:
    """Leads on that share of the rows of 256x256 whose caption leaves open what a thing alone is, or what is behind
    it, and of those that leave nothing open and are not EARLY.

    Gives all rows, their noise and their sigma; and, after them, each that was led away from a negative prompt once
    more, with that for its caption. A led row's noise is then what leads from its new picture to where it is, however
    far that is: its error is weighed as that of the picture, times WEIGHT, and half of it where the row is there twice.
    Rows that go straight on have no picture: with each prompt they are to answer what they answered at pure noise.
    """
    rows = [row for row in range(len(batch.said)) if _can_be_led(batch.said[row], batch.scenes[row], sigma[row].item())]
    rows = [row for row in rows if random.random() < share]
    if batch.grid != WHOLE or len(rows) < 2:  # a batch of one would be compiled anew
        return batch, noise, sigma
    led = _lead(taught, encoders, batch, noise, rows, random)
    scenes = _chosen(led, batch, taught.prices)
    latents, layouts = batch.latents.clone(), batch.layouts.clone()
    changed = [row for row in rows if scenes[row] != batch.scenes[row]]
    if changed:
        latents[changed], layouts[changed] = pictures([scenes[row] for row in changed], batch)
    noise, sigma, weights = noise.clone(), sigma.clone(), batch.weights.clone()
    sigma[rows], weights[rows] = led.sigma, WEIGHT * led.sigma.square()
    noise[rows] = latents[rows] + (led.noisy - latents[rows]) / led.sigma[:, None, None]
    twice = [rows[number] for number in led.guided]
    weights[twice] /= 2
    weights[[rows[number] for number in led.straight]] *= STRAIGHT_WEIGHT
    every = [*range(len(scenes)), *twice]
    latents, noise, sigma = latents[every], noise[every], sigma[every]
    again = [led.guided.index(number) for number in led.straight]
    unseen = [rows[number] for number in led.straight] + [len(scenes) + place for place in again]
    answers = led.at_noise[led.straight + [len(rows) + place for place in again]]
    latents[unseen] = led.noisy[led.straight * 2] - sigma[unseen, None, None] * answers
    noise[unseen] = latents[unseen] + answers
    settled = replace(
        batch,
        scenes=[scenes[row] for row in every],
        said=batch.said + [led.against[number] for number in led.guided],
        latents=latents,
        layouts=layouts[every],
        weights=weights[every],
        twice=twice,
        unseen=unseen,
    )
    return settled, noise, sigma


def _lead(taught: Taught, encoders: TextEncoders, batch: Batch, noise: Tensor, rows: list[int], random: Random) -> Led:
    against = [
        negative_words(batch.said[row], batch.scenes[row], taught.prices[0], random)
        if random.random() < GUIDED_SHARE
        else SILENCE
        for row in rows
    ]
    guided = [number for number, words in enumerate(against) if words.text]
    steps = random.choice(list(SIGMAS))
    sigma = torch.empty(len(rows), device=device()).uniform_(*SIGMAS[steps])
    open_ones = [number for number in guided if _leaves_open(batch.said[rows[number]], batch.scenes[rows[number]])]
    short = [number for number in open_ones if random.random() < STRAIGHT_SHARE]
    sigma[short] = torch.empty(len(short), device=device()).uniform_(*STRAIGHT)
    straight = [number for number in open_ones if sigma[number] > STRAIGHT[0]]
    said = [batch.said[row] for row in rows] + [against[number] for number in guided]
    text = encoded_text(encoders, [words.text for words in said], batch.view.text_length)
    noisy, at_noise = led_to(taught, batch.image_ids, noise[rows], text, guided, sigma, steps)
    _, seen = taught(**inputs(noisy, sigma, (text[0][: len(rows)], text[1][: len(rows)]), batch.image_ids))
    return Led(rows, against, guided, straight, sigma, noisy, at_noise, seen.float())


def _chosen(led: Led, batch: Batch, prices: Tensor) -> list[Scene]:
    """What each row of the batch is to show from now on."""
    scenes = list(batch.scenes)
    thing_scores, background_scores = likely(led.seen, batch.layouts[led.rows])
    for number, (row, words) in enumerate(zip(led.rows, led.against, strict=True)):
        if number not in led.straight:
            scores = thing_scores[number], background_scores[number]
            scenes[row] = bought(open_to(batch.said[row], scenes[row], words), scores, prices[int(words.text != "")])
    return scenes


def guided_loss(wrong: Tensor, rows: Batch) -> Tensor:
    """Of what guidance makes of both answers, where a row is there twice.

    By how much each answer is wrong is (rows, tokens, 128).
    """
    if not rows.twice:
        return torch.zeros((), device=wrong.device)
    toward, away = wrong[rows.twice], wrong[-len(rows.twice) :]
    guided = away + NEGATIVE_SCALE * (toward - away)
    weights = 2 * GUIDED_WEIGHT * rows.weights[rows.twice]
    return (guided.square().mean((1, 2)) * weights).sum() / len(wrong)


def _can_be_led(said: Said, scene: Scene, sigma: float) -> bool:
    """Captions that are true; of several things those that leave nothing open, and kinds not at pure noise, or most
    that are led would be kinds.
    """
    if not said.text or scene.relation == "empty" or said.contradicts(scene):
        return False
    if not _leaves_open(said, scene):
        return sigma < EARLY
    return scene.relation == "one" and (not said.is_open or sigma < 1)


def _leaves_open(said: Said, scene: Scene) -> bool:
    return said.is_open or not _tells_background(said, scene)


def _tells_background(said: Said, scene: Scene) -> bool:
    """Behind several things that goes unsaid where it is white."""
    return said.background > 0 or scene.relation != "one"


def negative_words(said: Said, scene: Scene, prices: Tensor, random: Random) -> Said:
    """A thing of the kind that the caption names, or a background that it does not: often what comes most, as people
    name who saw it. Of things that is the dearest, or one of those; of backgrounds white, which is what mostly goes
    unsaid. Now and then, and where the caption leaves nothing open, words beside the point.
    """
    if not _leaves_open(said, scene) or random.random() < BESIDE_THE_POINT:
        return _beside_the_point(scene, random)
    is_seen = random.random() < SEEN_SHARE
    if said.is_open and (said.background or random.random() < 0.5):
        members = list(kind_of(scene.first).members)
        worth = prices[members].tolist() if is_seen else [0.0] * len(members)
        dearest = [thing for thing, price in zip(members, worth, strict=True) if price == max(worth)]
        return negative_thing(random.choice(dearest), random)
    return negative_background("white" if is_seen else random_background(random), random)


def _beside_the_point(scene: Scene, random: Random) -> Said:
    """Words that mean nothing here, or what the scene does not show."""
    chance = random.random()
    if chance < 0.5:
        return negative_nothing(random)
    if chance < 0.75:
        return negative_thing(
            random.choice([thing.index for thing in things() if thing.index not in (scene.first, scene.second)]), random
        )
    return negative_background(random.choice([name for name in BACKGROUNDS if name != scene.background]), random)


def led_to(
    taught: Taught,
    ids: Tensor,
    noise: Tensor,
    text: tuple[Tensor, Tensor],
    guided: list[int],
    reached: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """From pure noise (rows, tokens, 128) to where the flow is at the sigma (rows,) that each row is to reach, in so
    many Euler steps of the same length, as FluxPipeline's are. Gives the first answers as well, to all of the text.

    The text is of all rows and, after them, of the negative prompts of those that are guided, which are row numbers.
    """
    rows = [*range(len(noise)), *guided]
    step = (1 - reached) / steps
    noisy, sigma, answers = noise, torch.ones_like(reached), []
    for _ in range(steps):
        answer, _ = taught(**inputs(noisy[rows], sigma[rows], text, ids))
        answers.append(answer.float())
        toward, away = answers[-1].clone().split([len(noise), len(guided)])
        toward[guided] = away + NEGATIVE_SCALE * (toward[guided] - away)
        noisy = noisy - step[:, None, None] * toward
        sigma = sigma - step
    return noisy, answers[0]


def likely(seen: Tensor, layouts: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, things) and (rows, backgrounds): the mean logarithm of how likely each is.

    Things in the patches where one is to be, backgrounds in the others.
    """
    is_thing = (layouts[..., :1] > 0).float()
    of_things, _, of_backgrounds = told_apart(seen)
    shown = (of_things.log_softmax(-1) * is_thing).sum(1)[:, 1:] / is_thing.sum(1)
    behind = (of_backgrounds.log_softmax(-1) * (1 - is_thing)).sum(1) / (1 - is_thing).sum(1).clamp(min=1)
    return shown, behind


def open_to(said: Said, scene: Scene, unwanted: Said) -> list[Scene]:
    """What a caption leaves open, but for the unwanted and what is held out: other things, or other backgrounds."""
    members = kind_of(scene.first).members if said.is_open else (scene.first,)
    behind = (scene.background,) if _tells_background(said, scene) else BACKGROUNDS
    scenes = [replace(scene, first=thing, background=name) for thing in members for name in behind]
    return [
        other
        for other in scenes
        if 1 + other.first != unwanted.first
        and 1 + BACKGROUNDS.index(other.background) != unwanted.background
        and not has_held_out_part(other)
    ]


def bought(scenes: list[Scene], scores: tuple[Tensor, Tensor], prices: Tensor) -> Scene:
    """The likeliest scene for the price of its thing. Prices change, from 0 to DEAREST: its own rises, others fall."""
    things_worth, backgrounds_worth = (scores[0] - prices).tolist(), scores[1].tolist()
    chosen = max(
        scenes, key=lambda scene: things_worth[scene.first] + backgrounds_worth[BACKGROUNDS.index(scene.background)]
    )
    members = list({scene.first for scene in scenes})
    prices[members] -= RISE / len(members)
    prices[chosen.first] += RISE
    prices.clamp_(0, DEAREST)
    return chosen
