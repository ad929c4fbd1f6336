"""The text encoders, taught on text alone to say what a caption asks for, before any picture is drawn.

The mean of T5's hidden states, and CLIP's pooled vector, are read by plain linear layers that are thrown away.
What stays is conditioning in which synonyms, slips and word order are settled; and since the mean says it all,
a transformer that has not yet learnt where to look, and looks everywhere, is told everything.
"""

import argparse
import time
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from training.sprite.data.captions import LABEL_COUNTS, SILENCE, Said, caption
from training.sprite.data.scenes import random_scene
from training.sprite.data.tokens import TEXT_LENGTH, clip_ids, clip_tokenizer, t5_ids, t5_tokenizer
from training.sprite.networks.checkpoints import load, log, resume_optimizers, save, stoppable
from training.sprite.networks.devices import device, mixed_precision
from training.sprite.networks.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder

CHECKPOINT = "text.pt"
T5_WIDTH = 192
CLIP_WIDTH = 128


@dataclass(frozen=True)
class Schedule:
    steps: int = 1400
    anneal: int = 600
    warm_up: int = 60
    batch: int = 192
    peak: float = 2e-3
    silence_share: float = 0.02
    checked: int = 1024  # held-out captions, at the end
    seed: int = 2


class TextEncoders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t5 = T5EncoderModel(_t5_config())
        # Begun near zero, these rise too slowly for a head ever to tell the word before from the word after.
        nn.init.normal_(self.t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=2.0)
        self.clip = CLIPTextModel(_clip_config())

    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """What FluxPipeline passes to the transformer: T5's hidden states and CLIP's pooled vector."""
        where = self.clip.device
        pooled = self.clip(_without_padding(clip_ids(texts)).to(where)).pooler_output
        return self.t5(t5_ids(texts).to(where))[0], pooled


def _without_padding(ids: Tensor) -> Tensor:
    """CLIP looks only back, so that what follows the end of the text changes nothing: it need not be computed."""
    ends = (ids == clip_tokenizer().eos_token_id).int().argmax(1)
    return ids[:, : int(ends.max()) + 1]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.from_t5 = nn.ModuleList(nn.Linear(T5_WIDTH, count) for count in LABEL_COUNTS)
        self.from_clip = nn.ModuleList(nn.Linear(CLIP_WIDTH, count) for count in LABEL_COUNTS)

    def forward(self, hidden: Tensor, pooled: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        mean = hidden.mean(1)
        return [head(mean) for head in self.from_t5], [head(pooled) for head in self.from_clip]


def load_text_encoders() -> TextEncoders:
    encoders = TextEncoders().to(device())
    encoders.load_state_dict(load(work_folder() / CHECKPOINT)["encoders"])
    return encoders.eval().requires_grad_(False)


def train(schedule: Schedule) -> None:
    torch.manual_seed(schedule.seed)
    encoders, heads = TextEncoders().to(device()), Heads().to(device())
    both = nn.ModuleList([encoders, heads])
    chosen = optimizers(both, schedule.peak, weight_decay=0.01)
    step, started = _resume(encoders, heads, chosen), time.time()
    first = step
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            set_learning_rate(chosen, learning_rate(schedule, step))
            loss = _train_step(both, chosen, _batch(schedule, step))
            step += 1
            if step % 50 == 0:
                speed = (step - first) * schedule.batch / (time.time() - started)
                log("text", step=step, loss=round(loss, 4), captions_per_s=round(speed, 1))
            if step % 200 == 0 or step == schedule.steps or stop.is_set():
                _save(encoders, heads, chosen, step)
    log("text", step=step, **accuracy(encoders, heads, schedule.checked))


@torch.no_grad()
def accuracy(encoders: TextEncoders, heads: Heads, count: int) -> dict[str, float]:
    """The share of unseen captions of which each label, and every label, is read rightly."""
    random = Random("held-out captions")
    said = [caption(random_scene(random), random) for _ in range(count)]
    expected = torch.tensor([one.labels for one in said], device=device())
    by_t5, by_clip = heads(*encoders([one.text for one in said]))
    figures = {}
    for name, answers in (("t5", by_t5), ("clip", by_clip)):
        right = torch.stack([answer.argmax(-1) for answer in answers], 1) == expected
        figures[name] = round(right.all(1).float().mean().item(), 4)
        figures[f"{name}_by_label"] = str([round(share, 3) for share in right.float().mean(0).tolist()])
    return figures


def _train_step(both: nn.ModuleList, chosen: list[torch.optim.Optimizer], batch: list[Said]) -> float:
    encoders, heads = both
    expected = torch.tensor([said.labels for said in batch], device=device())
    with mixed_precision():
        hidden, pooled = encoders([said.text for said in batch])
    answers = [*heads(hidden.float(), pooled.float())]
    loss = sum((_loss(answer, expected) for answer in answers), torch.zeros((), device=device())) + 1e-3 * _size(
        hidden, pooled
    )
    descend(loss, both, chosen)
    return loss.item()


def _loss(answers: list[Tensor], expected: Tensor) -> Tensor:
    return torch.stack([cross_entropy(answer, expected[:, index]) for index, answer in enumerate(answers)]).sum()


def _size(hidden: Tensor, pooled: Tensor) -> Tensor:
    """Keeps both outputs near unit size, as the transformer's input layers like them."""
    return (hidden.float().square().mean() - 1).square() + (pooled.float().square().mean() - 1).square()


def _batch(schedule: Schedule, step: int) -> list[Said]:
    random = Random(f"text {schedule.seed} {step}")
    return [_said(random, schedule.silence_share) for _ in range(schedule.batch)]


def _said(random: Random, silence_share: float) -> Said:
    return SILENCE if random.random() < silence_share else caption(random_scene(random), random)


def _resume(encoders: TextEncoders, heads: Heads, chosen: list[torch.optim.Optimizer]) -> int:
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0
    state = load(path)
    encoders.load_state_dict(state["encoders"])
    if "heads" in state:
        heads.load_state_dict(state["heads"])
    resume_optimizers(chosen, state)
    return int(state["step"])


def _save(encoders: TextEncoders, heads: Heads, chosen: list[torch.optim.Optimizer], step: int) -> None:
    state = {"encoders": encoders.state_dict(), "heads": heads.state_dict(), "step": step}
    save(work_folder() / CHECKPOINT, state | {"optimizers": [optimizer.state_dict() for optimizer in chosen]})


def _t5_config() -> T5Config:
    return T5Config(
        vocab_size=len(t5_tokenizer()), d_model=T5_WIDTH, d_kv=32, num_heads=6, d_ff=384, num_layers=3,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, relative_attention_num_buckets=32,
        relative_attention_max_distance=32, pad_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip


def _clip_config() -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=4 * CLIP_WIDTH, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=TEXT_LENGTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=CLIP_WIDTH,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal))
