"""What other programs read in a prompt as instructions, and every model here as words: adapters, weights, alternatives.

It is painted as it stands, and said once. Repetitions are bounded, so that the search takes time in step with the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from safelight.limits import MAX_PROMPT_CHARACTERS

MAX_SHOWN = 40
"""Characters of an example."""
_NUMBER = r"[+-]?(?:\d{1,2}(?:\.\d{0,6})?|\.\d{1,6})"
_WEIGHT = re.compile(rf"([^\s():,]{{1,40}}):{_NUMBER}\s{{0,3}}\)")
_SYNTAX = {
    "an adapter": r"<(?:lora|lyco|lycoris|loha|hypernet|hypernetwork|embedding|ti|wlr)\s{0,3}:[^<>]{1,100}>",
    "a weight": rf"\w{{1,30}}::{_NUMBER}(?![\w:.\]])",
    "emphasis": r"\(\([^()]{1,100}\)\)|\{\{[^{}]{1,100}\}\}|\[\[[^\[\]]{1,100}\]\]",
    "a change between steps": r"\[[^\[\]:]{0,60}:[^\[\]:]{0,60}:[ \t]{0,3}(?:0?\.\d{1,6}|\d{1,2})\]",
    "alternatives": r"[^\s|]{1,20}[ \t]{0,3}\|[ \t]{0,3}[^\s|]{1,20}",
    "a wildcard": r"(?<!\w)__\w[\w/-]{0,60}?__(?!\w)",
    "an embedding": r"(?<!\w)embedding:\w[\w.-]{0,60}",
    "an option": r"(?<!\S)--(?:ar|aspect|v|niji|no|stylize|style|chaos|seed|quality|q|s|c|sref|cref|iw|tile|weird)"
    r"[ \t]{1,3}[\w.:]{1,20}",
}
_PATTERNS = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _SYNTAX.items()}


def warn_of_syntax(prompt: str, negative_prompt: str | None) -> tuple[str, ...]:
    """At most one sentence, with an example of each kind."""
    texts = {
        "prompt": prompt[:MAX_PROMPT_CHARACTERS],
        "negative_prompt": (negative_prompt or "")[:MAX_PROMPT_CHARACTERS],
    }
    found = {field: _examples(text) for field, text in texts.items()}
    fields = [field for field, examples in found.items() if examples]
    if not fields:
        return ()
    examples = {**found["negative_prompt"], **found["prompt"]}
    shown = ", ".join(f"{example!r} ({kind})" for kind, example in examples.items())
    has = "has" if len(fields) == 1 else "have"
    loras = "; LoRAs are named in loras" if "an adapter" in examples else ""
    return (f"{' and '.join(fields)} {has} syntax of other programs, which is painted as words here: {shown}{loras}",)


def _examples(text: str) -> Mapping[str, str]:
    """Kind -> the first example of it."""
    found = {kind: _shortened(match[0]) for kind, pattern in _PATTERNS.items() if (match := pattern.search(text))}
    weight = _weight_in_brackets(text)
    return found if weight is None else {"a weight": weight, **found}


def _weight_in_brackets(text: str) -> str | None:
    """`(red:1.5)`, but not `(16:9)` or `(at 12:30)`: a number before the colon makes a ratio or an hour of it."""
    opening = text.find("(")
    if opening < 0:
        return None
    for match in _WEIGHT.finditer(text, opening):
        if not re.fullmatch(r"[\d.]+", match[1]):
            start = text.rfind("(", max(match.start() - MAX_SHOWN, 0), match.start())
            return _shortened(f"({text[start + 1 : match.end()]}" if start >= 0 else f"(… {match[0]}")
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
