"""How much of a picture the flow knows before it sees any of it: from the caption and pure noise alone.

`python -m training.sprite.detail` prints the share of the latents' variance that the first step explains, over
unseen scenes of one thing: in the patches that show the thing, and in those that show the background.
"""

from random import Random

import torch
from torch import Tensor

from training.sprite.autoencoder import load_autoencoder, to_tensor
from training.sprite.captions import caption
from training.sprite.checkpoints import log
from training.sprite.devices import device
from training.sprite.flow import encoded_text, load_transformer, velocity
from training.sprite.scenes import Scene, draw_with_layout, random_background
from training.sprite.shards import encoded, normalisation, pack
from training.sprite.text import load_text_encoders
from training.sprite.things import things

SCENES = 128


def explained() -> dict[str, float]:
    random = Random("scenes of the first step's detail")
    scenes = [Scene("one", random_background(random), random.randrange(len(things()))) for _ in range(SCENES)]
    drawn = [draw_with_layout(scene, 256, 256) for scene in scenes]
    norm = normalisation()
    latents = pack((encoded(load_autoencoder(), to_tensor([pixels for pixels, _ in drawn])) - norm.shift) * norm.scale)
    shows_thing = torch.stack([torch.from_numpy(layout[..., 0]).flatten() > 0 for _, layout in drawn])
    guessed = _first_guess([caption(scene, random, plain=True).text for scene in scenes])
    return {
        "thing": _share_explained(latents[shows_thing], guessed[shows_thing]),
        "background": _share_explained(latents[~shows_thing], guessed[~shows_thing]),
    }


@torch.no_grad()
def _first_guess(texts: list[str]) -> Tensor:
    noise = torch.randn(len(texts), 64, 128, generator=torch.Generator().manual_seed(0))
    text = encoded_text(load_text_encoders(), texts)
    sigma = torch.ones(len(texts), device=device())
    return noise - velocity(load_transformer(), noise.to(device()), sigma, text, (8, 8)).cpu()


def _share_explained(patches: Tensor, guessed: Tensor) -> float:
    return round(1 - ((patches - guessed).square().mean() / patches.var(0).mean()).item(), 3)


if __name__ == "__main__":
    log("detail", **explained())
