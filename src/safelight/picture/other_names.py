"""What other programs call the parameters of a picture, and what they are called here.

Nothing is read under another program's name: one name for one thing. Whoever brings such a name is told ours, by every
dialect and by the command line, from this one table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

CLOSE = 0.7
"""How alike two names must be for one to be taken as a slip of the other; `steps` and `style` are not."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    here: str
    """Its names in the dialects, the likeliest first; `width+height` are two that do together what it does."""
    elsewhere: str = ""
    otherwise: str = ""
    """For a dialect that has none of the names."""


_PARAMETERS = (
    _Parameter(
        "num_inference_steps steps",
        "step num_steps n_steps number_of_steps inference_steps num_inference_step sampling_steps sample_steps "
        "denoising_steps diffusion_steps ddim_steps iterations quality",
    ),
    _Parameter(
        "scheduler",
        "sampler sampler_name sampler_index sampler_id sampling_method sampling_algorithm sample_method scheduler_name "
        "scheduler_type noise_scheduler solver",
    ),
    _Parameter(
        "guidance_scale",
        "cfg cfg_scale cfg_strength guidance guidance_strength guidance_level distilled_cfg distilled_cfg_scale "
        "distilled_guidance unconditional_guidance_scale classifier_free_guidance classifier_free_guidance_scale",
    ),
    _Parameter("true_cfg_scale guidance_scale", "true_cfg true_guidance true_guidance_scale"),
    _Parameter("negative_prompt", "negative neg neg_prompt negative_text negative_prompts unconditional_prompt"),
    _Parameter(
        "prompt inputs",
        "input text prompts text_prompt text_prompts text_input caption query q instruction instances positive "
        "positive_prompt description input_data user_prompt",
    ),
    _Parameter(
        "n",
        "num_images num_image num_images_per_prompt number_of_images images_per_prompt num_outputs num_samples "
        "n_samples n_images n_iter batch_size batch_count batch num_generations number_results samples sample_count "
        "image_count count",
        "one request makes one picture here; /v1/images/generations takes n",
    ),
    _Parameter(
        "size width+height",
        "image_size img_size output_size target_size resolution dimension dimensions aspect aspect_ratio ratio",
    ),
    _Parameter("width", "w image_width img_width output_width"),
    _Parameter("height", "h image_height img_height output_height"),
    _Parameter("seed", "seeds random_seed rand_seed noise_seed manual_seed rng_seed generator random_state"),
    _Parameter(
        "strength",
        "denoise denoising denoising_strength denoise_strength prompt_strength img2img_strength image_strength",
        "pictures are made from pictures by /v1/images/edits",
    ),
    _Parameter("scale", "weight multiplier strength"),
    _Parameter(
        "loras lora",
        "lora_scale lora_weight lora_weights lora_strength lora_path lora_paths lora_url lora_name lora_model "
        "extra_lora hf_lora adapter adapters",
    ),
    _Parameter(
        "inputs image images",
        "image_url image_urls input_image input_images init_image init_images init_img img source_image base_image "
        "reference_image reference_images image_prompt",
        "pictures are made from pictures by /v1/images/edits",
    ),
    _Parameter("mask", "mask_image mask_url mask_img inpaint_mask", "/v1/images/edits takes a mask"),
    _Parameter(
        "output_format format",
        "response_format image_format img_format file_format output_type output_mime_type response_mime_type mime_type "
        "media_type content_type",
        "the Accept header says it: image/png, image/jpeg, image/webp or application/json",
    ),
    _Parameter(
        "output_compression quality",
        "output_quality image_quality jpeg_quality jpg_quality webp_quality compression compression_quality",
        "/v1/images/generations takes output_compression",
    ),
    _Parameter("stream", "streaming", "a server streams for Accept: text/event-stream"),
    _Parameter("partial_images num_previews", "previews preview num_partial_images"),
    _Parameter(
        "model", "model_id model_name checkpoint ckpt sd_model_checkpoint engine engine_id", "one model is served here"
    ),
    _Parameter(
        "parameters",
        "params extra_body generation_config sampling_params payload",
        "each parameter stands beside the prompt here",
    ),
    _Parameter("options", otherwise="there is nothing of the kind here"),
    _Parameter(
        "",
        "enable_safety_checker disable_safety_checker safety_checker safety_check safety_tolerance nsfw nsfw_filter "
        "moderation content_filter",
        "nothing is filtered here",
    ),
    _Parameter(
        "",
        "prompt_upsampling upsample_prompt enhance_prompt prompt_enhance expand_prompt prompt_expansion magic_prompt "
        "prompt_optimizer",
        "prompts are painted as they are here",
    ),
    _Parameter(
        "",
        "webhook webhook_url callback callback_url",
        "the header field Webhook-Url asks for a message when it is done",
    ),
)


def _letters(name: str) -> str:
    """What `cfg_scale`, `cfgScale` and `CFG scale` have in common."""
    return re.sub(r"[^a-z0-9]", "", name[:64].lower())


def _names(parameter: _Parameter) -> set[str]:
    return {_letters(name) for name in re.split(r"[ +]", f"{parameter.here} {parameter.elsewhere}") if name}


_BY_NAME = [(_names(each), each) for each in _PARAMETERS]


def is_known(name: str) -> bool:
    """Whether it is the name of a parameter somewhere."""
    return any(_letters(name) in names for names, _ in _BY_NAME)


def hint(name: str, accepted: Collection[str], *, show: Callable[[str], str] = repr) -> str:
    """In brackets, with a space before: what `name` is called among `accepted`. Empty if nobody knows.

    `show` says how a dialect writes a name.
    """
    own = next((each for each in accepted if _letters(each) == _letters(name)), None)
    if own is not None:
        return f" (here it is {show(own)})"
    meant = [parameter for names, parameter in _BY_NAME if _letters(name) in names]
    for parameter in meant:
        for candidate in parameter.here.split():
            if set(candidate.split("+")) <= set(accepted):
                return f" (here it is {' and '.join(show(each) for each in candidate.split('+'))})"
    if meant:
        return f" ({meant[0].otherwise})" if meant[0].otherwise and "seed" in accepted else ""
    close = difflib.get_close_matches(name[:64], accepted, n=1, cutoff=CLOSE)
    return f" (did you mean {show(close[0])}?)" if close else ""
