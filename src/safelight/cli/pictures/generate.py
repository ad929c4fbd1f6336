"""`safelight generate`: a picture from a prompt; no server needed. It starts a replica, uses it once, and stops it.

With `--from`, the pictures of a whole file of prompts: see `generate_file`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from safelight.cli import engine_flags, model_flags
from safelight.cli.completion import complete_models
from safelight.cli.pictures.output_files import write_whole
from safelight.cli.pictures.patience import Timeout, deadline
from safelight.errors import InvalidRequest
from safelight.picture.generation import ImageFormat, OptionalParameters

if TYPE_CHECKING:
    from safelight.settings import Settings

DEFAULT_OUTPUT = Path("out.png")
DEFAULT_QUALITY = 95

_FORMATS_BY_SUFFIX: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}

Prompt = Annotated[str | None, typer.Argument(help="What the picture should show.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write; its ending names the format. Several get -0, -1, ...")
]
FromFile = Annotated[
    str | None,
    typer.Option("--from", help="File of prompts, one a line: JSON objects, or plain text. - is standard input."),
]
Out = Annotated[Path | None, typer.Option(help="With --from: the folder for the pictures and their manifest.jsonl.")]
Server = Annotated[
    str | None, typer.Option(help="With --from: URL of a server that makes them. Its key is SAFELIGHT_API_KEY.")
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="With --server: file that holds its key.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=1024, help="With --from: lines that are worked on at once.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="With --from: make changed lines anew, in place of what is in the folder."),
]
Model = Annotated[
    str | None,
    typer.Option(help="sprite, a folder in the diffusers layout, a hub id, or a file.", autocompletion=complete_models),
]
NumImages = Annotated[int, typer.Option("--n", help="Number of images; image i uses seed + i.")]
Side = Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoising steps; by default the model's own.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same picture. Drawn and shown if not given, or -1.")]
Scheduler = Annotated[str | None, typer.Option(help="euler, heun, lcm, unipc, dpmpp, or a diffusers class.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Strength of guidance, where it has an effect.")]
TrueCfgScale = Annotated[
    float | None, typer.Option("--true-cfg-scale", help="Strength of classifier-free guidance; 1 is off.")
]
NegativePrompt = Annotated[str | None, typer.Option(help="What the picture should not show.")]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", help="LoRA to paint with, as NAME=PATH_OR_HUB_ID[:SCALE]; may be given several times."),
]
Format = Annotated[str | None, typer.Option(help="png, jpeg or webp; by default the ending of --output.")]
Quality = Annotated[int, typer.Option(min=1, max=100, help="1 to 100, for jpeg and webp.")]
Examples = Annotated[bool, typer.Option("--examples", help="List prompts the model draws well, and exit.")]


def generate(
    *,
    prompt: Prompt = None,
    output: Output = DEFAULT_OUTPUT,
    from_file: FromFile = None,
    out: Out = None,
    server: Server = None,
    api_key_file: ApiKeyFile = None,
    concurrency: Concurrency = None,
    overwrite: Overwrite = False,
    model: Model = None,
    components: model_flags.Components = None,
    vae: model_flags.Vae = None,
    text_encoder: model_flags.TextEncoder = None,
    text_encoder_2: model_flags.TextEncoder2 = None,
    n: NumImages = 1,
    width: Side = None,
    height: Side = None,
    num_inference_steps: Steps = None,
    seed: Seed = None,
    scheduler: Scheduler = None,
    guidance_scale: GuidanceScale = None,
    true_cfg_scale: TrueCfgScale = None,
    negative_prompt: NegativePrompt = None,
    loras: Loras = None,
    format: Format = None,
    quality: Quality = DEFAULT_QUALITY,
    private_prompts: model_flags.PrivatePrompts = None,
    device: engine_flags.Device = None,
    dtype: engine_flags.Dtype = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    compile: engine_flags.Compile = None,
    memory: engine_flags.Memory = None,
    timeout: Timeout = None,
    examples: Examples = False,
) -> None:
    """Make a picture of PROMPT and write it to a file."""
    given = locals()
    settings = _settings(given)
    parameters = {name: given[name] for name in OptionalParameters.__annotations__}
    _refuse_what_a_server_decides(server, loras, private_prompts)
    if from_file is not None:
        if prompt is not None or output != DEFAULT_OUTPUT or out is None:
            raise InvalidRequest("--from takes its prompts from a file; give --out FOLDER, no PROMPT, and no --output")
        from safelight.cli.pictures.generate_file import generate_file

        named = parameters | {"model": model if server else None, "n": n}
        defaults = _fields_of_a_line(named, loras, format, quality)
        how = {name: given[name] for name in ("server", "concurrency", "overwrite", "timeout")}
        raise typer.Exit(generate_file(settings, from_file, out, defaults=defaults, **how))
    if out is not None or server is not None or concurrency is not None or overwrite:
        raise InvalidRequest("--out, --server, --concurrency and --overwrite go with --from FILE")
    parameters |= {"image_format": _image_format(output, format), "image_quality": quality}
    if examples:
        _print_examples(settings)
        return
    _generate(settings, prompt, output, n, paints_with_loras=bool(loras), timeout_s=deadline(timeout), **parameters)


def _settings(given: Mapping[str, Any]) -> Settings:
    """Those of a command's parameters that have the name of a setting set it."""
    from safelight.settings import Settings, load_settings

    return load_settings(**{name: value for name, value in given.items() if name in Settings.model_fields})


