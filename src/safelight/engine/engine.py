"""The engine: loads a checkpoint and moves generations from noise to pixels, one denoising step at a time.

The caller owns the pace: `start` once, `step` with any batch of equal `batch_key` until denoised (a `preview` after any
of them), `decode`, `release`. One thread calls it; where it `decodes_beside_steps`, another may call `decode`. Tensors
stay here, keyed by their `Generation`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from safelight.engine.compiled_blocks import CompiledBlocks, check_compile
from safelight.engine.denoising.denoising import Denoising, Original, check_pixels, why_not_finite
from safelight.engine.denoising.finite_checks import check_later
from safelight.engine.denoising.flow import add_noise, combine_guidance, keep_unmasked, predict_clean
from safelight.engine.denoising.noise_schedulers import build_noise_scheduler
from safelight.engine.devices import Precision, choose_device, choose_dtype, read_device_facts
from safelight.engine.family import Family, Rows, load_family
from safelight.engine.kept_loras import KeptLoras
from safelight.engine.low_rank import Addition, adapted
from safelight.engine.lru_cache import LruCache
from safelight.engine.pace import estimate_picture_s
from safelight.engine.pixels.autoencoder import Pixels, decode_latents, draw_latents, encode_moments, to_pixels
from safelight.engine.pixels.decode_stream import decode_stream
from safelight.engine.pixels.decoder import Decoder
from safelight.engine.pixels.kept_pixels import put_back
from safelight.engine.pixels.previews import PreviewProjection, Projection, fit_projection
from safelight.engine.prompts import PromptCache, PromptEmbeds, PromptEncoder
from safelight.engine.threads import Threads
from safelight.errors import OutOfMemory
from safelight.model.checkpoint import check_checkpoint, read_model_spec
from safelight.model.families.layout import Layout
from safelight.model.memory.exhausted import OLD_AND_NEW, is_out_of_memory, what_needs_less
from safelight.model.memory.plan import as_options, choose_plan, describe_plan, name_quantization, next_smaller
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.spec import ModelSpec
from safelight.picture.generation import Generation, SourceImage
from safelight.picture.recipe import Backend
from safelight.settings import EngineOptions

SOURCE_CACHE_BYTES = 64 * 1024 * 1024
"""Of encoded images: about thirty of 1024x1024."""
SEED_PERIOD = 2**32
"""torch's CPU generator reads the low 32 bits of a seed."""


