"""A request inside a replica: its generations, the images that are done, and in the end its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from safelight.picture.generation import GeneratedImage, Generation, GenerationRequest, GenerationResult, Timings


@dataclass(slots=True, eq=False, kw_only=True)
class InFlight:
    """One request. `ticket` is what the gateway calls it."""

    ticket: int
    request: GenerationRequest
    arrived_at: float
    generations: tuple[Generation, ...] = ()
    images: dict[int, GeneratedImage] = field(default_factory=dict)
    decode_s: float = 0.0
    image_encode_s: float = 0.0

    def __post_init__(self) -> None:
        self.generations = tuple(
            Generation(request=self.request, image_index=index, arrived_at=self.arrived_at)
            for index in range(self.request.num_images_per_prompt)
        )

    @property
    def is_complete(self) -> bool:
        return len(self.images) == len(self.generations)

    @property
    def num_bytes(self) -> int:
        return sum(len(image.content) for image in self.images.values())

    @property
    def num_remaining_steps(self) -> int:
        return sum(_remaining_steps(generation) for generation in self.generations)

    def is_expired(self, now: float) -> bool:
        return now - self.arrived_at > self.request.timeout_s

    def warnings_of(self, *generations: Generation) -> tuple[str, ...]:
        """What the client should know about these, each thing once."""
        own = [warning for generation in generations for warning in generation.warnings]
        return tuple(dict.fromkeys((*self.request.warnings, *own)))

    def result(self, *, finished_at: float) -> GenerationResult:
        first = self.generations[0]
        return GenerationResult(
            images=tuple(self.images[generation.image_index] for generation in self.generations),
            warnings=self.warnings_of(*self.generations),
            timings=Timings(
                queue_s=first.started_at - self.arrived_at,
                encode_s=sum(generation.encode_s for generation in self.generations),
                denoise_s=sum(generation.denoise_s for generation in self.generations),
                decode_s=self.decode_s,
                image_encode_s=self.image_encode_s,
                total_s=finished_at - self.arrived_at,
            ),
            num_text_tokens=first.num_text_tokens,
        )


def _remaining_steps(generation: Generation) -> int:
    """Transformer calls that it still needs; before it is started, as far as its request tells."""
    if generation.num_steps == 0:
        return generation.request.num_inference_steps
    return max(0, generation.num_steps - generation.step_index)