def _refuse_what_a_server_decides(server: str | None, loras: list[str] | None, private_prompts: bool | None) -> None:
    if server is None:
        return
    if loras:
        raise InvalidRequest(
            "--lora is for a model of your own; name the server's in the lines, as loras", field="lora"
        )
    if private_prompts is not None:
        raise InvalidRequest(
            "--private-prompts is for a model of your own; a server decides for itself", field="private_prompts"
        )


def _fields_of_a_line(
    named: Mapping[str, object], loras: list[str] | None, format: str | None, quality: int
) -> dict[str, object]:
    """What a line of a file, which is in OpenAI's terms, would have to say for it: those named so, and the others."""
    fields = {
        **named,
        "loras": [{"name": each.partition("=")[0].strip()} for each in loras] if loras else None,
        "output_format": None if format is None else _check_format(format),
        "output_compression": quality if quality != DEFAULT_QUALITY else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _print_examples(settings: Settings) -> None:
    from rich.console import Console

    from safelight.cli.given_files import locate_given

    _, spec = locate_given(settings)
    Console(emoji=False, highlight=False).print("\n".join(spec.examples), markup=False)


def _generate(
    settings: Settings, prompt: str | None, output: Path, n: int, *, paints_with_loras: bool, **parameters: Any
) -> None:
    import asyncio

    from rich.console import Console
    from rich.markup import escape

    from safelight.cli.given_files import locate_given
    from safelight.cli.pictures.make_pictures import make_pictures
    from safelight.model.loras import locate_loras
    from safelight.picture.parameters import build_generation_request
    from safelight.serving.backends.registry import find_factory
    from safelight.serving.start import create_dispatcher

    if prompt is None:
        raise InvalidRequest("give a prompt, such as: safelight generate 'an astronaut riding a horse'", field="prompt")
    folder, spec = locate_given(settings)
    spec = replace(spec, loras=locate_loras(settings.loras))
    request = build_generation_request(
        spec,
        id=uuid.uuid4().hex,
        prompt=prompt,
        num_images_per_prompt=n,
        loras=[(each.name, None) for each in spec.loras] if paints_with_loras else (),
        **parameters,
    )
    paths = _output_paths(output, n)
    console = Console(emoji=False, stderr=True, soft_wrap=True, highlight=False)
    dispatcher = create_dispatcher(find_factory(settings), settings, folder, spec)
    result = asyncio.run(make_pictures(dispatcher, request, console))
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
