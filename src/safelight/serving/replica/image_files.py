"""The threads in which a replica writes image files, and what goes into a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from safelight.picture import files
from safelight.picture.content_credentials import ContentCredentials
from safelight.picture.generation import Generation
from safelight.picture.recipe import Origin, recipe_of

NUM_THREADS = 2
"""They release the interpreter lock for most of the time."""


class ImageFiles:
    """Writes the files of one replica."""

    def __init__(self, origin: Origin, *, private_prompts: bool, credentials: ContentCredentials | None) -> None:
        self._origin = origin
        self._private_prompts = private_prompts
        self._credentials = credentials
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"image-encoder-{index}") for index in range(NUM_THREADS)
        ]

    def thread_of(self, ticket: int, generation: Generation) -> ThreadPoolExecutor:
        """One thread for an image and its previews, so that none of them overtakes another."""
        return self._threads[(ticket + generation.image_index) % NUM_THREADS]

    def picture(self, generation: Generation, pixels: np.ndarray) -> bytes:
        """The file of the picture, with its recipe. Raises EngineFailure if it cannot be signed."""
        request, recipe = generation.request, recipe_of(generation, self._origin)
        return files.encode(
            pixels,
            image_format=request.image_format,
            image_quality=request.image_quality,
            recipe=recipe.without_prompts() if self._private_prompts else recipe,
            credentials=self._credentials,
        )

    def preview(self, generation: Generation, pixels: np.ndarray) -> bytes:
        request = generation.request
        return files.encode_preview(pixels, image_format=request.image_format, image_quality=request.image_quality)
