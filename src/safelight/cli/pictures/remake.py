"""A picture made again from the recipe in its file, and whether it is the same one."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from safelight.cli.given_files import find_sets
from safelight.cli.output import printable
from safelight.cli.pictures.make_pictures import make_pictures
from safelight.cli.pictures.output_files import write_whole
from safelight.cli.pictures.patience import deadline
from safelight.cli.pictures.picture_files import no_recipe, read_file, read_picture
from safelight.errors import InvalidRequest, ModelNotFound
from safelight.model import hub
from safelight.model.catalog import find_model
from safelight.model.checkpoint import read_model_spec, revision_of
from safelight.model.locate import locate_folder, spec_in
from safelight.model.loras import locate_loras
from safelight.model.spec import LoraFile, ModelSpec
from safelight.picture.files import Picture, decode
from safelight.picture.generation import GenerationRequest, ImageFormat, SourceImage, optional_parameters
from safelight.picture.incoming.uploads import Upload, fit_upload
from safelight.picture.parameters import build_generation_request
from safelight.picture.recipe import PROMPTS, Recipe, digest
from safelight.serving.backends.registry import find_factory
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings, load_settings

DIFFERENT = 3
"""Exit status when the picture was made again and is another one."""
_CIRCUMSTANCES = ("safelight", "torch", "device", "dtype", "quantization", "num_threads")
"""Of a recipe: what may change the last bit of a pixel."""


def remake(
    image: Path,
    *,
    output: Path | None,
    model: str | None,
    prompts: dict[str, str | None],
    source: Path | None,
    mask: Path | None,
    loras: list[str],
    flags: dict[str, str | None],
    timeout: float | None,
) -> int:
    """Print whether the picture is the same. Returns the exit status; raises InvalidRequest if it cannot be made.

    `flags` are options of the engine; where the recipe says what one was, that holds unless it is given.
    """
    timeout_s = deadline(timeout)
    picture = read_picture(image, read_file(image))
    recipe = _complete(_recipe_of(image, picture), prompts)
    settings = load_settings(
        **flags
        | {"device": flags["device"] or ("cpu" if recipe.device == "cpu" else None)}
        | {"dtype": flags["dtype"] or recipe.dtype},
        num_threads=recipe.num_threads if recipe.device == "cpu" else None,
    )
    folder, spec = _find_model(recipe, model, settings)
    spec = replace(spec, loras=_find_loras(recipe, loras))
    start = _find_source(recipe, spec, settings, source, mask)
    if output is not None:
        write_whole(output, None)  # better found out now than after minutes of work
    request = _request(recipe, spec, picture.image_format, start, timeout_s)
    console = Console(emoji=False, stderr=True, soft_wrap=True, highlight=False)
    result = asyncio.run(
        make_pictures(create_dispatcher(find_factory(settings), settings, folder, spec), request, console)
    )
    content = result.images[0].content
    if output is not None:
        write_whole(output, content)
    again = decode(content)
    assert again.recipe is not None, "every picture carries one"
    return report(picture.pixels, again.pixels, _changes(recipe, again.recipe))


def _recipe_of(path: Path, picture: Picture) -> Recipe:
    recipe = picture.recipe
    if recipe is None:
        raise no_recipe(path)
    height, width = picture.pixels.shape[:2]
    if (width, height) != (recipe.width, recipe.height):
        raise InvalidRequest(
            f"{path} is {width}x{height}, but its recipe makes {recipe.width}x{recipe.height}: it was scaled since"
        )
    return recipe


def _complete(recipe: Recipe, given: dict[str, str | None]) -> Recipe:
    """The recipe with the prompts that the file withholds."""
    for name in PROMPTS:
        option = f"--{name.replace('_', '-')}"
        if name in recipe.withheld and given[name] is None:
            raise InvalidRequest(f"the {name} was left out of this picture; give it with {option}", field=name)
        if name not in recipe.withheld and given[name] is not None:
            raise InvalidRequest(f"this picture's recipe says all about its {name}; leave {option} out", field=name)
    return replace(
        recipe,
        prompt=given["prompt"] if recipe.prompt is None else recipe.prompt,
        negative_prompt=given["negative_prompt"] if recipe.negative_prompt is None else recipe.negative_prompt,
    )


def _find_model(recipe: Recipe, name: str | None, settings: Settings) -> tuple[Path, ModelSpec]:
    """The very files that made the picture; nothing is downloaded. Raises InvalidRequest."""
    for made in find_sets(settings, recipe.model) if name is None else ():
        if revision_of(made) == recipe.revision:
            return made, read_model_spec(made)
    missing = f"{recipe.model} at revision {recipe.revision}, which made this picture, is not at hand"
    try:
        model = find_model(name or recipe.model)
    except ModelNotFound:
        raise InvalidRequest(f"{missing}; give its folder with --model", field="model") from None

    def find_cached(hub_id: str, _: str | None) -> Path:
        folder = hub.find_cached(hub_id, revision=recipe.revision)
        if folder is None:
            fetch = f"hf download {hub_id} --revision {recipe.revision}"
            raise InvalidRequest(f"{missing}; fetch it with: {fetch}", field="model")
        return folder

    folder = locate_folder(model, find_cached)
    revision = revision_of(folder)
    if revision != recipe.revision:
        raise InvalidRequest(
            f"this picture was made by revision {recipe.revision} of {recipe.model}; here is revision {revision}, "
            "which makes other pictures",
            field="model",
        )
    return folder, spec_in(folder, model)


def _find_loras(recipe: Recipe, entries: list[str]) -> tuple[LoraFile, ...]:
    """The very adapters that the picture was made with. Raises InvalidRequest."""
    files = {lora.name: lora for lora in locate_loras(entries)}
    for used in recipe.loras:
        if used.name not in files:
            raise InvalidRequest(
                f"this picture was made with LoRA {used.name!r}; give it with --lora {used.name}=FILE", field="lora"
            )
        if files[used.name].revision != used.revision:
            raise InvalidRequest(
                f"{files[used.name].file} is not the LoRA {used.name!r} that this picture was made with", field="lora"
            )
    unused = sorted(files.keys() - {used.name for used in recipe.loras})
    if unused:
        raise InvalidRequest(f"this picture was made without LoRA {unused[0]!r}; leave it out", field="lora")
    return tuple(files.values())


def _find_source(
    recipe: Recipe, spec: ModelSpec, settings: Settings, source: Path | None, mask: Path | None
) -> SourceImage | None:
    """What an edit started from: the same pixels, or InvalidRequest."""
    if recipe.source is None:
        if source is not None or mask is not None:
            raise InvalidRequest("this picture is no edit; leave --source and --mask out", field="source")
        return None
    if source is None:
        raise InvalidRequest("this picture is an edit of another one; give that with --source", field="source")
    fitted = fit_upload(
        Upload(image=read_file(source), mask=None if mask is None else read_file(mask), image_field=str(source)),
        spec,
        width=recipe.width,
        height=recipe.height,
        strength=recipe.strength,
        max_pixels=settings.max_upload_pixels,
    ).source
    if digest(fitted.pixels) != recipe.source:
        raise InvalidRequest(f"{source} is not the image that this picture was made from", field="source")
    if recipe.mask is not None and fitted.mask is None:
        raise InvalidRequest("this picture was made with a mask; give it with --mask", field="mask")
    if recipe.mask != (None if fitted.mask is None else digest(fitted.mask)):
        raise InvalidRequest(f"{mask or source} is not the mask that this picture was made with", field="mask")
    return fitted


def _request(
    recipe: Recipe, spec: ModelSpec, image_format: ImageFormat, source: SourceImage | None, timeout_s: float
) -> GenerationRequest:
    """What makes the picture again, encoded as it was. Raises InvalidRequest if the recipe asks for the impossible."""
    return build_generation_request(
        spec,
        id=uuid.uuid4().hex,
        prompt=recipe.prompt or "",
        image_format=image_format,
        image_quality=recipe.image_quality,
        source=source,
        loras=[(each.name, each.scale) for each in recipe.loras],
        timeout_s=timeout_s,
        **optional_parameters(recipe),
    )


def _changes(then: Recipe, now: Recipe) -> list[str]:
    """What was different when the picture was made."""
    pairs = [(name, getattr(then, name), getattr(now, name)) for name in _CIRCUMSTANCES]
    return [f"{name} {old} then, {new} now" for name, old, new in pairs if old != new]


def report(then: np.ndarray, now: np.ndarray, changes: list[str]) -> int:
    """Print the verdict. Returns the exit status."""
    console = Console(emoji=False, soft_wrap=True, highlight=False)
    difference = np.abs(then.astype(np.float64) - now)
    is_same = not difference.any()
    if is_same:
        console.print("[bold green]the same picture[/]: every pixel is equal")
    else:
        psnr = 10 * np.log10(255**2 / np.square(difference).mean())
        console.print(
            f"[bold red]another picture[/]: pixels differ by {difference.max():.0f} of 255 at most, by "
            f"{difference.mean():.3g} on average (PSNR {psnr:.1f} dB)"
        )
    for change in changes:
        console.print(f"  {escape(printable(change))}")
    return 0 if is_same else DIFFERENT
