"""Muon for weight matrices and kernels, AdamW for the rest, and the learning rate over a run.

Muon: https://kellerjordan.github.io/posts/muon/, with the update scaled to AdamW's size
(https://arxiv.org/abs/2502.16982), so that one learning rate serves both.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from training.sprite.networks.devices import matrix_dtype

# T5 does not divide its attention by the square root of the head's width: its queries are that much smaller, and at
# the usual rate they would outgrow the softmax in a few dozen steps.
UNSCALED_QUERY = "SelfAttention.q.weight"
# The first three steps of Polar Express (https://arxiv.org/abs/2505.16932). They leave singular values about 1.5.
POLAR_STEPS = (
    (8.287212, -23.595887, 17.300387),
    (4.107059, -2.947850, 0.544843),
    (3.948691, -2.908902, 0.551819),
)
POLAR_SIZE = 1.5


class Muon(torch.optim.Optimizer):
    """`strength` is the update's root mean square at a learning rate of 1; AdamW's is about 0.2."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, *, strength: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})
        self.strength = strength

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for params in _by_shape(group["params"]):
                self._update(params, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, params: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        directions = torch.stack([self._direction(param, momentum) for param in params])
        size = self.strength * max(directions.shape[-2:]) ** 0.5
        for param, update in zip(params, orthogonalised(directions), strict=True):
            param.mul_(1 - lr * weight_decay)
            param.add_(update.view(param.shape).to(param.dtype), alpha=-lr * size)

    def _direction(self, param: nn.Parameter, momentum: float) -> Tensor:
        assert param.grad is not None
        state = self.state[param]
        velocity = state.setdefault("velocity", torch.zeros_like(param))
        velocity.lerp_(param.grad, 1 - momentum)
        return torch.lerp(param.grad, velocity, momentum).flatten(1)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values pushed to about one."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(matrix_dtype())
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in POLAR_STEPS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float() / POLAR_SIZE


def optimizers(
    module: nn.Module, lr: float, *, weight_decay: float = 0.0, strength: float = 0.2
) -> list[torch.optim.Optimizer]:
    """Muon for what mixes features; AdamW for embeddings, vectors, and the modulations, where Muon costs most."""
    embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    matrices, queries, rest = [], [], []
    for name, param in module.named_parameters():
        if not param.requires_grad:
            continue
        is_matrix = param.ndim >= 2 and id(param) not in embeddings and "norm" not in name
        group = queries if name.endswith(UNSCALED_QUERY) else matrices if is_matrix else rest
        group.append(param)
    muons = [Muon(matrices, lr=lr, strength=strength, weight_decay=weight_decay)]
    if queries:
        muons.append(Muon(queries, lr=lr, strength=strength / 8, weight_decay=weight_decay))
    return [*muons, torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]


class Course(Protocol):
    """What the schedules of all stages say of the learning rate."""

    @property
    def steps(self) -> int: ...
    @property
    def anneal(self) -> int: ...
    @property
    def warm_up(self) -> int: ...
    @property
    def peak(self) -> float: ...


def learning_rate(course: Course, step: int, begun: int = 0) -> float:
    """Rises over `warm_up` steps from where it has begun, holds, and falls to zero over the last `anneal` steps."""
    rise, fall = (step - begun + 1) / course.warm_up, (course.steps - step) / course.anneal
    return course.peak * min(1.0, rise, max(0.0, fall))


def descend(loss: Tensor, model: nn.Module, chosen: list[torch.optim.Optimizer], longest: float = 1.0) -> None:
    """One step of the optimizers, along a gradient that is cut to the length `longest`."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), longest)
    for optimizer in chosen:
        optimizer.step()
        optimizer.zero_grad()


def set_learning_rate(chosen: list[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["lr"] = lr


def _by_shape(params: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for param in params:
        if param.grad is not None:
            groups[param.shape].append(param)
    return list(groups.values())
