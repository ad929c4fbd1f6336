"""Prompts become embeddings once, and what the encoders cannot read is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from safelight.engine.devices import Precision
from safelight.engine.engine import Engine, load_engine
from safelight.engine.families.flux1.components import Components
from safelight.engine.families.flux1.text import encode_prompt
from safelight.engine.prompts import PromptCache, PromptEmbeds
from safelight.model.catalog import sprite_folder
from safelight.settings import EngineOptions
from tests.unit.engine.drive import paint, start

LONG = "a red cat on a blue mat " * 2  # 38 letters are 51 T5 tokens or more, fewer than CLIP's 77
GUIDED = {"true_cfg_scale": 3.0}


def embeds(num_values: int = 10) -> PromptEmbeds:
    return PromptEmbeds(
        tensors={"prompt_embeds": torch.zeros(1, num_values, 1), "pooled_prompt_embeds": torch.zeros(1, 0)},
        num_tokens=1,
    )


@pytest.fixture
def fresh_engine(tiny_flux_folder: Path) -> Engine:
    return load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32"))


def test_a_prompt_seen_before_is_not_encoded_again(fresh_engine: Engine) -> None:
    start(fresh_engine, prompt="a red cat")
    start(fresh_engine, prompt="a red cat", seed=9)
    start(fresh_engine, prompt="a blue cat")

    counters = fresh_engine.counters()
    assert (counters.prompt_cache_hits, counters.prompt_cache_misses) == (1, 2)


def test_a_cached_prompt_paints_the_same_picture(fresh_engine: Engine) -> None:
    first, again = paint(fresh_engine), paint(fresh_engine)

    assert (first == again).all()
    assert fresh_engine.counters().prompt_cache_hits == 1


def test_negative_prompts_are_cached_too(fresh_engine: Engine) -> None:
    start(fresh_engine, prompt="cat", negative_prompt="dog", **GUIDED)
    start(fresh_engine, prompt="dog")

    assert fresh_engine.counters().prompt_cache_hits == 1


def test_a_cache_of_no_bytes_keeps_nothing(tiny_flux_folder: Path) -> None:
    engine = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32", prompt_cache_bytes=0))

    start(engine)
    start(engine)

    assert engine.counters().prompt_cache_hits == 0


def test_the_least_recently_used_prompt_goes_first() -> None:
    cache = PromptCache(max_bytes=2 * embeds().nbytes)
    cache.put(("a", ()), embeds())
    cache.put(("b", ()), embeds())
    cache.get(("a", ()))

    cache.put(("c", ()), embeds())

    assert cache.get(("b", ())) is None
    assert cache.get(("a", ())) is not None
    assert cache.nbytes == 2 * embeds().nbytes


def test_a_prompt_put_twice_counts_once() -> None:
    cache = PromptCache(max_bytes=1000)

    cache.put(("a", ()), embeds())
    cache.put(("a", ()), embeds())

    assert cache.nbytes == embeds().nbytes


def test_embeddings_larger_than_the_cache_push_nothing_out() -> None:
    cache = PromptCache(max_bytes=embeds(10).nbytes)
    cache.put(("a", ()), embeds(10))

    cache.put(("b", ()), embeds(11))

    assert cache.get(("a", ())) is not None


def test_a_prompt_with_another_strength_of_a_lora_is_another_prompt() -> None:
    cache = PromptCache(max_bytes=1000)
    cache.put(("a", (("film", 1.0),)), embeds())

    assert cache.get(("a", (("film", 0.5),))) is None
    assert cache.get(("a", ())) is None


def test_embeddings_are_of_the_dtype_that_is_computed_in_however_the_weights_are_kept(bf16_engine: Engine) -> None:
    parts = cast(Components, bf16_engine._components)
    precision = Precision(computation=torch.float32)

    embeds = encode_prompt(replace(parts, precision=precision), "a red cat", max_sequence_length=64)

    assert {tensor.dtype for tensor in embeds.tensors.values()} == {torch.float32}


def test_a_short_prompt_has_no_warning_and_counts_its_tokens(engine: Engine) -> None:
    generation = start(engine, prompt="red cat")

    assert generation.warnings == []
    assert generation.num_text_tokens == len("_red_cat") + 1  # and the end of the text


def test_a_prompt_beyond_t5_says_how_many_tokens_were_dropped(engine: Engine) -> None:
    generation = start(engine, prompt="a" * 70)

    assert generation.num_text_tokens == 64
    assert generation.warnings == [
        "prompt is too long: the T5 encoder read its first 64 tokens, and the other 8 were dropped"
    ]


def test_a_prompt_beyond_clip_alone_loses_only_style(dev_engine: Engine, tiny_flux_folder: Path) -> None:
    generation = start(dev_engine, prompt="a" * 80)

    style = [warning for warning in generation.warnings if "CLIP" in warning]
    assert style == [
        "prompt is longer than the 77 tokens that the CLIP encoder reads for the overall style: "
        "it did not see the last 5"
    ]


def test_a_truncated_negative_prompt_is_named(engine: Engine) -> None:
    generation = start(engine, prompt="cat", negative_prompt="b" * 70, **GUIDED)

    assert [warning.split(" is ")[0] for warning in generation.warnings] == ["negative_prompt"]


def test_what_lies_beyond_the_text_length_does_not_change_the_picture(engine: Engine) -> None:
    head = "a red cat " * 20

    assert (paint(engine, prompt=head + "x") == paint(engine, prompt=head + "y")).all()


@pytest.mark.parametrize("prompt", ["猫 🐈 кот", "\x00", "a" * 5000, "<pad></s>"])
def test_strange_prompts_are_painted(engine: Engine, prompt: str) -> None:
    assert paint(engine, prompt=prompt, num_inference_steps=1).shape == (64, 64, 3)


def test_what_t5_cannot_read_is_named_once_as_a_reader_counts_it(fresh_engine: Engine) -> None:
    generation = start(fresh_engine, prompt="a 狐狸 and 狐 by 👩\u200d🚀\ufe0f")

    assert "prompt has characters that the T5 encoder cannot read: '狐', '狸', '👩\\u200d🚀️'" in generation.warnings


@pytest.mark.parametrize("prompt", ["狐" * 5000, "a\u0301" + "\u0301" * 5000, "".join(map(chr, range(0x4E00, 0x6E00)))])
def test_however_much_cannot_be_read_the_warning_is_short(fresh_engine: Engine, prompt: str) -> None:
    warnings = start(fresh_engine, prompt=prompt).warnings

    assert any("T5 encoder cannot read" in warning for warning in warnings)
    assert max(len(warning) for warning in warnings) < 200


def test_of_many_characters_the_first_are_named_and_the_others_counted(fresh_engine: Engine) -> None:
    generation = start(fresh_engine, prompt="".join(map(chr, range(0x4E00, 0x4E00 + 15))))

    assert "'一', '丁', '丂', '七', '丄', '丅', '丆', '万', '丈', '三' and 5 more" in generation.warnings[0]


def test_a_prompt_from_the_cache_and_a_negative_prompt_say_what_was_not_read_too(fresh_engine: Engine) -> None:
    start(fresh_engine, prompt="狐")
    first = start(fresh_engine, prompt="狐", seed=9).warnings
    negative = start(fresh_engine, prompt="cat", negative_prompt="狐", **GUIDED).warnings

    assert fresh_engine.counters().prompt_cache_hits == 2
    assert [warning.partition(" ")[0] for warning in first + negative] == ["prompt"] * 2 + ["negative_prompt"] * 2
    assert all("'狐'" in warning for warning in first + negative)


def test_a_negative_prompt_that_does_not_run_says_nothing(fresh_engine: Engine) -> None:
    assert start(fresh_engine, prompt="cat", negative_prompt="狐", true_cfg_scale=1.0).warnings == []


def test_what_was_dropped_is_not_said_to_be_unread_as_well(fresh_engine: Engine) -> None:
    (warning, *_) = start(fresh_engine, prompt="a" * 70 + "狐", num_inference_steps=1).warnings

    assert warning.startswith("prompt is too long")
    assert not any("T5 encoder cannot read" in each for each in start(fresh_engine, prompt="a" * 70 + "狐").warnings)


def test_the_names_of_special_tokens_are_no_text(fresh_engine: Engine) -> None:
    warnings = start(fresh_engine, prompt="a cat <unk></s>").warnings

    assert "prompt has characters that the T5 encoder cannot read: '<unk>', '</s>'" in warnings


def test_spaces_line_breaks_and_the_ends_that_tokenizers_add_are_read(fresh_engine: Engine) -> None:
    assert start(fresh_engine, prompt=" a cat\n\ton a\r\nmat  ").warnings == []


def test_sprite_reads_its_own_alphabet_and_names_what_is_not_in_it() -> None:
    engine = load_engine(sprite_folder(), EngineOptions(device="cpu", dtype="float32"))
    wide_letters = "\uff46\uff4f\uff58"  # are letters to T5, and to CLIP any bytes are

    assert start(engine, prompt="A red fox, next to a café (in the snow): 2 owls!").warnings == []
    warnings = start(engine, prompt=f"a {wide_letters} of 狐").warnings
    assert warnings == ["prompt has characters that the T5 encoder cannot read: '狐'"]


def test_a_mark_that_cannot_be_seen_alone_is_shown_by_its_number(fresh_engine: Engine) -> None:
    assert "T5 encoder cannot read: '\\ufe0f'" in start(fresh_engine, prompt="a cat\ufe0f").warnings[0]
