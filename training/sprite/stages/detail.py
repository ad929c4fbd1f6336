"""How much of a picture the flow knows before it sees any of it: from the caption and pure noise alone.

`python -m training.sprite.stages.detail` prints the share of the latents' variance that the first step explains, over
scenes held out from training: in the patches that show things, for each kind of scene, and in all others.
"""

from random import Random

import torch
from torch import Tensor

from training.sprite.data.captions import caption
from training.sprite.data.scenes import Scene, draw_with_layout, held_out_scene
from training.sprite.networks.autoencoder import load_autoencoder, to_tensor
from training.sprite.networks.checkpoints import log
from training.sprite.networks.devices import device
from training.sprite.networks.network import encoded_text, load_transformer, velocity
from training.sprite.networks.text import load_text_encoders
from training.sprite.stages.shards import encoded, normalisation, pack

KINDS = ("one", "small", "big", "many", "beside", "above", "on", "riding")
SCENES = 64  # of each kind


def explained() -> dict[str, float]:
    scenes = _scenes()
    drawn = [draw_with_layout(scene, 256, 256) for scene in scenes]
    norm = normalisation()
    latents = pack((encoded(load_autoencoder(), to_tensor([pixels for pixels, _ in drawn])) - norm.shift) * norm.scale)
    shows_thing = torch.stack([torch.from_numpy(layout[..., 0]).flatten() > 0 for _, layout in drawn])
    random = Random("captions of the first step's detail")
    guessed = _first_guess([caption(scene, random, plain=True).text for scene in scenes])
    shares = {}
    for number, kind in enumerate(KINDS):
        rows = slice(number * SCENES, (number + 1) * SCENES)
        shares[kind] = _share_explained(latents[rows][shows_thing[rows]], guessed[rows][shows_thing[rows]])
    return shares | {"background": _share_explained(latents[~shows_thing], guessed[~shows_thing])}


def _scenes() -> list[Scene]:
    """So many of each kind, kind by kind."""
    random = Random("scenes of the first step's detail")
    found: dict[str, list[Scene]] = {kind: [] for kind in KINDS}
    while any(len(scenes) < SCENES for scenes in found.values()):
        scene = held_out_scene(random)
        kind = scene.first_size if scene.relation == "one" and scene.first_size != "normal" else scene.relation
        if kind in found and len(found[kind]) < SCENES:
            found[kind].append(scene)
    return [scene for scenes in found.values() for scene in scenes]


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
