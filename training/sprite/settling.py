"""Captions of kinds, taught from where the flow's own first step leads.

From pure noise "an animal" points to a mean of animals. A step towards it ends where no picture with noise ever is, and
a flow that has only seen those goes on to a blur. So some rows are taken there by the flow itself, a part of them away
from a negative prompt, as guidance does (https://arxiv.org/abs/2207.12598), and are pointed at one of the kind from
there: the one that the transformer's middle sees most of, less a price that rises each time it is chosen. (Without a
price every animal was soon an elephant, which is most like the mean; and where the noise chose, the flow hesitated.)
"""

from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from training.sprite.batches import WHOLE, Batch, pictures
from training.sprite.captions import negative
from training.sprite.devices import device
from training.sprite.network import Taught, encoded_text, inputs
from training.sprite.scenes import Scene, has_held_out_part
from training.sprite.text import TextEncoders
from training.sprite.things import kind_of, things

SIGMAS = (0.4, 0.95)
GUIDED_SHARE = 0.35  # of the rows that are led on
RISE = 0.1  # of a price
NEGATIVE_SCALE = 4.0  # what Safelight takes where a negative prompt comes without a guidance_scale


@torch.no_grad()
def settle(
    taught: Taught, encoders: TextEncoders, batch: Batch, noise: Tensor, sigma: Tensor, share: float, random: Random
) -> tuple[Batch, Tensor, Tensor]:
    """Of the rows of 256x256 on their way whose caption names the kind of a thing alone, that share is led on.

    Gives all rows, their noise and their sigma. A row's noise is then what leads from its new picture to where it is,
    however far that is: its error is weighed as that of the picture.
    """
    rows = [row for row in (sigma < 1).nonzero().flatten().tolist() if _names_a_kind(batch, row)]
    rows = [row for row in rows if random.random() < share]
    if batch.grid != WHOLE or len(rows) < 2:  # a batch of one would be compiled anew
        return batch, noise, sigma
    is_guided = [random.random() < GUIDED_SHARE for _ in rows]
    unwanted = [random.choice(kind_of(batch.scenes[row].first).members) for row in rows]
    against = [negative(thing, random) for thing in unwanted]
    text = _text(encoders, batch, [batch.said[row].text for row in rows])
    toward = _first_guess(taught, batch, noise[rows], text)
    away = _first_guess(taught, batch, noise[rows], _text(encoders, batch, [words.text for words in against]))
    scale = torch.tensor([NEGATIVE_SCALE if guided else 1.0 for guided in is_guided], device=device())[:, None, None]
    reached = torch.empty(len(rows), device=device()).uniform_(*SIGMAS)
    noisy = torch.lerp(away + scale * (toward - away), noise[rows], reached[:, None, None])
    _, seen = taught(**inputs(noisy, reached, text, batch.image_ids))
    chosen = [
        bought(likely, taught.prices[int(guided)], batch.scenes[row], thing if guided else None)
        for likely, row, thing, guided in zip(
            _likely(seen.float(), batch.layouts[rows]), rows, unwanted, is_guided, strict=True
        )
    ]
    scenes, said = list(batch.scenes), list(batch.said)
    for row, thing, words, guided in zip(rows, chosen, against, is_guided, strict=True):
        scenes[row] = replace(scenes[row], first=thing)
        if guided and random.random() < 0.5:
            said[row] = words
    latents, layouts = batch.latents.clone(), batch.layouts.clone()
    latents[rows], layouts[rows] = pictures([scenes[row] for row in rows], batch)
    noise, sigma, weights = noise.clone(), sigma.clone(), batch.weights.clone()
    sigma[rows], weights[rows] = reached, reached.square()
    noise[rows] = latents[rows] + (noisy - latents[rows]) / reached[:, None, None]
    return replace(batch, scenes=scenes, said=said, latents=latents, layouts=layouts, weights=weights), noise, sigma


def _names_a_kind(batch: Batch, row: int) -> bool:
    said, scene = batch.said[row], batch.scenes[row]
    return scene.relation == "one" and said.first > len(things()) and not said.contradicts(scene)


def _text(encoders: TextEncoders, batch: Batch, texts: list[str]) -> tuple[Tensor, Tensor]:
    hidden, pooled = encoded_text(encoders, texts)
    return hidden[:, : batch.view.text_length], pooled


def _first_guess(taught: Taught, batch: Batch, noise: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
    answer, _ = taught(**inputs(noise, torch.ones(len(noise), device=device()), text, batch.image_ids))
    return noise - answer.float()


def _likely(seen: Tensor, layouts: Tensor) -> Tensor:
    """(rows, things): the mean logarithm of how likely each thing is, in the patches where one is to be."""
    is_thing = layouts[..., :1] > 0
    of_patches = seen[..., : len(things()) + 1].log_softmax(-1) * is_thing
    return of_patches.sum(1)[:, 1:] / is_thing.sum(1)


def bought(likely: Tensor, prices: Tensor, scene: Scene, unwanted: int | None) -> int:
    """The likeliest for its price of the scene's kind, but for the unwanted and what is held out; prices change."""
    members = list(kind_of(scene.first).members)
    values = (likely - prices)[members].tolist()
    may_come = [m != unwanted and not has_held_out_part(replace(scene, first=m)) for m in members]
    chosen = max((value, thing) for value, thing, may in zip(values, members, may_come, strict=True) if may)[1]
    prices[members] -= RISE / len(members)
    prices[chosen] += RISE
    return chosen
