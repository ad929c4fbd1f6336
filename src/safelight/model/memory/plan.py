"""What a model needs of a device, in each precision and placement, and which of them fits: told before it is loaded.

Sums of bytes, without torch. A plan is the first that fits of a ladder that begins with the fastest and most exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from safelight.errors import ConfigurationError
from safelight.model.families.layout import WorkSizes
from safelight.model.memory.stored_parts import StoredPart
from safelight.settings import EngineOptions, Offload, Quantization

BYTES_OF: Mapping[Quantization, float] = {"int8": 1.002, "fp8": 1.002, "nf4": 0.5313}
"""Of one number with its share of the scales."""
LARGE_BYTES = 1024**3
STREAMED_SHARE = 1 / 16
"""Of a network that is brought to the device block by block: what is there of it at once."""
MAPPED = "the file, mapped"
ENCODERS = ("text_encoder", "text_encoder_2")
Stage = Literal["encode", "denoise", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a plan must know of a device."""

    type: str
    """`cpu`, `cuda`, `mps`."""
    free_bytes: int
    """What may be used: of the device, and not more than was allowed."""
    number_bytes: int
    """Of the dtype of computation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a plan decides."""

    quantization: Quantization
    text_encoder_2_quantization: Quantization
    offload: Offload
    vae_tiling: bool
    decodes_beside: bool = False
    """Whether pictures are decoded while others take their steps, on a GPU; no option asks for it."""

    def quantization_of(self, component: str) -> Quantization:
        chosen: dict[str, Quantization] = {
            "transformer": self.quantization,
            "text_encoder_2": self.text_encoder_2_quantization,
        }
        return chosen.get(component, "none")

    def is_streamed(self, component: str) -> bool:
        """Whether it waits in the machine's memory, and comes to the device block by block."""
        return (self.offload == "layers" and component == "transformer") or (
            self.offload in ("layers", "encoders") and component in ENCODERS
        )


