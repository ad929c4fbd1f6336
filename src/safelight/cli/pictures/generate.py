"""`safelight generate`: a picture from a prompt; no server needed. It starts a replica, uses it once, and stops it.

With `--from`, the pictures of a whole file of prompts: see `generate_file`.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from safelight.cli import engine_flags
from safelight.cli.completion import complete_models
from safelight.cli.pictures.output_files import write_whole
from safelight.cli.pictures.patience import Timeout, deadline
from safelight.errors import InvalidRequest
from safelight.picture.generation import ImageFormat

DEFAULT_OUTPUT = Path("out.png")
DEFAULT_QUALITY = 95

_FORMATS_BY_SUFFIX: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def generate(
    *,
    prompt: Annotated[str | None, typer.Argument(help="What the picture should show.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its ending names the format. Several get -0, -1, ...")
    ] = DEFAULT_OUTPUT,
    from_file: Annotated[
        str | None,
        typer.Option("--from", help="File of prompts, one a line: JSON objects, or plain text. - is standard input."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --from: the folder for the pictures and their manifest.jsonl.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="With --from: URL of a server that makes them. Its key is SAFELIGHT_API_KEY.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="With --server: file that holds its key.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1024, help="With --from: lines that are worked on at once.")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="With --from: make changed lines anew, in place of what is in the folder."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="sprite, a folder in the diffusers layout, a hub id, or a file.", autocompletion=complete_models
        ),
    ] = None,
    components: Annotated[
        str | None, typer.Option(help="For MODEL as a file: folder or hub id that has what the file lacks.")
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="File of the autoencoder, in place of the model's own.")] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="File of the CLIP text encoder, in place of the model's own.")
    ] = None,
    text_encoder_2: Annotated[
        Path | None, typer.Option(help="File of the T5 encoder, in place of the model's own.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Number of images; image i uses seed + i.")] = 1,
    width: Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; by default the model's own.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same picture. Drawn and shown if not given, or -1.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="euler, heun, lcm, unipc, dpmpp, or a diffusers class.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Strength of guidance, where it has an effect.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the picture should not show.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="LoRA to paint with, as NAME=PATH_OR_HUB_ID[:SCALE]; may be given several times."),
    ] = None,
    format: Annotated[str | None, typer.Option(help="png, jpeg or webp; by default the ending of --output.")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="1 to 100, for jpeg and webp.")] = DEFAULT_QUALITY,
    private_prompts: Annotated[
        bool | None,
        typer.Option(
            "--private-prompts/--prompts-in-pictures", help="Leave prompts out of what pictures say of themselves."
        ),
    ] = None,
    device: engine_flags.Device = None,
    dtype: engine_flags.Dtype = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    memory: engine_flags.Memory = None,
    timeout: Timeout = None,
    examples: Annotated[bool, typer.Option("--examples", help="List prompts the model draws well, and exit.")] = False,
) -> None:
    """Make a picture of PROMPT and write it to a file."""
    import asyncio

    from rich.console import Console
    from rich.markup import escape

    from safelight.cli.given_files import locate_given
    from safelight.cli.pictures.make_pictures import make_pictures
    from safelight.model.loras import locate_loras
    from safelight.picture.parameters import build_generation_request
    from safelight.serving.backends.registry import find_factory
    from safelight.serving.start import create_dispatcher
    from safelight.settings import load_settings

    settings = load_settings(
        model=model,
        components=components,
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        device=device,
        dtype=dtype,
        quantization=quantization,
        text_encoder_2_quantization=text_encoder_2_quantization,
        offload=offload,
        vae_tiling=vae_tiling,
        memory=memory,
        api_key_file=api_key_file,
        loras=tuple(lora) if lora else None,
        private_prompts=private_prompts,
    )
    if server is not None and lora:
        raise InvalidRequest(
            "--lora is for a model of your own; name the server's in the lines, as loras", field="lora"
        )
    if server is not None and private_prompts is not None:
        raise InvalidRequest(
            "--private-prompts is for a model of your own; a server decides for itself", field="private_prompts"
        )
    if from_file is not None:
        if prompt is not None or output != DEFAULT_OUTPUT or out is None:
            raise InvalidRequest("--from takes its prompts from a file; give --out FOLDER, no PROMPT, and no --output")
        defaults = {
            "model": model if server else None,
            "n": n,
            "width": width,
            "height": height,
            "num_inference_steps": steps,
            "seed": seed,
            "scheduler": scheduler,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
            "loras": [{"name": each.partition("=")[0].strip()} for each in lora] if lora else None,
            "output_format": None if format is None else _check_format(format),
            "output_compression": quality if quality != DEFAULT_QUALITY else None,
        }
        given = {name: value for name, value in defaults.items() if value is not None}
        from safelight.cli.pictures.generate_file import generate_file

        raise typer.Exit(
            generate_file(
                settings,
                from_file,
                out,
                server=server,
                concurrency=concurrency,
                overwrite=overwrite,
                timeout=timeout,
                defaults=given,
            )
        )
    if out is not None or server is not None or concurrency is not None or overwrite:
        raise InvalidRequest("--out, --server, --concurrency and --overwrite go with --from FILE")
    image_format = _image_format(output, format)
    folder, spec = locate_given(settings)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if examples:
        Console(highlight=False).print("\n".join(spec.examples))
        return
    if prompt is None:
        raise InvalidRequest("give a prompt, such as: safelight generate 'an astronaut riding a horse'", field="prompt")
    spec = replace(spec, loras=locate_loras(settings.loras))
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
        loras=[(each.name, None) for each in spec.loras] if lora else (),
        image_format=image_format,
        image_quality=quality,
        timeout_s=deadline(timeout),
    )
    paths = _output_paths(output, n)
    result = asyncio.run(
        make_pictures(create_dispatcher(find_factory(settings), settings, folder, spec), request, console)
    )
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    for image, path in zip(result.images, paths, strict=True):
        write_whole(path, image.content)
        facts = f"{request.width}x{request.height}, {request.num_inference_steps} steps, seed {image.seed}"
        console.print(f"[bold]{escape(str(path))}[/]  {facts}")


def _image_format(output: Path, name: str | None) -> ImageFormat:
    if name is not None:
        return _check_format(name)
    try:
        return _FORMATS_BY_SUFFIX[output.suffix.lower()]
    except KeyError:
        raise InvalidRequest(
            f"{output} does not end in .png, .jpg, .jpeg or .webp; give such an --output, or --format", field="output"
        ) from None


def _check_format(name: str) -> ImageFormat:
    if name not in get_args(ImageFormat):
        raise InvalidRequest(f"--format must be png, jpeg or webp, not {name!r}", field="format")
    return cast(ImageFormat, name)


def _output_paths(output: Path, count: int) -> list[Path]:
    if not output.parent.is_dir():
        raise InvalidRequest(f"the folder {output.parent} does not exist; create it first", field="output")
    if output.is_dir():
        raise InvalidRequest(f"{output} is a folder; give a file name", field="output")
    paths = [output] if count == 1 else [output.with_stem(f"{output.stem}-{index}") for index in range(count)]
    write_whole(paths[0], None)  # better found out now than after minutes of work
    return paths
