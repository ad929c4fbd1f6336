"""What is told of other programs' syntax in prompts, and what is none."""

from __future__ import annotations

import pytest

from safelight.picture.prompt_syntax import warn_of_syntax

SYNTAX = {
    "<lora:film:0.8> a fox": "'<lora:film:0.8>' (an adapter); LoRAs are named in loras",
    "a fox <LyCO: film : 1 : 0.5>": "'<LyCO: film : 1 : 0.5>' (an adapter)",
    "a (red:1.5) fox": "'(red:1.5)' (a weight)",
    "(best quality, 4k:1.3), a fox": "'(best quality, 4k:1.3)' (a weight)",
    "a ((big) red:.8) fox": "red:.8)' (a weight)",
    "(score_9:-1) fox": "'(score_9:-1)' (a weight)",
    "a hot dog::2 and food": "'dog::2' (a weight)",
    "a ((red)) fox": "'((red))' (emphasis)",
    "a {{red}} fox": "'{{red}}' (emphasis)",
    "a [fox:dog:0.5]": "'[fox:dog:0.5]' (a change between steps)",
    "a [fox|dog]": "'[fox|dog]' (alternatives)",
    "a fox | a dog": "'fox | a' (alternatives)",
    "a __colour__ fox": "'__colour__' (a wildcard)",
    "embedding:easynegative": "'embedding:easynegative' (an embedding)",
    "a fox --ar 16:9 --v 6": "'--ar 16:9' (an option)",
}


@pytest.mark.parametrize(("prompt", "words"), SYNTAX.items())
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_syntax_of_other_programs_is_named_with_an_example(prompt: str, words: str, field: str) -> None:
    (warning,) = warn_of_syntax(prompt, None) if field == "prompt" else warn_of_syntax("a fox", prompt)

    assert warning.startswith(f"{field} has syntax of other programs, which is painted as words here: ")
    assert words in warning


@pytest.mark.parametrize(
    "prompt",
    [
        "a fox (red), (big) and [small]",
        "a television (16:9)",
        "a map (scale 1:25000), 1:2",
        "a train (at 12:30), (John 3:16), (see page: 12)",
        "sizes (3.5:1) and (a:b)",
        "smile :) and :( and (word)",
        "std::vector, C++, a -- b, --the best",
        "a poster that says [SOLD OUT] {today}",
        "f(x) = (x + 1)(x + 2)",
        "a <red> ball, 3 < 4",
        "(see https://example.org:8080)",
        "snake_case, __, a||b",
        "",
    ],
)
def test_ordinary_brackets_and_colons_are_none(prompt: str) -> None:
    assert warn_of_syntax(prompt, prompt) == ()


def test_all_that_a_request_has_is_one_warning() -> None:
    (warning,) = warn_of_syntax("<lora:a:1> <lora:b:1> (a:1.2) (b:1.2)", "x|y (c:1.5)")

    assert warning == (
        "prompt and negative_prompt have syntax of other programs, which is painted as words here: "
        "'(a:1.2)' (a weight), 'x|y' (alternatives), '<lora:a:1>' (an adapter); LoRAs are named in loras"
    )


def test_a_long_example_is_shortened() -> None:
    (warning,) = warn_of_syntax(f"<lora:{'x' * 90}:1> a|{'b' * 5000} ({'c' * 5000}:1.5)", None)

    assert len(warning) < 300