SourceKey = tuple[int, int, bytes]
"""Width, height, and the SHA-256 of the pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """What the engine has done since it was loaded."""

    transformer_calls: int
    prompt_cache_hits: int
    prompt_cache_misses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEngine:
    """A checkpoint that fits the device, and how; nothing large of it is read yet."""

    folder: Path
    layout: Layout
    spec: ModelSpec
    options: EngineOptions
    device: torch.device
    precision: Precision
    quantization: str | None
    """Which components are quantized, and how."""
    plan: str
    """In one line."""
    smaller: str
    """The options of the next smaller plan, for when this one was too much after all; empty if there is none."""
    num_rows: float
    """Of the largest picture, that fit into a batch."""

    def fitting_rows(self, width: int, height: int) -> int:
        """How many rows of that size there is memory for; at least one."""
        spec = self.spec
        tokens, largest = (
            pixels // spec.size_multiple**2 + spec.max_sequence_length for pixels in (width * height, spec.max_pixels)
        )
        return max(1, int(self.num_rows * largest / tokens))

    def load(self) -> Engine:
        """Raises ModelLoadError; where there is no memory, it says what needs less."""
        try:
            family = load_family(self.layout, self.folder, self.spec, device=self.device, precision=self.precision)
            return Engine(self.spec, family, self.options, quantization=self.quantization)
        except (OutOfMemory, MemoryError, RuntimeError, OSError) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
            what = error.message if isinstance(error, OutOfMemory) else f"there was no memory for {self.folder}"
            raise OutOfMemory(f"{what}; {what_needs_less(self.smaller)}. {OLD_AND_NEW}") from error


def load_engine(folder: Path, options: EngineOptions | None = None, *, spec: ModelSpec | None = None) -> Engine:
    """The engine for a checkpoint in the diffusers layout. Raises ModelLoadError or ConfigurationError."""
    return prepare_engine(folder, options or EngineOptions(), spec=spec).load()


def prepare_engine(folder: Path, options: EngineOptions, *, spec: ModelSpec | None = None) -> PreparedEngine:
    """How a checkpoint would be loaded. Raises ModelLoadError, or ConfigurationError for what cannot fit."""
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    device = choose_device(options.device)
    layout = check_checkpoint(folder)
    spec = spec or read_model_spec(folder)
    dtype = choose_dtype(options.dtype, device)
    facts = read_device_facts(device, dtype, options.memory)
    parts, work = describe_parts(folder), layout.work(folder, spec)
    plan = choose_plan(parts, work, facts, options)
    check_compile(options, device, plan.choice.offload)
    smaller = next_smaller(plan, parts, work, facts)
    return PreparedEngine(
        folder=folder,
        layout=layout,
        spec=spec,
        options=options,
        device=device,
        precision=Precision(computation=dtype, choice=plan.choice),
        quantization=name_quantization(parts, plan.choice),
        plan=describe_plan(plan),
        smaller=as_options(smaller.choice) if smaller else "",
        num_rows=plan.num_rows,
    )


class Engine:
    """Runs one loaded checkpoint."""

    def __init__(
        self, spec: ModelSpec, family: Family, options: EngineOptions, *, quantization: str | None = None
    ) -> None:
        """Raises ModelLoadError for a LoRA of the spec that does not fit."""
        self.spec = spec
        self._family = family
        self._quantization = quantization
        self._components = components = family.components
        self._prompt_encoder = PromptEncoder(
            family.encode_prompt, components.text_encoder, PromptCache(options.prompt_cache_bytes)
        )
        self._projection = PreviewProjection(self._fit_projection, beside_steps=components.device.type == "cpu")
        self._sources: LruCache[SourceKey, Tensor] = LruCache(SOURCE_CACHE_BYTES)
        self._loras = KeptLoras(spec.loras, family.read_lora, max_bytes=options.lora_cache_bytes)
        self._denoising: dict[Generation, Denoising] = {}
        self._transformer_calls = 0
        self.picture_s = estimate_picture_s(
            components.transformer, spec, device=components.device, dtype=components.precision.computation
        )
        """Seconds of the default picture's steps, where they may be many; else None."""
        self._blocks = CompiledBlocks(components.transformer) if options.compile == "on" else None
        self._threads = Threads()
        self._decoder = Decoder(components.autoencoder, self._threads)
        self._beside = decode_stream(components.device, components.precision.choice)
        self._shares_threads = components.device.type == "cpu" and self.picture_s is None and self._threads.num_all > 1
        """The steps of a large model keep all cores busy, and its memory is planned for one stage at a time."""
        self.decodes_beside_steps = self._shares_threads or components.precision.choice.decodes_beside

    @property
    def backend(self) -> Backend:
        return Backend(
            device=self._components.device.type,
            dtype=str(self._components.precision.computation).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            torch=str(torch.__version__),
            quantization=self._quantization,
        )

    @torch.inference_mode()
    def start(self, generation: Generation) -> None:
        """Encode its prompts and image, and draw its noise: afterwards it can join any batch of its `batch_key`."""
        started_at = time.perf_counter()
        request = generation.request
        loras = [(self._loras.find(weight.name), weight.scale) for weight in request.loras]
        prompts, warnings = self._prompt_encoder.encode_request(
            request, [(lora.text_encoder, scale) for lora, scale in loras]
        )
        if generation.seed >= SEED_PERIOD:
            warnings.append(f"seed {generation.seed} paints the same image as seed {generation.seed % SEED_PERIOD}")
        self._denoising[generation] = denoising = self._begin(generation, prompts)
        if request.num_previews and request.preview_decoder == "projection":
            self._projection.prepare()
        denoising.loras = tuple(loras)
        generation.warnings += warnings
        generation.num_steps = denoising.noise_scheduler.num_calls
        generation.num_text_tokens = prompts[0].num_tokens
        generation.batch_key = (request.width, request.height)
        generation.encode_s = time.perf_counter() - started_at

    @torch.inference_mode()
    def step(self, batch: Sequence[Generation]) -> None:
        """One transformer call for the whole batch; then each generation takes its own scheduler's step.

        A generation whose latents turned NaN or infinite gets its `error` in the step after, or when it is shown or
        decoded; the others go on.
        """
        assert len({generation.batch_key for generation in batch}) == 1, "a batch has one batch_key"
        velocities = self._predict_velocities(batch)
        for generation, velocity in zip(batch, velocities, strict=True):
            self._advance(generation, self._denoising[generation], velocity)
            generation.step_index += 1
        self._check_finite(batch)

    @torch.inference_mode()
    def preview(self, generation: Generation) -> Pixels:
        """The picture as its last step expects it to become: small, or in full size from the real decoder.

        Raises NonFiniteValues.
        """
        self._raise_if_not_finite(generation)
        clean_latents = self._denoising[generation].clean_latents
        assert clean_latents is not None, "a preview follows a step of a request that has previews"
        latents = self._family.unpack(clean_latents, *self._latent_size(generation))
        if generation.request.preview_decoder == "autoencoder":
            image = decode_latents(self._components.autoencoder, latents)
        else:
            image = self._projection.get()(latents)
        return self._with_what_is_kept(generation, to_pixels(image.nan_to_num()))

    @torch.inference_mode()
    def decode(self, generation: Generation) -> Pixels:
        """The picture of a denoised generation: uint8 (height, width, 3). Raises NonFiniteValues."""
        self._raise_if_not_finite(generation)
        latents = self._denoising[generation].latents
        with self._beside(latents):
            unpacked = self._family.unpack(latents, *self._latent_size(generation))
            image = self._decoder(unpacked, is_alone=len(self._denoising) == 1)
            check_pixels(generation, image)
            pixels = to_pixels(image)
        return self._with_what_is_kept(generation, pixels)

    def release(self, generation: Generation) -> None:
        """Forget its tensors; again or for a stranger it does nothing."""
        self._denoising.pop(generation, None)

    def counters(self) -> EngineCounters:
        return EngineCounters(
            transformer_calls=self._transformer_calls,
            prompt_cache_hits=self._prompt_encoder.cache.hits,
            prompt_cache_misses=self._prompt_encoder.cache.misses,
        )

    def _fit_projection(self) -> Projection:
        return fit_projection(
            self._components.autoencoder,
            scale_factor=self._family.scale_factor,
            device=self._components.device,
            dtype=self._components.precision.computation,
        )

    def _additions(self, generation: Generation) -> list[Addition]:
        """What its LoRAs add to the transformer."""
        return [(lora.transformer, scale) for lora, scale in self._denoising[generation].loras]

    def _begin(self, generation: Generation, prompts: tuple[PromptEmbeds, ...]) -> Denoising:
        """From noise, or from the request's image with as much noise as its strength says."""
        request = generation.request
        generator = torch.Generator("cpu").manual_seed(generation.seed)
        image = None if request.source is None else self._encode_source(generation, request.source, generator)
        noise = self._family.pack(self._draw_noise(generation, generator))
        noise_scheduler = build_noise_scheduler(
            request.scheduler,
            self._components.scheduler_config,
            num_inference_steps=request.num_inference_steps,
            image_seq_len=noise.shape[1],
            strength=1.0 if request.source is None else request.source.strength,
        )
        denoising = Denoising(
            latents=noise,
            prompts=prompts,
            noise_scheduler=noise_scheduler,
            generator=generator,
            timesteps=noise_scheduler.timesteps.float().to(noise),
            sigmas=noise_scheduler.sigmas.to(noise),
            guidance_scale=torch.tensor([request.guidance_scale], dtype=torch.float32).to(noise.device),
        )
        if image is not None and request.source is not None:
            denoising.latents = add_noise(image, noise, noise_scheduler.sigmas[0])
            if request.source.mask is not None:
                mask = self._pack_mask(generation, request.source.mask)
                denoising.original = Original(latents=image, noise=noise, mask=mask)
        return denoising

    def _advance(self, generation: Generation, denoising: Denoising, velocity: Tensor) -> None:
        """One step of its own noise scheduler; what its mask does not cover stays the original's."""
        call, sigmas, original = generation.step_index, denoising.sigmas, denoising.original
        if generation.request.num_previews:
            denoising.clean_latents = predict_clean(denoising.latents, velocity, sigmas[call])
        denoising.latents = denoising.noise_scheduler.step(velocity, call, denoising.latents, denoising.generator)
        if original is None:
            return
        kept = add_noise(original.latents, original.noise, sigmas[call + 1])
        denoising.latents = keep_unmasked(denoising.latents, kept, original.mask)
        if denoising.clean_latents is not None:
            denoising.clean_latents = keep_unmasked(denoising.clean_latents, original.latents, original.mask)

    def _encode_source(self, generation: Generation, source: SourceImage, generator: torch.Generator) -> Tensor:
        """Packed latents of the request's image; AutoencoderKL draws them with the generator, before the noise.

        The images of a request start from one picture: it is encoded for the first, and each draws its own latents.
        """
        autoencoder, request = self._components.autoencoder, generation.request
        key = (request.width, request.height, hashlib.sha256(source.pixels).digest())
        moments = self._sources.get(key)
        if moments is None:
            pixels = torch.frombuffer(bytearray(source.pixels), dtype=torch.uint8)
            image = pixels.view(1, request.height, request.width, 3).permute(0, 3, 1, 2).float() / 255 * 2 - 1
            moments = encode_moments(
                autoencoder, image.to(self._components.device, self._components.precision.computation)
            )
            self._sources.put(key, moments)
        latents = draw_latents(autoencoder, moments, generator)
        return self._family.pack(latents.to(self._components.precision.computation))

    def _pack_mask(self, generation: Generation, mask: bytes) -> Tensor:
        """1 where the latents are painted anew, 0 elsewhere; sampled as FluxInpaintPipeline samples it."""
        request, latent_size = generation.request, self._latent_size(generation)
        is_new = torch.frombuffer(bytearray(mask), dtype=torch.uint8).view(1, 1, request.height, request.width) >= 128
        small = functional.interpolate(is_new.float(), size=latent_size)
        packed = self._family.pack(small.repeat(1, self._family.latent_channels, 1, 1))
        return packed.to(self._components.device, self._components.precision.computation)

    def _with_what_is_kept(self, generation: Generation, pixels: Pixels) -> Pixels:
        """The seam is as wide as a pixel of the latents, which is how exactly the mask is followed in there."""
        source = generation.request.source
        if source is None or source.mask is None:
            return pixels
        return put_back(pixels, source, width=generation.request.width, seam=self._family.scale_factor)

    def _check_finite(self, batch: Sequence[Generation]) -> None:
        """Read what the step before made of each, and ask what this one makes."""
        states = [self._denoising[generation] for generation in batch]
        checks = check_later([state.latents for state in states], [generation.step_index for generation in batch])
        for generation, state, check in zip(batch, states, checks, strict=True):
            generation.error = generation.error or why_not_finite(generation, state.check)
            state.check = check

    def _raise_if_not_finite(self, generation: Generation) -> None:
        error = why_not_finite(generation, self._denoising[generation].check)
        if error is not None:
            raise error

    def _draw_noise(self, generation: Generation, generator: torch.Generator) -> Tensor:
        """Drawn on the CPU in fp32, so that a seed means the same noise on every device and in every dtype."""
        height, width = self._latent_size(generation)
        noise = torch.randn(1, self._family.latent_channels, height, width, generator=generator)
        return noise.to(device=self._components.device, dtype=self._components.precision.computation)

    def _latent_size(self, generation: Generation) -> tuple[int, int]:
        """Height and width of the latents."""
        request, scale_factor = generation.request, self._family.scale_factor
        return request.height // scale_factor, request.width // scale_factor

    def _predict_velocities(self, batch: Sequence[Generation]) -> list[Tensor]:
        """One velocity (1, tokens, channels) for each generation."""
        inputs = self._rows_of(batch)
        additions = [self._additions(generation) for generation in batch for _ in range(generation.num_rows)]
        blocks = self._blocks.in_use(is_allowed=not any(additions)) if self._blocks is not None else nullcontext()
        with adapted(self._components.transformer, additions), blocks:
            rows = self._predict(inputs, with_additions=any(additions))
        self._transformer_calls += 1
        velocities = []
        for generation, own_rows in zip(batch, torch.split(rows, [g.num_rows for g in batch]), strict=True):
            velocity = own_rows[:1]
            if generation.request.is_guided:
                velocity = combine_guidance(velocity, own_rows[1:], generation.request.true_cfg_scale)
            velocities.append(velocity)
        return velocities

    def _predict(self, inputs: Rows, *, with_additions: bool) -> Tensor:
        predict = partial(self._family.predict_velocity, inputs)
        if not self._shares_threads:
            return predict()
        key = (tuple(inputs.latents.shape), with_additions)
        return (self._threads.with_half if self._decoder.is_busy else self._threads.with_what_is_faster)(key, predict)

    def _rows_of(self, batch: Sequence[Generation]) -> Rows:
        rows = [(g, self._denoising[g], prompt) for g in batch for prompt in self._denoising[g].prompts]
        height, width = self._latent_size(batch[0])
        return Rows(
            latents=torch.cat([state.latents for _, state, _ in rows]),
            timesteps=torch.stack([state.timesteps[g.step_index] for g, state, _ in rows]),
            guidance_scale=torch.cat([state.guidance_scale for _, state, _ in rows]),
            prompts={name: torch.cat([prompt.tensors[name] for _, _, prompt in rows]) for name in rows[0][2].tensors},
            height=height,
            width=width,
        )
