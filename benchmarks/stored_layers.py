"""What a layer costs whose weight is kept in fewer bytes: CPU time beside fp32, by blocks of rows and at once.

    python -m benchmarks.stored_layers [--rounds 5] [--tokens 512] [--shape 3072x9216] [--torchao]

One thread, 3072 x 9216 as in FLUX.1's blocks, or another shape (features in x out); all take turns. `--torchao` adds
torchao's layers, if it is installed. The last lines say what one row takes by itself beside sixteen, and for how many
shapes of products this machine makes the same of images together and one by one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import gguf
import torch
from torch import Tensor, nn

from safelight.engine import batch_invariance
from safelight.engine.weights.stored_linear import StoredLinear, StoredWeight
from safelight.engine.weights.stored_weights import (
    CastWeight,
    GgufWeight,
    Nf4Weight,
    ScaledWeight,
    quantize_float8,
    quantize_int8,
    quantize_nf4,
)

GGUF_TYPES = ("Q8_0", "Q4_0", "Q5_0")


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    in_features, out_features = options.shape
    weight, tokens = torch.randn(out_features, in_features) * 0.02, torch.randn(1, options.tokens, in_features)
    ways = _ways(weight) | (_ways_of_torchao(weight) if options.torchao else {})
    with torch.inference_mode():
        expected = ways["fp32"](tokens)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                began = time.process_time()
                way(tokens)
                seconds[name].append(time.process_time() - began)
        print("| | of fp32 | error |\n|---|---|---|")
        for name, way in ways.items():
            error = ((way(tokens) - expected).norm() / expected.norm()).item()
            print(f"| {name} | {min(seconds[name]) / min(seconds['fp32']):.2f} | {error:.4f} |")
        print(_one_row(weight, options.rounds))
        print(_stable_shapes())


def _one_row(weight: Tensor, rounds: int) -> str:
    rows = {1: torch.randn(1, weight.shape[1]), batch_invariance.MIN_ROWS: torch.randn(16, weight.shape[1])}
    seconds: dict[int, list[float]] = {number: [] for number in rows}
    for _ in range(rounds):
        for number, each in rows.items():
            began = time.process_time()
            nn.functional.linear(each, weight)
            seconds[number].append(time.process_time() - began)
    one, many = (1000 * min(each) for each in seconds.values())
    return f"one row by itself {one:.0f} ms, sixteen {many:.0f} ms"


def _ways(weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    stored: dict[str, StoredWeight] = {
        "bf16": CastWeight(weight.bfloat16()),
        "int8": ScaledWeight(*quantize_int8(weight)),
        "fp8": ScaledWeight(*quantize_float8(weight)),
        "nf4": Nf4Weight(*quantize_nf4(weight)),
    }
    for name in GGUF_TYPES:
        quant_type = gguf.GGMLQuantizationType[name]
        stored[name] = GgufWeight(torch.from_numpy(gguf.quantize(weight.numpy(), quant_type)), quant_type)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"fp32": lambda rows: nn.functional.linear(rows, weight)}
    for name, each in stored.items():
        ways[f"{name}, by blocks"] = StoredLinear(each, None)
        ways[f"{name}, at once"] = _at_once(each)
    return ways


def _at_once(stored: StoredWeight) -> Callable[[Tensor], Tensor]:
    return lambda rows: nn.functional.linear(rows, stored.rows(0, stored.out_features, rows.dtype))


def _ways_of_torchao(weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_  # noqa: PLC0415

    ways: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, config in (("int8", Int8WeightOnlyConfig()), ("fp8", Float8WeightOnlyConfig())):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).requires_grad_(False)
        layer.weight.copy_(weight)
        quantize_(layer, config)
        ways[f"{name}, torchao"] = layer
    return ways


def _stable_shapes() -> str:
    for in_features, out_features in ((1024, 256), (3072, 3072), (4096, 1024)):
        for images in (2, 3, 5, 8):
            for tokens in (16, 64, 100, 320):
                batch_invariance._linear_of_images(  # noqa: SLF001  what it finds is what is told
                    torch.randn(images, tokens, in_features), torch.randn(out_features, in_features), None
                )
    answers = batch_invariance._may_be_together.values()  # noqa: SLF001
    return f"{sum(answers)} of {len(answers)} shapes of products may be made together here"


def _shape(text: str) -> tuple[int, int]:
    in_features, out_features = map(int, text.split("x"))
    return in_features, out_features


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--shape", type=_shape, default=(3072, 9216), help="features in x out, such as 15360x3072")
    parser.add_argument("--torchao", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
