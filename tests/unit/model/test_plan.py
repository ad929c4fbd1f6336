from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from safelight.errors import ConfigurationError
from safelight.model.catalog import FLUX_SCHNELL, find_model
from safelight.model.memory.plan import (
    Choice,
    DeviceFacts,
    Plan,
    _plan,
    as_options,
    choose_plan,
    describe_plan,
    next_smaller,
)
from safelight.model.memory.published import published_parts, published_work
from safelight.model.memory.stored_parts import StoredPart
from safelight.settings import EngineOptions, load_settings

GB = 10**9
PARTS: Mapping[str, StoredPart] = published_parts(find_model(FLUX_SCHNELL.name).num_parameters)
WORK = published_work(FLUX_SCHNELL)


def gpu(free_gb: float) -> DeviceFacts:
    return DeviceFacts(type="cuda", free_bytes=int(free_gb * GB), number_bytes=2)


def cpu(free_gb: float, number_bytes: int = 4) -> DeviceFacts:
    return DeviceFacts(type="cpu", free_bytes=int(free_gb * GB), number_bytes=number_bytes)


def plan(device: DeviceFacts, **options: Any) -> Plan:
    return choose_plan(PARTS, WORK, device, EngineOptions(**options))


def in_short(choice: Choice) -> str:
    tiles = ", tiles" if choice.vae_tiling else ""
    return f"{choice.quantization} {choice.text_encoder_2_quantization} {choice.offload}{tiles}"


@pytest.mark.parametrize(
    ("free_gb", "expected"),
    [
        (80, "none none none"),
        (40, "none none none, tiles"),
        (34, "none none encoders"),
        (27, "none none encoders, tiles"),
        (25.9, "int8 int8 none"),
        (20, "int8 int8 none, tiles"),
        (15, "int8 int8 encoders, tiles"),
        (10, "nf4 int8 encoders, tiles"),
        (8, "int8 int8 layers, tiles"),
        (2.8, "nf4 nf4 layers, tiles"),
    ],
)
def test_on_a_gpu_each_rung_is_reached_as_memory_shrinks(free_gb: float, expected: str) -> None:
    chosen = plan(gpu(free_gb))

    assert in_short(chosen.choice) == expected
    assert chosen.peak_bytes <= free_gb * GB


@pytest.mark.parametrize(
    ("free_gb", "expected"),
    [
        (60, "none none none"),
        (30, "none none none"),
        (24, "int8 int8 none, tiles"),
        (17, "nf4 int8 none, tiles"),
        (14.5, "nf4 nf4 none, tiles"),
    ],
)
def test_on_a_cpu_each_rung_is_reached_as_memory_shrinks(free_gb: float, expected: str) -> None:
    chosen = plan(cpu(free_gb))

    assert in_short(chosen.choice) == expected
    assert chosen.peak_bytes <= free_gb * GB


@pytest.mark.parametrize("device", [gpu(48), gpu(24), gpu(12), gpu(8), cpu(60), cpu(24)])
def test_what_is_asked_for_holds_and_only_the_rest_is_chosen(device: DeviceFacts) -> None:
    offload = "none" if device.type == "cpu" else "layers"

    chosen = plan(
        device, quantization="fp8", text_encoder_2_quantization="nf4", offload=offload, vae_tiling="on"
    ).choice

    assert as_options(chosen) == (
        f"--quantization fp8 --text-encoder-2-quantization nf4 --offload {offload} --vae-tiling on"
    )


def test_what_cannot_be_had_with_these_options_is_refused_with_what_would_fit() -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(gpu(12), quantization="none", offload="none")

    assert "12.0 GB on the GPU may be used" in caught.value.message
    assert "what fits is --quantization nf4 --text-encoder-2-quantization int8 --offload encoders" in (
        caught.value.message
    )


@pytest.mark.parametrize(("device", "smallest"), [(gpu(2), "--offload layers"), (cpu(4), "--offload none")])
def test_where_nothing_fits_the_smallest_plan_is_named(device: DeviceFacts, smallest: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(device)

    assert "the smallest plan is --quantization nf4 --text-encoder-2-quantization nf4 " + smallest in (
        caught.value.message
    )


@pytest.mark.parametrize("offload", ["encoders", "model", "layers"])
def test_a_cpu_has_nothing_to_offload_to(offload: str) -> None:
    with pytest.raises(ConfigurationError, match=f"offload {offload} needs a GPU"):
        plan(cpu(80), offload=offload)


@pytest.mark.parametrize("option", ["quantization", "text_encoder_2_quantization"])
def test_apple_s_gpus_have_no_fp8(option: str) -> None:
    apple = DeviceFacts(type="mps", free_bytes=64 * GB, number_bytes=2)

    with pytest.raises(ConfigurationError, match=r"quantization fp8 needs CUDA or a CPU: .*; use int8 or nf4"):
        plan(apple, **{option: "fp8"})
    assert plan(apple, **{option: "int8"}).choice.offload == "none"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2 with scales", "fp8", "fp8 of torchao"])
def test_a_file_in_fp8_is_for_other_devices_than_apple_s_gpus(dtype: str) -> None:
    apple = DeviceFacts(type="mps", free_bytes=64 * GB, number_bytes=2)
    parts = {**PARTS, "text_encoder_2": replace(PARTS["text_encoder_2"], dtype=dtype, files=("/models/t5.sft",))}

    with pytest.raises(ConfigurationError, match=r"^/models/t5\.sft is in fp8, .*; use another file, or device cpu"):
        choose_plan(parts, WORK, apple, EngineOptions())
    choose_plan(parts, WORK, gpu(80), EngineOptions())


@pytest.mark.parametrize("memory", ["24", "GB", "lots", "-3GB", "0GB", "0.0MB", "nanGB", "1e400GB", f"{10**400}GB", ""])
def test_a_budget_that_is_no_amount_is_refused(memory: str) -> None:
    with pytest.raises(ConfigurationError, match="memory: "):
        load_settings(memory=memory)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [("12GB", 12 * GB), ("11 GiB", 11 * 2**30), ("1.5gb", 1_500_000_000), ("900MB", 900_000_000), ("2TB", 2000 * GB)],
)
def test_a_budget_is_read_as_people_write_it(memory: str, expected: int) -> None:
    assert load_settings(memory=memory).memory == expected


