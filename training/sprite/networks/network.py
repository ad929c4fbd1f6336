"""The network of the flow: a small FLUX transformer, whose middle can be asked what each patch shows.

Conventions are FluxPipeline's: packed latents, timestep = sigma, velocity = noise - picture.
"""

from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.things import things
from training.sprite.networks.checkpoints import load
from training.sprite.networks.devices import device
from training.sprite.networks.text import CLIP_WIDTH, T5_WIDTH, TextEncoders
from training.sprite.paths import work_folder

CHECKPOINT = "flow.pt"
FIRST_BLOCKS = 2  # single blocks, that find out what each patch shows
LAST_BLOCKS = 6  # single blocks, that remember how it looks
# On a CPU, at this size, the plain attention's backward pass is several times faster than the fused one.
ATTENTION = (
    [SDPBackend.MATH] if device().type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
)


class Taught(nn.Module):
    """The transformer, answering with its velocity and with what its middle makes of each patch.

    The middle's answer is (rows, tokens, things + 4 + backgrounds): scores of no thing and of each thing, then right,
    down and side, then scores of what is behind.
    """

    MIDDLE = FIRST_BLOCKS - 1  # of the single blocks

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.asked = _asking(transformer.inner_dim).to(device())
        self.prices = torch.zeros(2, len(things()), device=device())  # of settling; without and with guidance
        self._seen: list[Tensor] = []
        transformer.single_transformer_blocks[self.MIDDLE].register_forward_hook(
            lambda _block, _given, answer: self._seen.append(answer[1])
        )

    @property
    def has_learnt_to_ask(self) -> bool:
        return any(param.any() for param in self.asked.parameters())

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._seen.clear()
        answer: Tensor = self.transformer(**inputs)[0]
        return answer, self.asked(self._seen.pop())


def _asking(width: int) -> nn.Sequential:
    """Begins at zero: it learns to read before what it reads is bent to its answers."""
    reading = nn.Linear(width, len(things()) + 4 + len(BACKGROUNDS))
    nn.init.zeros_(reading.weight)
    nn.init.zeros_(reading.bias)
    return nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), reading)


def new_transformer(blocks: int = FIRST_BLOCKS + LAST_BLOCKS) -> FluxTransformer2DModel:
    """Of its single blocks, the last ones do nothing yet: `patches` teaches them."""
    transformer = FluxTransformer2DModel(
        in_channels=128, num_layers=3, num_single_layers=blocks, attention_head_dim=64,
        num_attention_heads=4, joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )  # fmt: skip
    for name, param in transformer.named_parameters():
        if (".norm" in name and ".linear" in name) or name.startswith(("proj_out", "norm_out.linear")):
            nn.init.zeros_(param)
    for block in transformer.single_transformer_blocks[FIRST_BLOCKS:]:
        nn.init.zeros_(block.proj_out.weight)
        nn.init.zeros_(block.proj_out.bias)
        block.norm.linear.bias.data[-transformer.inner_dim :] = 1  # the gate is open, or nothing could be learnt
    # The pooled text begins as loud as the time step, or it would go unheard for a long while.
    transformer.time_text_embed.text_embedder.linear_2.weight.data.mul_(4)
    return transformer.to(device())


def compile_blocks(transformer: FluxTransformer2DModel) -> None:
    """One kernel for all sizes of a block, where there would be many small ones; others where no gradient is wanted."""
    torch.compiler.config.recompile_limit = 64  # beyond it, blocks would quietly run as they were
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(dynamic=True)


def load_transformer() -> FluxTransformer2DModel:
    transformer = new_transformer()
    load_grown(transformer, load(work_folder() / CHECKPOINT)["average"])
    return transformer.eval().requires_grad_(False)


def load_grown(transformer: FluxTransformer2DModel, weights: dict[str, Tensor]) -> None:
    """Weights of a transformer that had fewer single blocks, too: those that it had not do nothing yet."""
    transformer.load_state_dict(transformer.state_dict() | weights)


def velocity(
    transformer: nn.Module, noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], grid: tuple[int, int]
) -> Tensor:
    answer: Tensor = transformer(**inputs(noisy, sigma, text, image_ids(grid)))[0]
    return answer


def inputs(noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], ids: Tensor) -> dict[str, Any]:
    hidden, pooled = text
    return {
        "hidden_states": noisy, "timestep": sigma.to(noisy.dtype), "encoder_hidden_states": hidden,
        "pooled_projections": pooled, "img_ids": ids,
        "txt_ids": torch.zeros(hidden.shape[1], 3, device=noisy.device), "return_dict": False,
    }  # fmt: skip


def image_ids(grid: tuple[int, int]) -> Tensor:
    """Zero, row and column of every token, as FluxPipeline numbers them."""
    height, width = grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros(height, width), rows, columns], -1).view(-1, 3).to(device())


def encoded_text(encoders: TextEncoders, texts: list[str], length: int | None = None) -> tuple[Tensor, Tensor]:
    """T5's states of the first `length` tokens, or of all, and CLIP's vector."""
    with torch.no_grad():
        hidden, pooled = encoders(texts)
    return hidden[:, :length].float(), pooled.float()


def told_apart(seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the middle makes of each patch: scores of no thing and of each thing, which part, scores of backgrounds."""
    thing, part, background = seen.split((len(things()) + 1, 3, len(BACKGROUNDS)), -1)
    return thing, part, background
