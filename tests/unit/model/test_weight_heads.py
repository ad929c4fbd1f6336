"""The heads of safetensors and GGUF files are read at once, and no length in them is believed."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save

from safelight.errors import ModelLoadError, SafelightError, UnsupportedModel
from safelight.model.heads.file_head import read_head
from safelight.model.heads.gguf_head import TYPES
from safelight.model.heads.quantizer_marks import find_scales
from safelight.model.heads.tensor_head import TensorHead
from tests.gguf_files import write_gguf

NUMBERS = {"a": np.arange(64, dtype=np.float32).reshape(2, 32), "b.c": np.ones(3, np.float32)}


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tokenizer(num_words: int) -> bytes:
    words = b"".join(text(f"word {number}".encode()) for number in range(num_words))
    array = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, num_words) + words
    scores = text(b"tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, num_words) + bytes(4 * num_words)
    return array + scores + text(b"t5.block_count") + struct.pack("<II", 4, 24)


def test_the_table_of_types_is_that_of_the_gguf_package() -> None:
    assert {(int(kind), kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()} == {
        (number, *row) for number, row in TYPES.items()
    }


def test_a_gguf_head_says_what_the_gguf_package_reads(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf", NUMBERS, lambda name: "Q8_0" if name == "a" else "F16", more=tokenizer(20), num_more=3
    )

    head = read_head(path)

    theirs = gguf.GGUFReader(path).tensors
    assert head.metadata == {"general.architecture": "flux", "t5.block_count": 24}
    assert {(name, each.dtype, each.start, each.num_bytes) for name, each in head.tensors.items()} == {
        (each.name, each.tensor_type.name, each.data_offset, each.n_bytes) for each in theirs
    }
    assert {name: each.shape for name, each in head.tensors.items()} == {"a": (2, 32), "b.c": (3,)}


def test_a_file_is_known_by_what_it_begins_with_and_not_by_its_ending(tmp_path: Path) -> None:
    renamed = write_gguf(tmp_path / "really-gguf.safetensors", NUMBERS)
    other = tmp_path / "really-safetensors.gguf"
    other.write_bytes(save(NUMBERS))

    assert read_head(renamed).format == "gguf"
    assert read_head(other).format == "safetensors"


def test_of_a_file_of_12_gb_only_the_head_is_read(tmp_path: Path) -> None:
    size = 12 * 1024**3
    entry = {"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    head = json.dumps(entry).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + size)
    other = tmp_path / "large.gguf"
    with other.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + tokenizer(32_128))
        file.write(text(b"weight") + struct.pack("<IQIQ", 1, size, 24, 0))
        file.truncate(size + 2**20)
    tracemalloc.start()

    assert read_head(path).tensors["weight"].num_bytes == size
    assert read_head(other).tensors["weight"].num_bytes == size

    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def whole_files(tmp_path: Path) -> list[Path]:
    path = tmp_path / "whole.safetensors"
    path.write_bytes(save(NUMBERS, metadata={"format": "pt"}))
    return [path, write_gguf(tmp_path / "whole.gguf", NUMBERS, more=tokenizer(3), num_more=3)]


def test_a_file_that_is_cut_short_anywhere_is_refused_by_its_name(tmp_path: Path) -> None:
    for path in whole_files(tmp_path):
        content = path.read_bytes()
        last = content.rstrip(b"\0")  # what comes after is padding
        for length in range(len(last)):
            path.write_bytes(content[:length])
            with pytest.raises(ModelLoadError) as caught:
                read_head(path)
            assert caught.value.message.startswith(f"{path} cannot be read: ")


def test_no_byte_of_a_head_can_break_the_reader(tmp_path: Path) -> None:
    for path in whole_files(tmp_path):
        content = path.read_bytes()
        for position in range(len(content) - 300):
            for byte in (0x7F, 0xFF):
                path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
                tensors, said = read_or_refusal(path)
                assert said is None or said.startswith(f"{path} ")
                assert all(0 <= each.start <= each.stop <= len(content) for each in tensors.values())


def read_or_refusal(path: Path) -> tuple[Mapping[str, TensorHead], str | None]:
    try:
        return read_head(path).tensors, None
    except SafelightError as error:
        return {}, error.message


def of_json(head: Mapping[str, object]) -> bytes:
    written = json.dumps(head).encode()
    return struct.pack("<Q", len(written)) + written


NOTHING = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
GGUF = b"GGUF" + struct.pack("<I", 3)
HOSTILE = {
    "2**63 tensors": GGUF + struct.pack("<QQ", 2**63, 0),
    "2**63 values": GGUF + struct.pack("<QQ", 0, 2**63),
    "2**63 words": GGUF + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, 2**63),
    "words of nothing": GGUF
    + struct.pack("<QQ", 0, 1)
    + text(b"k")
    + struct.pack("<IIQ", 9, 8, 2**22 + 1)
    + bytes(2**22),
    "2**63 numbers": GGUF + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 12, 2**63),
    "arrays of arrays": GGUF + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, 4) * 99,
    "a kind of value of its own": GGUF + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IQ", 99, 4),
    "a text of 2**64 bytes": GGUF + struct.pack("<QQQ", 0, 1, 2**64 - 1),
    "2**32 dimensions": GGUF + struct.pack("<QQ", 1, 0) + text(b"w") + struct.pack("<I", 2**32 - 1),
    "a tensor of 2**256 numbers": GGUF
    + struct.pack("<QQ", 1, 0)
    + text(b"w")
    + struct.pack("<I4QIQ", 4, *[2**63] * 4, 0, 0),
    "a tensor that begins behind the file": GGUF
    + struct.pack("<QQ", 1, 0)
    + text(b"w")
    + struct.pack("<IQIQ", 1, 1, 0, 2**63),
    "half a block": GGUF + struct.pack("<QQ", 1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 33, 8, 0) + bytes(99),
    "twice a name": GGUF + struct.pack("<QQ", 2, 0) + (text(b"w") + struct.pack("<IQIQ", 1, 0, 0, 0)) * 2 + bytes(99),
    "an alignment of 0": GGUF + struct.pack("<QQ", 0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
    "GGUF for big-endian machines": b"GGUF" + struct.pack(">I", 3) + bytes(16),
    "GGUF of version 1": b"GGUF" + struct.pack("<I", 1) + bytes(16),
    "a head of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "nothing": b"",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "deep JSON": struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995,
    "a negative shape": struct.pack("<Q", 56) + b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,-1]}} ',
    "32,769 tensors": of_json({f"t{number}": NOTHING for number in range(32_769)}),
    "a name that cannot be shown": of_json({"\x1b[31m\n": NOTHING}),
    "a name of 513 characters": of_json({"n" * 513: NOTHING}),
    "nine dimensions": of_json({"a": NOTHING | {"shape": [0, *[2**62] * 8]}}),
    "twice a name in JSON": of_json({"a": NOTHING, "b": NOTHING}).replace(b'"b"', b'"a"'),
    "a gap": GGUF + struct.pack("<QQ", 1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 1, 0, 32) + bytes(99),
    "a gap between two": GGUF
    + struct.pack("<QQ", 2, 0)
    + text(b"v")
    + struct.pack("<IQIQ", 1, 1, 0, 0)
    + text(b"w")
    + struct.pack("<IQIQ", 1, 1, 0, 64)
    + bytes(199),
    "a weight that is not aligned": GGUF
    + struct.pack("<QQ", 2, 0)
    + text(b"v")
    + struct.pack("<IQIQ", 1, 1, 0, 0)
    + text(b"w")
    + struct.pack("<IQIQ", 1, 1, 0, 4)
    + bytes(199),
    "a block without dimensions": GGUF
    + struct.pack("<QQ", 1, 0)
    + text(b"w")
    + struct.pack("<IIQ", 0, 2, 0)
    + bytes(99),
    "a weight of 513 characters": GGUF
    + struct.pack("<QQ", 1, 0)
    + text(b"n" * 513)
    + struct.pack("<IQIQ", 1, 1, 0, 0)
    + bytes(99),
    "a weight without a name": GGUF
    + struct.pack("<QQ", 1, 0)
    + text(b"")
    + struct.pack("<IQIQ", 1, 1, 0, 0)
    + bytes(99),
    "another length": struct.pack("<Q", 56) + b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0, 1]}} ' + b"1",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_head_that_claims_what_cannot_be_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)

    with pytest.raises(ModelLoadError) as caught:
        read_head(path)

    assert caught.value.message.startswith(f"{path} cannot be read: ")
    assert caught.value.message.endswith("download it again")
    assert "\n" not in caught.value.message


def test_no_head_is_longer_than_a_hundred_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    with path.open("wb") as file:
        file.write(GGUF + struct.pack("<QQ", 0, 2_000))
        for number in range(2_000):
            file.write(text(b"key %d" % (number % 5)) + struct.pack("<IQ", 8, 60_000))
            file.seek(60_000, os.SEEK_CUR)
        file.truncate()
    tracemalloc.start()

    _, said = read_or_refusal(path)

    assert said == f"{path} cannot be read: its head is longer than that of any GGUF file; download it again"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("number", [4, 31, 36, 99, 2**32 - 1])
def test_a_type_without_a_name_is_told_as_such_however_many_bytes_it_takes(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file.gguf"
    heads = text(b"v") + struct.pack("<IQIQ", 1, 64, number, 0) + text(b"w") + struct.pack("<IQIQ", 1, 8, 0, 32)
    path.write_bytes(GGUF + struct.pack("<QQ", 2, 0) + heads + bytes(256))

    head = read_head(path)

    assert head.tensors["v"].dtype == f"type {number}"
    with pytest.raises(UnsupportedModel, match=rf"has v as type {number}, which is not read; read are F32, F16"):
        find_scales(path, head)


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (b"PK\x03\x04 a torch checkpoint", "can run code"),
        (b"\x80\x02}q\x00(X\x05\x00\x00\x00model", "can run code"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>Access denied</html>", "web page"),
    ],
)
def test_what_is_often_taken_for_weights_is_called_what_it_is(tmp_path: Path, beginning: bytes, said: str) -> None:
    path = tmp_path / "flux1-schnell.safetensors"
    path.write_bytes(beginning)

    with pytest.raises(UnsupportedModel, match=said):
        read_head(path)


def test_a_link_to_a_file_that_has_moved_says_where_it_was(tmp_path: Path) -> None:
    link = tmp_path / "flux.gguf"
    link.symlink_to(tmp_path / "moved.gguf")

    with pytest.raises(ModelLoadError, match=r"flux\.gguf is missing: it was .*moved\.gguf; put that back"):
        read_head(link)