@pytest.mark.parametrize("device", [gpu(80), gpu(24), gpu(12), gpu(8), cpu(60), cpu(24)])
def test_the_next_smaller_plan_needs_less_and_changes_as_little_as_possible(device: DeviceFacts) -> None:
    chosen = plan(device)

    smaller = next_smaller(chosen, PARTS, WORK, device)

    assert smaller is not None
    assert smaller.peak_bytes < chosen.peak_bytes


def test_below_the_smallest_plan_there_is_none() -> None:
    assert next_smaller(plan(gpu(2.8)), PARTS, WORK, gpu(2.8)) is None


def test_a_plan_of_a_small_model_is_told_in_megabytes() -> None:
    part = StoredPart(
        format="safetensors", dtype="F16", num_bytes=62_000_000, num_parameters=31_000_000, num_repeated=0, files=()
    )

    told = describe_plan(choose_plan(dict.fromkeys(PARTS, part), WORK, cpu(60), EngineOptions()))

    assert "transformer F32 in memory 0.1 GB" in told
    assert "plan: " in told


def test_a_plan_tells_how_many_rows_fit_into_a_batch() -> None:
    tight, wide = plan(gpu(10)), plan(gpu(80))

    assert 1 <= tight.num_rows < wide.num_rows
    assert f"{int(wide.num_rows)} rows of the largest picture fit into a batch" in describe_plan(wide)
    for chosen in (tight, wide):
        others = chosen.peaks["denoise"] - chosen.row_bytes
        assert others + int(chosen.num_rows) * chosen.row_bytes <= chosen.free_bytes


@pytest.mark.parametrize("memory_gb", [80, 48, 44.5, 40, 34, 27, 24, 19.9, 16, 12, 9.3])
def test_pictures_are_decoded_beside_the_steps_where_the_sum_of_both_fits(memory_gb: float) -> None:
    chosen = plan(gpu(memory_gb))
    alone = choose_alone(chosen)

    assert chosen.peaks["decode"] == alone.peaks["decode"]
    if chosen.choice.decodes_beside:
        work = chosen.peaks["denoise"] - alone.peaks["denoise"]
        assert work == chosen.peaks["encode"] - alone.peaks["encode"]
        assert work == 2 * (WORK.decode_tile if chosen.choice.vae_tiling else WORK.decode)
        assert chosen.peak_bytes <= chosen.free_bytes
        assert chosen.num_rows < alone.num_rows
        assert "decoded beside the steps of others" in describe_plan(chosen)
    else:
        assert chosen == alone
        assert "beside the steps" not in describe_plan(chosen)


def choose_alone(chosen: Plan) -> Plan:
    """The same plan with each stage for itself, as `plan.next_smaller` counts it."""
    return _plan(PARTS, WORK, gpu(chosen.free_bytes / GB), replace(chosen.choice, decodes_beside=False))


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (gpu(80), {}, True),
        (gpu(80), {"offload": "encoders"}, True),
        (gpu(80), {"offload": "model"}, False),
        (gpu(80), {"offload": "layers"}, False),
        (gpu(43), {"vae_tiling": "off", "quantization": "none"}, False),
        (gpu(8), {}, False),
        (cpu(200), {}, False),
        (DeviceFacts(type="mps", free_bytes=200 * GB, number_bytes=2), {}, False),
    ],
)
def test_nothing_is_decoded_beside_what_moves_or_without_room_or_streams(
    device: DeviceFacts, options: Mapping[str, Any], expected: bool
) -> None:
    assert plan(device, **options).choice.decodes_beside is expected


def test_who_ran_out_of_memory_while_both_ran_is_told_of_other_options_than_he_has() -> None:
    for memory_gb in (80, 48, 24, 12):
        chosen = plan(gpu(memory_gb))
        smaller = next_smaller(chosen, PARTS, WORK, gpu(memory_gb))

        assert smaller is not None
        assert as_options(smaller.choice) != as_options(chosen.choice)


def test_a_plan_tells_what_waits_in_the_machines_memory() -> None:
    layers, whole = plan(gpu(2.8)), plan(gpu(80))

    waiting = {each.name: each.num_bytes for each in layers.placed if each.name != "vae"}
    assert layers.choice.offload == "layers"
    assert layers.host_bytes == sum(waiting.values())
    assert "of the machine's memory" in describe_plan(layers)
    assert whole.host_bytes == 0
    assert plan(cpu(60)).host_bytes == 0
