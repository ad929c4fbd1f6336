"""Contact sheets: fixed prompts, each with the seeds 0 to 3, unpicked, as the shipped folder draws them."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from training.sprite.data.artwork import Pixels
from training.sprite.judging.evaluate import draw_prompts, load_pipeline
from training.sprite.stages.export import EXAMPLES

SEEDS = 4
COLUMNS = 12
GAP = 4


def sheet(prompts: tuple[str, ...], steps: int) -> Pixels:
    """The pictures of a prompt lie side by side, or below each other where there are many prompts."""
    asked = [(prompt, seed) for prompt in prompts for seed in range(SEEDS)]
    drawn = draw_prompts(load_pipeline(), [prompt for prompt, _ in asked], [seed for _, seed in asked], steps)
    return tiled(drawn, COLUMNS)


def tiled(pictures: list[Pixels], columns: int) -> Pixels:
    side = pictures[0].shape[0] + GAP
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * side + GAP, columns * side + GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top, left = GAP + row * side, GAP + column * side
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--shrink", type=int, default=2, help="by how much each side is made smaller")
    given = parser.parse_args()
    Image.fromarray(sheet(EXAMPLES, given.steps)).reduce(given.shrink).save(given.output, optimize=True)
