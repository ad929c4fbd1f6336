"""`python -m training.sprite.pipeline`: every stage in turn, each from its last checkpoint, to the package folder."""

import argparse
from collections.abc import Callable

from training.sprite.data import artwork, tokens
from training.sprite.judging import evaluate, judge
from training.sprite.networks import autoencoder, network, text
from training.sprite.networks.checkpoints import log
from training.sprite.paths import work_folder
from training.sprite.stages import export, flow, patches, shards

FIRST_SHARDS = 2


def encode_first_shards() -> None:
    shards.measure_normalisation()
    shards.encode_shards(range(FIRST_SHARDS))


STAGES: dict[str, Callable[[], object]] = {
    "artwork": artwork.prepare,
    "tokens": tokens.train_tokenizers,
    "autoencoder": lambda: autoencoder.train(autoencoder.Schedule()),
    "text": lambda: text.train(text.Schedule()),
    "shards": encode_first_shards,
    "flow": lambda: flow.train(
        flow.Schedule(steps=flow.FIRST_STEPS, anneal=flow.FIRST_STEPS, blocks=network.FIRST_BLOCKS)
    ),
    "patches": lambda: patches.train(patches.Schedule()),
    "together": lambda: flow.train(flow.Schedule()),
    "judge": lambda: judge.train(judge.Schedule()),
    "export": export.export,
    "evaluate": lambda: evaluate.report((4, 32), 1.0),
}
BEFORE_THE_FLOW = ("tokens", "autoencoder", "text")


def run(stage: str) -> None:
    """A flow that has begun is bound to its latents and its text, so the stages before it are left as they are."""
    is_kept = stage in BEFORE_THE_FLOW and (work_folder() / network.CHECKPOINT).exists()
    log("pipeline", stage_is="kept" if is_kept else "begun", name=stage)
    if not is_kept:
        STAGES[stage]()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all when none is named")
    for chosen in parser.parse_args().stages or STAGES:
        run(chosen)
