"""`safelight generate`: a picture from a prompt, in this process; no server needed."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from safelight import images
from safelight.cli.serve import locate
from safelight.control.catalog import find_model
from safelight.errors import InvalidRequest
from safelight.generation import Generation, GenerationRequest, ImageFormat
from safelight.model_spec import ModelSpec
from safelight.parameters import build_generation_request
from safelight.settings import Settings, load_settings

if TYPE_CHECKING:
    from safelight.engine.engine import Engine

_FORMATS_BY_SUFFIX: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def generate(
    *,
    prompt: Annotated[str | None, typer.Argument(help="What the picture should show.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its ending names the format. Several get -0, -1, ...")
    ] = Path("out.png"),
    model: Annotated[str | None, typer.Option(help="sprite, a folder in the diffusers layout, or a hub id.")] = None,
    n: Annotated[int, typer.Option("--n", help="Number of images; image i uses seed + i.")] = 1,
    width: Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; by default the model's own.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture. Drawn and shown if not given.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="euler, heun, lcm, unipc, dpmpp, or a diffusers class.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Strength of guidance, where it has an effect.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the picture should not show.")] = None,
    format: Annotated[str | None, typer.Option(help="png, jpeg or webp; by default the ending of --output.")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="1 to 100, for jpeg and webp.")] = 95,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16, float16 or float32.")] = None,
    examples: Annotated[bool, typer.Option("--examples", help="List prompts the model draws well, and exit.")] = False,
) -> None:
    """Make a picture of PROMPT and write it to a file."""
    settings = load_settings(model=model, device=device, dtype=dtype)
    image_format = _image_format(output, format)
    folder, spec = locate(find_model(settings.model))
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if examples:
        Console(highlight=False).print("\n".join(spec.examples))
        return
    if prompt is None:
        raise InvalidRequest("give a prompt, such as: safelight generate 'an astronaut riding a horse'", field="prompt")
    request = build_generation_request(
        spec,
        id=uuid.uuid4().hex,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        scheduler=scheduler,
        guidance_scale=guidance_scale,
        seed=seed,
        num_images_per_prompt=n,
        image_format=image_format,
        image_quality=quality,
    )
    paths = _output_paths(output, n)
    with console.status(f"Loading {spec.name} ..."):
        engine = _load_engine(folder, spec, settings)
    for warning in request.warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    _make_images(engine, request, paths, console, max_batch_size=settings.max_batch_size)


def _image_format(output: Path, name: str | None) -> ImageFormat:
    if name is not None:
        if name not in get_args(ImageFormat):
            raise InvalidRequest(f"--format must be png, jpeg or webp, not {name!r}", field="format")
        return cast(ImageFormat, name)
    try:
        return _FORMATS_BY_SUFFIX[output.suffix.lower()]
    except KeyError:
        raise InvalidRequest(
            f"{output} does not end in .png, .jpg, .jpeg or .webp; give such an --output, or --format", field="output"
        ) from None


def _output_paths(output: Path, count: int) -> list[Path]:
    if not output.parent.is_dir():
        raise InvalidRequest(f"the folder {output.parent} does not exist; create it first", field="output")
    if output.is_dir():
        raise InvalidRequest(f"{output} is a folder; give a file name", field="output")
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{index}") for index in range(count)]


def _load_engine(folder: Path, spec: ModelSpec, settings: Settings) -> Engine:
    from safelight.engine.engine import load_engine  # noqa: PLC0415  torch takes seconds to import; --help need not wait

    return load_engine(
        folder, spec=spec, device=settings.device, dtype=settings.dtype, num_threads=settings.num_threads
    )


def _make_images(
    engine: Engine, request: GenerationRequest, paths: list[Path], console: Console, *, max_batch_size: int
) -> None:
    rows = 2 if request.is_guided else 1
    batch_size = max(1, max_batch_size // rows)
    for first in range(0, len(paths), batch_size):
        batch = [
            Generation(request=request, image_index=index, arrived_at=time.monotonic())
            for index in range(first, min(first + batch_size, len(paths)))
        ]
        _denoise(engine, batch, console)
        for generation in batch:
            _save(engine, generation, paths[generation.image_index], console)


def _denoise(engine: Engine, batch: list[Generation], console: Console) -> None:
    for generation in batch:
        engine.start(generation)
    for warning in dict.fromkeys(warning for generation in batch for warning in generation.warnings):
        console.print(f"[yellow]warning:[/] {warning}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for _ in progress.track(range(batch[0].num_steps), description="Developing"):
            engine.step(batch)
            for generation in batch:
                if generation.error is not None:
                    raise generation.error


def _save(engine: Engine, generation: Generation, path: Path, console: Console) -> None:
    request = generation.request
    content = images.encode(
        engine.decode(generation),
        image_format=request.image_format,
        image_quality=request.image_quality,
        text=images.provenance(request, seed=generation.seed, model=engine.spec.name),
    )
    engine.release(generation)
    _write(path, content)
    facts = f"{request.width}x{request.height}, {request.num_inference_steps} steps, seed {generation.seed}"
    console.print(f"[bold]{path}[/]  {facts}, {time.monotonic() - generation.arrived_at:.2f} s")


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="output") from None
