"""A plan as people read it before it is tried: what lies where, what each stage takes, and what is slower for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safelight.model.families.layout import TILE_SIZE
from safelight.model.memory.plan import DeviceFacts, Placed, Plan, Stage, as_options, in_gigabytes, is_mapped


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """Sizes in bytes."""

    device: str
    free_bytes: int
    """What may be used."""
    components: Sequence[Placed]
    peak_bytes: Mapping[Stage, int]
    """Of each stage, for the largest picture that the model makes."""
    decodes_beside: bool
    """Whether a step has a picture that is decoded beside it, which its peak counts."""
    host_bytes: int
    """Of the machine's memory, beside what a GPU holds."""
    largest_picture: str
    largest_batch: int
    """Rows of that picture which fit together; a guided one takes two."""
    slower: Sequence[str]
    """What takes longer than with memory enough, and why."""
    options: str
    """What to type for it."""


def report_plan(plan: Plan, device: DeviceFacts, *, max_pixels: int) -> PlanReport:
    side = int(max_pixels**0.5)
    return PlanReport(
        device=device.type,
        free_bytes=plan.free_bytes,
        components=plan.placed,
        peak_bytes=plan.peaks,
        decodes_beside=plan.choice.decodes_beside,
        host_bytes=plan.host_bytes,
        largest_picture=f"{side}x{side}",
        largest_batch=int(plan.num_rows),
        slower=list(what_is_slower(plan, device)),
        options=as_options(plan.choice),
    )


def what_is_slower(plan: Plan, device: DeviceFacts) -> Iterator[str]:
    """One sentence each."""
    choice, placed = plan.choice, {each.name: each for each in plan.placed}
    if device.type == "cpu" and any(is_mapped(each.num_bytes) and "file" in each.place for each in plan.placed):
        yield "the first picture: what stays in its file is read from the disk when it is first multiplied"
    if choice.quantization != "none" and placed["transformer"].precision == choice.quantization:
        yield f"each step: the transformer's weights are brought back from {choice.quantization} as they are multiplied"
    if choice.offload == "layers":
        size = in_gigabytes(placed["transformer"].num_bytes)
        yield f"each step: {size} of the transformer come to the GPU from the machine's memory"
    if choice.offload == "model":
        yield "each stage: a component waits for the one before it to leave the GPU"
    if choice.is_streamed("text_encoder"):
        yield "a new prompt: the text encoders come to the GPU from the machine's memory, block by block"
    elif (kind := choice.text_encoder_2_quantization) != "none" and placed["text_encoder_2"].precision == kind:
        yield f"a new prompt: T5's weights are brought back from {kind}"
    if device.type == "cuda" and not choice.decodes_beside:
        yield "the steps of other pictures: they wait while one is decoded"
    if choice.vae_tiling:
        yield f"the end of pictures larger than {TILE_SIZE} pixels: they are decoded in tiles that overlap"
