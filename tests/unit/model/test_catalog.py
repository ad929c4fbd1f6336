from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from safelight.control.endpoints.registered_models import list_registered_models, register_model
from safelight.control.store.database import Database
from safelight.errors import Conflict, InvalidRequest, ModelLoadError, ModelNotFound
from safelight.model.catalog import FLUX_SCHNELL, find_model
from safelight.model.checkpoint import read_model_spec
from tests.checkpoint_files import write_checkpoint

ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(
    "reference",
    [
        "azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/versions/1",
        "azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/labels/latest",
        "azureml:black-forest-labs-flux.1-schnell:1",
        "azureml:black-forest-labs-flux.1-schnell@latest",
        "azureml:black-forest-labs-flux.1-schnell",
        "azureml://registries/huggingface/models/Black_Forest_Labs-FLUX.1-schnell/labels/latest",
        "black-forest-labs/FLUX.1-schnell",
        "black-forest-labs-flux.1-schnell",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/models/"
        "black-forest-labs-flux.1-schnell/versions/1",
    ],
)
def test_every_form_of_reference_finds_flux(reference: str) -> None:
    assert find_model(reference).spec is FLUX_SCHNELL


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/versions/9", "has version 1"),
        ("azureml://registries/HuggingFace/models/nothing/versions/1", "model create"),
        ("azureml://registries/Other/models/sprite/versions/1", "model create"),
        ("azureml:sprite@best", "label"),
    ],
)
def test_a_reference_to_nothing_says_what_there_is(reference: str, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message):
        find_model(reference)


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user/flux", "a\0b", "/" + "x" * 5000])
def test_a_name_that_is_no_path_is_no_model(name: str) -> None:
    with pytest.raises(ModelNotFound, match="no model"):
        find_model(name)


@pytest.mark.parametrize("folder", ["acme/tiny", "black-forest-labs/FLUX.1-schnell"])
def test_a_folder_that_is_there_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / folder)

    model = find_model(folder)

    assert (model.hub_id, model.folder) == (None, tmp_path / folder)


def test_a_name_of_the_catalogue_is_that_model_though_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "sprite")

    assert find_model("sprite").registry == "Safelight"
    assert find_model("./sprite").folder == tmp_path / "sprite"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("models/flux1-Q4.gguf", b"GGUF\3\0\0\0", "cannot be read: its head is not whole"),
        ("models/renamed.model", b"GGUF\3\0\0\0" + bytes(16), "is one file of weights; make a model of it"),
        ("models/flux1.safetensors", save({"double_blocks.0.img_mod.lin.weight": ONES}), "is one file of weights"),
        ("models/flux1", save({"double_blocks.0.img_mod.lin.weight": ONES}), "is one file of weights"),
        ("models/film.safetensors", save({"lora_unet_x.lora_down.weight": ONES}), "is a LoRA: serve the model"),
        ("models/flux1.ckpt", b"PK", "is a pickle, which can run code when it is read"),
        ("models/model_index.json", b"{}", "is a file; Safelight reads folders"),
        ("notes", b"", "is a file; Safelight reads folders"),
    ],
)
def test_a_file_is_never_a_hub_id_and_is_refused_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / name).write_bytes(content)

    for reference in (name, f"./{name}", str(tmp_path / name)):
        with pytest.raises(ModelNotFound, match=f"{tmp_path / name} {expected}"):
            find_model(reference)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ModelNotFound, match="is neither a file nor a folder"):
        find_model(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    "name",
    [
        "models/x.gguf",
        "models/x.safetensors",
        "models/x.SAFETENSORS",
        "models/x.gguf@main",
        "./acme/tiny",
        "../acme/tiny",
        "~/acme",
        "/acme/tiny",
        "models\\tiny",
        ".hidden/tiny",
    ],
)
def test_a_name_that_looks_like_a_path_is_never_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelNotFound, match="there is no such file or folder"):
        find_model(name)
    with database.transaction() as session, pytest.raises(InvalidRequest, match="is neither a folder"):
        register_model(session, name="mine", path=name)


def cache_root(folder: Path, *commits: str, main: str | None) -> Path:
    for commit in commits:
        write_checkpoint(folder / "snapshots" / commit)
    if main is not None:
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(main)
    return folder


