"""Pictures behind links that end."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from safelight.errors import ConfigurationError, ResourceNotFound, StorageUnavailable
from safelight.picture.links import LIFETIME_S, ImageStore, open_image_store
from safelight.settings import Settings
from tests.full_disk import no_file_grows


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> ImageStore:
    return ImageStore(str(tmp_path / "images"), tmp_path / "key", clock=clock)


def keep(store: ImageStore, content: bytes = b"picture") -> tuple[str, str]:
    name, _, signature = store.keep(content, "png").partition("?signature=")
    return name, signature


def test_a_picture_is_read_by_its_link(store: ImageStore) -> None:
    assert store.read(*keep(store)) == (b"picture", "png")


def test_another_server_over_the_same_directory_reads_it_too(store: ImageStore, tmp_path: Path, clock: Clock) -> None:
    link = keep(store)

    assert ImageStore(str(tmp_path / "images"), tmp_path / "key", clock=clock).read(*link)[0] == b"picture"


def test_no_two_links_are_alike(store: ImageStore) -> None:
    assert len({keep(store) for _ in range(20)}) == 20


def test_a_link_ends_after_an_hour(store: ImageStore, clock: Clock) -> None:
    link = keep(store)
    clock.now += LIFETIME_S - 1
    store.read(*link)
    clock.now += 1

    with pytest.raises(ResourceNotFound, match="60 minutes"):
        store.read(*link)


def test_a_link_that_was_changed_leads_nowhere(store: ImageStore, clock: Clock) -> None:
    name, signature = keep(store)
    later = str(int(name[:10]) + LIFETIME_S) + name[10:]
    other = keep(store)[1]

    for wrong in ((later, signature), (name, other), (name, ""), (name, "é"), ("../key", signature), ("", "")):
        with pytest.raises(ResourceNotFound):
            store.read(*wrong)


def test_wrong_links_leave_nothing_behind_in_memory(store: ImageStore) -> None:
    name, _ = keep(store)
    refusals = []
    for _ in range(3):
        with pytest.raises(ResourceNotFound) as refusal:
            store.read(name, "wrong")
        refusals.append(len(refusal.traceback))

    assert len(set(refusals)) == 1


def test_cleaning_up_removes_what_has_ended_and_nothing_else(store: ImageStore, tmp_path: Path, clock: Clock) -> None:
    keep(store)
    (tmp_path / "images" / f".{keep(store)[0]}.partial").write_bytes(b"half")
    (tmp_path / "images" / "mine.png").write_bytes(b"")
    clock.now += LIFETIME_S
    link = keep(store)

    assert store.clean_up() == 3
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted([link[0], "mine.png"])


def test_nothing_is_there_to_clean_up_before_the_first_picture(store: ImageStore, tmp_path: Path) -> None:
    assert store.clean_up() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_pictures_are_for_their_owner_alone(store: ImageStore, tmp_path: Path) -> None:
    keep(store)

    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700


def test_the_key_is_for_its_owner_alone(store: ImageStore, tmp_path: Path) -> None:
    keep(store)

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_picture_that_finds_no_room_is_an_error_with_the_remedy_and_leaves_nothing(
    store: ImageStore, tmp_path: Path
) -> None:
    keep(store)
    kept = sorted(tmp_path.rglob("*"))

    with no_file_grows(), pytest.raises(StorageUnavailable, match=r"the store of pictures.*limit.*b64_json"):
        store.keep(b"picture", "png")
    assert sorted(tmp_path.rglob("*")) == kept


def test_the_first_picture_that_finds_no_room_leaves_no_half_key(store: ImageStore, tmp_path: Path) -> None:
    with no_file_grows(), pytest.raises(StorageUnavailable):
        store.keep(b"picture", "png")

    assert list(tmp_path.rglob("*")) == []
    assert store.read(*keep(store))[0] == b"picture"


def test_a_link_is_looked_up_without_making_a_key(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ResourceNotFound):
        store.read(f"1999999999-{'a' * 32}.png", "b")

    assert list(tmp_path.iterdir()) == []


def test_the_store_may_be_anywhere_that_fsspec_reaches(tmp_path: Path) -> None:
    store = open_image_store(Settings(image_store_url="memory://pictures", data_dir=tmp_path))

    assert store.read(*keep(store))[0] == b"picture"
    assert store.clean_up() == 0


def test_a_store_that_nothing_reaches_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="image_store_url nowhere://x cannot be used"):
        open_image_store(Settings(image_store_url="nowhere://x", data_dir=tmp_path))


@pytest.mark.parametrize("url", ["nowhere://me:s3cret@x", "nowhere://x?password=s3cret"])
def test_a_secret_in_the_url_of_a_store_is_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"image_store_url nowhere://… cannot be used") as refusal:
        open_image_store(Settings(image_store_url=url, data_dir=tmp_path))

    assert "s3cret" not in refusal.value.message