AS_STORED = Choice(quantization="none", text_encoder_2_quantization="none", offload="none", vae_tiling=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A component in a plan."""

    name: str
    precision: str
    """`int8`, or what its file says, or `F32` or `16 bits` where that is what is computed in."""
    place: str
    num_bytes: int

    @property
    def waits_in_memory(self) -> bool:
        """Whether it lies in the machine's memory, and comes to a GPU."""
        return self.place.startswith("memory;")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What lies where, and how much of the device is taken at most."""

    choice: Choice
    placed: Sequence[Placed]
    peaks: Mapping[Stage, int]
    """Bytes on the device, for the largest picture of the model."""
    free_bytes: int
    row_bytes: int
    """Of those of `denoise`, what one row of the batch takes."""

    @property
    def peak_bytes(self) -> int:
        return max(self.peaks.values())

    @property
    def host_bytes(self) -> int:
        """Of the machine's memory, for what waits there until a GPU needs it."""
        return sum(each.num_bytes for each in self.placed if each.waits_in_memory)

    @property
    def num_rows(self) -> float:
        """How many rows of the largest picture fit beside the weights, with parts of one; one is always tried."""
        return max(1.0, 1 + (self.free_bytes - self.peaks["denoise"]) / self.row_bytes)


def choose_plan(parts: Mapping[str, StoredPart], work: WorkSizes, device: DeviceFacts, options: EngineOptions) -> Plan:
    """The first that fits of those that the options allow. Raises ConfigurationError, naming what would fit."""
    if device.type == "mps":
        _check_no_fp8(parts, options)
    plans = [_plan(parts, work, device, choice) for choice in _choices(device, options)]
    fitting = next((plan for plan in plans if plan.peak_bytes <= device.free_bytes), None)
    if fitting is None:
        raise ConfigurationError(_why_none(parts, work, device, plans))
    if not _may_decode_beside(device, fitting.choice):
        return fitting
    beside = _plan(parts, work, device, replace(fitting.choice, decodes_beside=True))
    return beside if beside.peak_bytes <= device.free_bytes else fitting


def _check_no_fp8(parts: Mapping[str, StoredPart], options: EngineOptions) -> None:
    """Of all numbers that weights are kept as, Apple's GPUs lack these."""
    held = next((part for part in parts.values() if "fp8" in (part.quantization or "")), None)
    if held is not None:
        raise ConfigurationError(
            f"{held.files[0]} is in fp8, which Apple's GPUs have not; use another file, or device cpu"
        )
    if "fp8" in (options.quantization, options.text_encoder_2_quantization):
        raise ConfigurationError("quantization fp8 needs CUDA or a CPU: Apple's GPUs have no fp8; use int8 or nf4")


def _may_decode_beside(device: DeviceFacts, choice: Choice) -> bool:
    """Not where the autoencoder comes and goes, nor beside layers that share what they come in."""
    return device.type == "cuda" and choice.offload in ("none", "encoders")


def _choices(device: DeviceFacts, options: EngineOptions) -> Iterator[Choice]:
    """What the options leave open goes down the ladder. Raises ConfigurationError for what the device cannot do."""
    if device.type == "cpu" and options.offload not in ("auto", "none"):
        raise ConfigurationError(
            f"offload {options.offload} needs a GPU: on a CPU all weights are in its memory already; leave it out"
        )
    ladder = _CPU_LADDER if device.type == "cpu" else _GPU_LADDER
    seen = set[Choice]()
    for quantization, of_t5, offload in ladder:
        choice = Choice(
            quantization=quantization if options.quantization == "auto" else options.quantization,
            text_encoder_2_quantization=of_t5
            if options.text_encoder_2_quantization == "auto"
            else options.text_encoder_2_quantization,
            offload=offload if options.offload == "auto" else options.offload,
            vae_tiling=options.vae_tiling == "on",
        )
        for tiling in (False, True) if options.vae_tiling == "auto" else (choice.vae_tiling,):
            tiled = replace(choice, vae_tiling=tiling)
            if tiled not in seen:
                seen.add(tiled)
                yield tiled


_CPU_LADDER: Sequence[tuple[Quantization, Quantization, Offload]] = (
    ("none", "none", "none"),
    ("none", "int8", "none"),
    ("int8", "int8", "none"),
    ("nf4", "int8", "none"),
    ("nf4", "nf4", "none"),
)
_GPU_LADDER: Sequence[tuple[Quantization, Quantization, Offload]] = (
    ("none", "none", "none"),
    ("none", "none", "encoders"),
    ("int8", "int8", "none"),
    ("int8", "int8", "encoders"),
    ("nf4", "int8", "encoders"),
    ("int8", "int8", "layers"),
    ("nf4", "nf4", "layers"),
)
"""Of the transformer, of T5, and where they wait."""


def _plan(parts: Mapping[str, StoredPart], work: WorkSizes, device: DeviceFacts, choice: Choice) -> Plan:
    placed = [_placed(name, part, device, choice) for name, part in parts.items()]
    there = {stage: sum(_on_device(each, stage, choice) for each in placed) for stage in _WORKERS}
    decode = work.decode_tile if choice.vae_tiling else work.decode
    beside = decode if choice.decodes_beside else 0
    needed: dict[Stage, int] = {"encode": work.encode + beside, "denoise": work.denoise + beside, "decode": decode}
    return Plan(
        choice=choice,
        placed=placed,
        peaks={stage: there[stage] + needed[stage] * device.number_bytes for stage in _WORKERS},
        free_bytes=device.free_bytes,
        row_bytes=work.denoise * device.number_bytes,
    )


_WORKERS: Mapping[Stage, tuple[str, ...]] = {"encode": ENCODERS, "denoise": ("transformer",), "decode": ("vae",)}
"""Which components a stage runs."""


def _kept_bytes(part: StoredPart, quantization: Quantization, device: DeviceFacts) -> int:
    if part.quantization is not None or (quantization == "none" and is_mapped(part.num_bytes)):
        return part.num_bytes
    others = part.num_parameters if quantization == "none" else part.num_parameters - part.num_repeated
    repeated = 0.0 if quantization == "none" else part.num_repeated * BYTES_OF[quantization]
    return int(repeated + others * device.number_bytes)


def is_mapped(num_bytes: int) -> bool:
    """Whether files of so many bytes stay where they are, in the dtype that they have, unless they are quantized."""
    return num_bytes >= LARGE_BYTES


def _on_device(part: Placed, stage: Stage, choice: Choice) -> int:
    """How much of a component is there in a stage. The system forgets what is mapped when others need its place."""
    works = part.name in _WORKERS[stage]
    if choice.is_streamed(part.name):
        return int(part.num_bytes * STREAMED_SHARE) if works else 0
    waits = choice.offload == "model" or part.place == MAPPED
    return part.num_bytes if works or not waits else 0


def _placed(name: str, part: StoredPart, device: DeviceFacts, choice: Choice) -> Placed:
    quantization = choice.quantization_of(name)
    num_bytes = _kept_bytes(part, quantization, device)
    is_kept = part.quantization is not None or quantization == "none"
    if device.type == "cpu":
        place = MAPPED if is_kept and is_mapped(part.num_bytes) else "memory"
    elif choice.is_streamed(name):
        place = f"memory; block by block to {device.type}"
    else:
        place = f"memory; on {device.type} while it works" if choice.offload == "model" else device.type
    return Placed(
        name=name,
        precision=_precision(part, num_bytes) if is_kept else quantization,
        place=place,
        num_bytes=num_bytes,
    )


def _precision(part: StoredPart, num_bytes: int) -> str:
    """What its file says, unless small weights are brought to the dtype of computation while they are loaded."""
    if num_bytes == part.num_bytes:
        return part.dtype
    return "F32" if num_bytes > part.num_bytes else "16 bits"


def next_smaller(plan: Plan, parts: Mapping[str, StoredPart], work: WorkSizes, device: DeviceFacts) -> Plan | None:
    """Of all plans for the device the largest that needs less: for when this one was too much after all."""
    others = [_plan(parts, work, device, choice) for choice in _choices(device, EngineOptions())]
    alone = _plan(parts, work, device, replace(plan.choice, decodes_beside=False))  # as all the others
    return max(
        (other for other in others if other.peak_bytes < alone.peak_bytes),
        key=lambda other: other.peak_bytes,
        default=None,
    )


def _why_none(parts: Mapping[str, StoredPart], work: WorkSizes, device: DeviceFacts, plans: Sequence[Plan]) -> str:
    least = min(plans, key=lambda plan: plan.peak_bytes)
    where = "of the machine's memory" if device.type == "cpu" else "on the GPU"
    told = (
        f"the model does not fit: {in_gigabytes(device.free_bytes)} {where} may be used, and with these options it "
        f"needs {in_gigabytes(least.peak_bytes)} at least"
    )
    open_options = EngineOptions()
    others = [_plan(parts, work, device, choice) for choice in _choices(device, open_options)]
    would = next((plan for plan in others if plan.peak_bytes <= device.free_bytes), None)
    if would is not None:
        return f"{told}; what fits is {as_options(would.choice)} ({in_gigabytes(would.peak_bytes)}), or no such options"
    smallest = min(others, key=lambda plan: plan.peak_bytes)
    return (
        f"{told}; the smallest plan is {as_options(smallest.choice)}, which needs {in_gigabytes(smallest.peak_bytes)}: "
        "free memory, raise --memory, or use smaller files"
    )


def name_quantization(parts: Mapping[str, StoredPart], choice: Choice) -> str | None:
    """Which components are quantized, in a file or by the plan, and how; None if none is."""
    kinds = {name: part.quantization or choice.quantization_of(name) for name, part in parts.items()}
    return ", ".join(f"{name} {kind}" for name, kind in kinds.items() if kind != "none") or None


def describe_plan(plan: Plan) -> str:
    """In one line."""
    placed = ", ".join(
        f"{each.name} {each.precision} in {each.place} {in_gigabytes(each.num_bytes)}" for each in plan.placed
    )
    host = f" and {in_gigabytes(plan.host_bytes)} of the machine's memory" if plan.host_bytes else ""
    tiles = "; large pictures are decoded in tiles" if plan.choice.vae_tiling else ""
    beside = "; pictures are decoded beside the steps of others" if plan.choice.decodes_beside else ""
    return (
        f"plan: {placed}; at most {in_gigabytes(plan.peak_bytes)} of {in_gigabytes(plan.free_bytes)}{host}{tiles}"
        f"{beside}; "
        f"{int(plan.num_rows)} rows of the largest picture fit into a batch"
    )


def as_options(choice: Choice) -> str:
    """What to type for it."""
    return (
        f"--quantization {choice.quantization} --text-encoder-2-quantization {choice.text_encoder_2_quantization} "
        f"--offload {choice.offload} --vae-tiling {'on' if choice.vae_tiling else 'off'}"
    )


def in_gigabytes(num_bytes: int) -> str:
    """1 GB is 10**9 bytes; what is less than a tenth of it is told in MB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.0f} MB"