@pytest.mark.parametrize(
    ("commits", "main", "found"),
    [(("a", "b"), "a", "a"), (("a", "b"), "b", "b"), (("a",), None, "a"), (("a",), "x", "a")],
)
def test_the_folder_of_a_model_in_the_hubs_cache_is_its_newest_snapshot(
    tmp_path: Path, database: Database, commits: tuple[str, ...], main: str | None, found: str
) -> None:
    folder = cache_root(tmp_path / "models--acme--tiny-flux", *commits, main=main)

    model = find_model(str(folder))
    with database.transaction() as session:
        registered = register_model(session, name="mine", path=str(folder))

    assert (model.name, model.folder) == ("acme-tiny-flux", folder / "snapshots" / found)
    assert registered.folder == folder / "snapshots" / found
    assert read_model_spec(folder / "snapshots" / found).name == "acme-tiny-flux"


@pytest.mark.parametrize(("commits", "main"), [(("a", "b"), None), (("a", "b"), "c"), ((), "c")])
def test_a_cache_without_its_newest_snapshot_says_which_there_are(
    tmp_path: Path, commits: tuple[str, ...], main: str | None
) -> None:
    folder = cache_root(tmp_path / "models--acme--tiny-flux", *commits, main=main)
    (folder / "snapshots").mkdir(exist_ok=True)

    with pytest.raises(ModelLoadError, match=rf"give the folder of one of {', '.join(commits) or 'none'}, such as"):
        find_model(str(folder))


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"])
def test_a_hub_id_may_name_its_revision(revision: str) -> None:
    model = find_model(f"org/name@{revision}")

    assert (model.hub_id, model.revision, model.uri) == ("org/name", revision, f"org/name@{revision}")
    assert find_model(f"black-forest-labs/FLUX.1-schnell@{revision}").spec is FLUX_SCHNELL


@pytest.mark.parametrize("reference", ["org/name@", "org/name@../../x", "org/name@a b", "org/na@me@x", "org/name@/x"])
def test_what_cannot_be_a_revision_is_no_model(reference: str) -> None:
    with pytest.raises(ModelNotFound, match="@REVISION"):
        find_model(reference)


def test_a_registered_hub_id_keeps_its_revision(database: Database) -> None:
    with database.transaction() as session:
        model = register_model(session, name="mine", path="org/name@v1")

    assert (model.hub_id, model.revision, model.uri) == ("org/name", "v1", "azureml:mine:1")


def test_a_registered_folder_is_found_by_name_version_and_label(database: Database, model_folder: Path) -> None:
    with database.transaction() as session:
        register_model(session, name="mine", path=str(model_folder))
        second = register_model(session, name="mine", path=str(model_folder))
        registered = list_registered_models(session)

    assert second.version == "2"
    assert find_model("azureml:mine:1", registered).version == "1"
    assert find_model("azureml:mine@latest", registered).version == "2"
    assert find_model("mine", registered).folder == model_folder.resolve()


def test_underscores_of_a_registered_name_are_kept(database: Database, model_folder: Path) -> None:
    with database.transaction() as session:
        register_model(session, name="my_model", path=str(model_folder))
        register_model(session, name="my-model", path=str(model_folder))
        registered = list_registered_models(session)

    assert find_model("azureml:my_model:1", registered).name == "my_model"
    assert find_model("azureml:my-model:1", registered).name == "my-model"


def test_what_is_known_of_a_hub_id_holds_under_the_name_of_a_registered_model(database: Database) -> None:
    with database.transaction() as session:
        model = register_model(session, name="mine", path="black-forest-labs/FLUX.1-schnell")

    assert (model.name, model.uri, model.is_gated) == ("mine", "azureml:mine:1", True)
    assert model.spec is FLUX_SCHNELL


def test_a_registered_version_never_changes(database: Database) -> None:
    with database.transaction() as session:
        register_model(session, name="mine", path="org/name", version="3")

        with pytest.raises(Conflict, match="never change"):
            register_model(session, name="mine", path="org/other", version="3")


@pytest.mark.parametrize(
    ("name", "path"), [("Mine", "org/name"), ("mine", "/no/such/folder"), ("mine", "/a" * 500_000)]
)
def test_a_model_that_makes_no_sense_is_not_registered(database: Database, name: str, path: str) -> None:
    with database.transaction() as session, pytest.raises(InvalidRequest):
        register_model(session, name=name, path=path)


def test_a_folder_that_no_library_can_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"fl\xffux")
    folder.mkdir()

    with pytest.raises(ModelNotFound, match="has bytes in its name that are no UTF-8; rename it"):
        find_model(str(folder))
