"""`python -m training.sprite.pipeline`: every stage in turn, each from its last checkpoint, to the package folder."""

import argparse

from training.sprite import artwork, autoencoder, distil, evaluate, export, flow, judge, shards, text, tokens
from training.sprite.checkpoints import log
from training.sprite.paths import work_folder

FIRST_SHARDS = 16
STAGES = ("artwork", "tokens", "autoencoder", "text", "shards", "flow", "distil", "judge", "export", "evaluate")


def run(stage: str) -> None:
    log("pipeline", begins=stage)
    match stage:
        case "artwork":
            artwork.prepare()
        case "tokens":
            tokens.train_tokenizers()
        case "autoencoder" | "text" if flow_has_begun():
            log("pipeline", kept=stage)
        case "autoencoder":
            autoencoder.train(autoencoder.Schedule())
        case "text":
            text.train(text.Schedule())
        case "shards":
            shards.measure_normalisation()
            shards.encode_shards(range(FIRST_SHARDS))
        case "flow":
            flow.train(flow.Schedule())
        case "distil":
            distil.train(distil.Schedule())
        case "judge":
            judge.train(judge.Schedule())
        case "export":
            export.export()
        case _:
            print(evaluate.table(evaluate.evaluate((4, 32), 1.0)))


def flow_has_begun() -> bool:
    """From then on the flow is bound to its latents and its text, so those stages are left as they are."""
    return shards.is_normalised() or (work_folder() / flow.CHECKPOINT).exists()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all of them when none is named"
    )
    for chosen in parser.parse_args().stages or STAGES:
        run(chosen)
