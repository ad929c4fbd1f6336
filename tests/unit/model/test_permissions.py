"""What may not be read says so in a sentence that names it, wherever on the way to it that shows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safelight.errors import ModelLoadError, ModelNotFound
from safelight.model.catalog import Model, find_model
from safelight.model.checkpoint import check_checkpoint
from safelight.model.file_sets import GivenFiles, assemble, is_whole
from safelight.model.heads.file_head import read_head
from safelight.model.memory.stored_parts import describe_parts
from tests.checkpoint_files import WEIGHTS, write_checkpoint

NOBODY = 65_534


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """As somebody who may not read it; root may read everything, so it is somebody else then."""
    mode = path.stat().st_mode
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A checkpoint where everybody may look for it, which is not so in the folder of a test."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="safelight-") as place:
        Path(place).chmod(0o755)
        yield write_checkpoint(Path(place) / "flux")


class NoHub:
    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")


def put_together(folder: Path) -> object:
    given = GivenFiles(parts={"vae": folder / WEIGHTS[3]}, base=Model(name="flux", folder=folder))
    return assemble(given, folder.parent / "sets", NoHub())


@pytest.mark.parametrize(
    "use",
    [
        check_checkpoint,
        describe_parts,
        lambda folder: read_head(folder / WEIGHTS[0]),
        lambda folder: find_model(str(folder / "text_encoder")),
        put_together,
    ],
)
@pytest.mark.parametrize("closed", [".", "..", "text_encoder", "vae", WEIGHTS[0], WEIGHTS[3]])
def test_what_may_not_be_read_is_named(folder: Path, closed: str, use: Callable[[Path], object]) -> None:
    with without_permission((folder / closed).resolve()):
        try:
            use(folder)
        except (ModelLoadError, ModelNotFound) as error:
            said = error.message
        else:
            return  # that was not needed

    assert "cannot be read: Permission denied" in said or "holds no part of FLUX.1" in said
    assert str(folder) in said


def test_a_shard_in_a_cache_of_somebody_else_is_named(folder: Path) -> None:
    place = folder / "transformer"
    cache = folder.parent / "blobs"
    cache.mkdir()
    weights = place / "diffusion_pytorch_model.safetensors"
    weights.rename(cache / "0123")
    (place / "shard.safetensors").symlink_to(cache / "0123")
    (place / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "shard.safetensors"}}')
    describe_parts(folder)

    with (
        without_permission(cache),
        pytest.raises(ModelLoadError, match=r"shard\.safetensors cannot be read: Permission"),
    ):
        describe_parts(folder)


def test_a_set_of_files_that_may_not_be_seen_any_more_is_not_whole(folder: Path) -> None:
    made = folder.parent / "made"
    (made / "vae").mkdir(parents=True)
    (made / "model_index.json").write_text("{}")
    (made / "vae" / "file.safetensors").symlink_to(folder / WEIGHTS[3])
    assert is_whole(made)

    with without_permission(folder):
        assert not is_whole(made)
