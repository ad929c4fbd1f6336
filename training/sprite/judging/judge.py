"""The judge: a small network trained on rendered scenes only, that says what a picture shows.

It looks at 96x96 pixels and names the things, their relation, the background and the count.
"""

import argparse
import time
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, pad, relu

from training.sprite.data.artwork import Pixels
from training.sprite.data.captions import RELATIONS
from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import Scene, draw, held_out_scene, random_scene
from training.sprite.data.things import things
from training.sprite.networks.autoencoder import to_tensor
from training.sprite.networks.checkpoints import load, log, resume_optimizers, save, stoppable
from training.sprite.networks.devices import device, mixed_precision
from training.sprite.networks.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder

CHECKPOINT = "judge.pt"
SIDE = 96
MOST_SHIFT = 4  # pixels of those, by which training pictures are moved
LABEL_COUNTS = (1 + len(things()), 1 + len(things()), len(RELATIONS), len(BACKGROUNDS), 4)


@dataclass(frozen=True)
class Schedule:
    steps: int = 4000
    anneal: int = 2500
    warm_up: int = 50
    batch: int = 32
    peak: float = 2e-3
    checked: int = 200  # held-out scenes, with each checkpoint
    seed: int = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    first: int
    second: int
    relation: str
    background: str
    count: int


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return relu(x + self.layers(x))


class Judge(nn.Module):
    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 4, stride=4), nn.BatchNorm2d(64), nn.ReLU(),
            _down(64, 128), Block(128), Block(128), _down(128, width), Block(width),
        )  # fmt: skip
        self.places = nn.Parameter(torch.randn((SIDE // 16) ** 2, width) * 0.1)
        self.questions = nn.Parameter(torch.randn(len(LABEL_COUNTS), width) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(2 * width, count) for count in LABEL_COUNTS)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Each question looks where it likes; the mean over the picture is given to all."""
        seen = self.layers(pictures).flatten(2).transpose(1, 2).float()
        weights = ((seen + self.places) @ self.questions.T).softmax(dim=1)
        answers = torch.einsum("btq,btw->bqw", weights, seen)
        mean = seen.mean(1)
        return [head(torch.cat([answers[:, i], mean], -1)) for i, head in enumerate(self.heads)]


def load_judge() -> Judge:
    judge = Judge().to(device())
    judge.load_state_dict(load(work_folder() / CHECKPOINT)["weights"])
    return judge.eval().requires_grad_(False)


def verdicts(judge: Judge, pictures: list[Pixels]) -> list[Verdict]:
    """What each picture shows; pictures of any size are looked at as 96x96."""
    with torch.no_grad():
        answers = [answer.argmax(-1).tolist() for answer in judge(_seen(pictures))]
    return [
        Verdict(first - 1, second - 1, RELATIONS[relation], BACKGROUNDS[background], count + 1)
        for first, second, relation, background, count in zip(*answers, strict=True)
    ]


def train(schedule: Schedule) -> None:
    torch.manual_seed(schedule.seed)
    judge = Judge().to(device(), memory_format=torch.channels_last)
    chosen = optimizers(judge, schedule.peak, weight_decay=0.01)
    step, started = _resume(judge, chosen), time.time()
    first = step
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            set_learning_rate(chosen, learning_rate(schedule, step))
            loss = _train_step(judge, chosen, Random(f"judge {schedule.seed} {step}"), schedule.batch)
            step += 1
            if step % 50 == 0:
                speed = (step - first) * schedule.batch / (time.time() - started)
                log("judge", step=step, loss=round(loss, 4), pictures_per_s=round(speed, 1))
            if step % 250 == 0 or step == schedule.steps or stop.is_set():
                save(work_folder() / CHECKPOINT, {"weights": judge.state_dict(), "step": step,
                     "optimizers": [optimizer.state_dict() for optimizer in chosen]})  # fmt: skip
                log("judge", step=step, **check(load_judge(), schedule.checked))


def check(judge: Judge, count: int) -> dict[str, float]:
    """The judge's own share of right answers on renders of what is held out from training, its own included."""
    random = Random("held-out scenes of the judge")
    scenes = [held_out_scene(random) for _ in range(count)]
    found = [verdict for start in range(0, count, 50) for verdict in _judged(judge, scenes[start : start + 50])]
    pairs = list(zip(scenes, found, strict=True))
    singles = [(scene, verdict) for scene, verdict in pairs if scene.relation == "one"]
    doubles = [(scene, verdict) for scene, verdict in pairs if scene.second >= 0]
    return {
        "one": _share([scene.first == verdict.first for scene, verdict in singles]),
        "pair": _share([_names_pair(scene, verdict) for scene, verdict in doubles]),
        "background": _share([scene.background == verdict.background for scene, verdict in pairs]),
        "count": _share([scene.count == verdict.count for scene, verdict in pairs]),
    }


def _judged(judge: Judge, scenes: list[Scene]) -> list[Verdict]:
    return verdicts(judge, [draw(scene, 256, 256) for scene in scenes])


def _names_pair(scene: Scene, verdict: Verdict) -> bool:
    return (scene.first, scene.second, scene.relation) == (verdict.first, verdict.second, verdict.relation)


def _share(right: list[bool]) -> float:
    return round(sum(right) / max(1, len(right)), 4)


def _seen(pictures: list[Pixels]) -> Tensor:
    whole = to_tensor(pictures)
    return interpolate(whole, (SIDE, SIDE), mode="area") if whole.shape[-2:] != (SIDE, SIDE) else whole


def _train_step(judge: Judge, chosen: list[torch.optim.Optimizer], random: Random, count: int) -> float:
    scenes = [random_scene(random) for _ in range(count)]
    pictures = _roughened(_seen([draw(scene, 256, 256) for scene in scenes]), random)
    expected = torch.tensor([_labels(scene) for scene in scenes], device=device())
    with mixed_precision():
        answers = judge(pictures.contiguous(memory_format=torch.channels_last))
    loss = torch.stack([cross_entropy(answer.float(), expected[:, i]) for i, answer in enumerate(answers)]).sum()
    descend(loss, judge, chosen, longest=2.0)
    return loss.item()


def _roughened(pictures: Tensor, random: Random) -> Tensor:
    """A little noise, blur and shift, so that the judge does not hang on the last pixel."""
    shift = [random.randint(-MOST_SHIFT, MOST_SHIFT) for _ in range(2)]
    pictures = pad(pictures, [MOST_SHIFT] * 4, mode="replicate").roll(shift, (2, 3))
    pictures = pictures[..., MOST_SHIFT:-MOST_SHIFT, MOST_SHIFT:-MOST_SHIFT]
    if random.random() < 0.4:
        pictures = interpolate(avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    return pictures + torch.randn_like(pictures) * random.uniform(0, 0.1)


def _labels(scene: Scene) -> tuple[int, ...]:
    background = BACKGROUNDS.index(scene.background)
    return scene.first + 1, scene.second + 1, RELATIONS.index(scene.relation), background, scene.count - 1


def _down(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, wider, 4, stride=2, padding=1), nn.BatchNorm2d(wider), nn.ReLU())


def _resume(judge: Judge, chosen: list[torch.optim.Optimizer]) -> int:
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0
    state = load(path)
    judge.load_state_dict(state["weights"])
    resume_optimizers(chosen, state)
    return int(state["step"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal))
