"""A recipe to write into pictures."""

from __future__ import annotations

from safelight.picture.recipe import Backend, Origin, Recipe

ORIGIN = Origin(
    model="fake",
    revision="sha256:0123456789abcdef",
    backend=Backend(device="cpu", dtype="float32", num_threads=1, torch="none"),
)
RECIPE = Recipe(
    safelight="0.1.0",
    model="fake",
    revision="sha256:0123456789abcdef",
    prompt="ein Fuchs & <ein> Auto, 狐",
    negative_prompt="grass",
    width=64,
    height=48,
    num_inference_steps=4,
    scheduler="FlowMatchEulerDiscreteScheduler",
    guidance_scale=2.5,
    true_cfg_scale=2.5,
    seed=7,
    image_quality=95,
    device="cpu",
    dtype="float32",
    num_threads=1,
    torch="none",
)
