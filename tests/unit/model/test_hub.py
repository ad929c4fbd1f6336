"""Downloads against a hub on loopback, in each state of its gate, as a user of the command line sees them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.checkpoint_files import CONFIGS, WEIGHTS, write_checkpoint, write_json
from tests.fake_hub import GOOD_TOKEN, REPO_ID, SHA, FakeHub, Gate, fake_hub

DOWNLOAD = """
import sys
from safelight import errors
from safelight.model import hub
try:
    print(hub.download_model(sys.argv[1], revision=sys.argv[2] or None))
except errors.SafelightError as error:
    print(error.message)
    sys.exit(1)
"""


GIVEN_TOKEN = """
import sys
from safelight import errors
from safelight.model import hub
try:
    print(hub.download_model(sys.argv[1], token=sys.stdin.read()))
except errors.DownloadError as error:
    print(error.message)
    sys.exit(1)
"""
REPORTED_DOWNLOAD = """
import sys
from safelight.model import hub
hub.download_model(sys.argv[1], report=print)
"""
FIND_CACHED = """
import sys
from safelight.model import hub
print(hub.find_cached(sys.argv[1], revision=sys.argv[2]))
"""
OWN_DISK = ("unshare", "--user", "--map-root-user", "--mount")
COMMAND_LINE = """
import sys
sys.stderr = sys.stdout
from safelight.cli.download import download
download(sys.argv[1], sys.argv[2] or None)
"""
MAY_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run([*OWN_DISK, "true"], capture_output=True, check=False).returncode == 0
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def download(
    hub: FakeHub,
    cache: Path,
    *,
    token: str | None = None,
    repo: str = REPO_ID,
    revision: str = "",
    offline: bool = False,
    script: str = DOWNLOAD,
    prefix: Sequence[str] = (),
    input: str = "",
) -> tuple[int, str]:
    """Exit status and output of a download in a process of its own (huggingface_hub reads HF_ENDPOINT at import)."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(cache),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [*prefix, sys.executable, "-c", script, repo, revision]
    done = subprocess.run(
        command, env=environment, input=input, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.returncode, done.stdout.strip()


def add_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")


def test_an_accepted_token_downloads_only_the_files_the_engine_needs(folder: Path, tmp_path: Path) -> None:
    """Beside them lies all that repositories of FLUX.1 have been seen to hold."""
    add_files(folder, "README.md", "flux1-schnell.safetensors", "ae.safetensors", "flux1-schnell-Q4_K_S.gguf")
    for component, weights in (path.split("/") for path in WEIGHTS):
        stem = weights.removesuffix(".safetensors")
        add_files(folder, *(f"{component}/{stem}.{infix}" for infix in ("bin", "fp16.safetensors", "fp16.bin")))
        add_files(folder, *(f"{component}/{name}" for name in ("model.onnx", "model.onnx_data", "flax_model.msgpack")))
        add_files(folder, f"{component}/another.safetensors", f"{component}/sub/{weights}", f"controlnet/{weights}")
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert status == 0, output
    assert (Path(output) / "transformer/config.json").read_text() == (folder / "transformer/config.json").read_text()
    assert sorted(hub.downloads) == sorted([*CONFIGS, *WEIGHTS])


@pytest.mark.parametrize(
    ("infixes", "chosen"),
    [
        (["", ".bf16", ".fp16"], ""),
        ([".bf16", ".fp16"], ".bf16"),
        ([".fp16", ".fp8"], ".fp16"),
        ([".fp32", ".non_ema"], ".fp32"),
    ],
)
def test_one_variant_is_chosen_before_the_download(
    folder: Path, tmp_path: Path, infixes: list[str], chosen: str
) -> None:
    for path in WEIGHTS:
        (folder / path).unlink()
        add_files(folder, *(path.replace(".safetensors", f"{infix}.safetensors") for infix in infixes))
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
        hub.downloads, first = [], hub.downloads
        again = download(hub, tmp_path / "cache", offline=True)

    assert (status, again) == (0, (0, output))
    weights = [path.replace(".safetensors", f"{chosen}.safetensors") for path in WEIGHTS]
    assert sorted(first) == sorted([*CONFIGS, *weights])


@pytest.mark.parametrize("variant", ["", ".bf16"])
def test_of_a_variant_in_shards_its_index_and_what_that_lists_come_down(
    folder: Path, tmp_path: Path, variant: str
) -> None:
    (folder / WEIGHTS[2]).unlink()
    stem = WEIGHTS[2].removesuffix(".safetensors")
    for infix in {variant, ".fp16"}:
        shards = [f"{stem}{infix}-0000{number}-of-00002.safetensors" for number in (1, 2)]
        add_files(folder, *shards)
        index = {"weight_map": {f"weight {number}": Path(shard).name for number, shard in enumerate(shards)}}
        write_json(folder / f"{stem}.safetensors.index{infix}.json", index)
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert status == 0, output
    names = {Path(name).name for name in hub.downloads if name.startswith("transformer/")} - {"config.json"}
    start = Path(stem).name
    assert names == {
        f"{start}.safetensors.index{variant}.json",
        f"{start}{variant}-00001-of-00002.safetensors",
        f"{start}{variant}-00002-of-00002.safetensors",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_index.json": {"_class_name": "Flux2KleinPipeline"}}, "acme/tiny-flux holds a Flux2KleinPipeline"),
        ({"model_index.json": {"_class_name": "FluxKontextPipeline"}}, "acme/tiny-flux holds a FluxKontextPipeline"),
        (
            {"model_index.json": {"controlnet": ["diffusers", "FluxControlNetModel"]}},
            "controlnet (FluxControlNetModel)",
        ),
        (
            {"transformer/config.json": {"in_channels": 384, "out_channels": 64}},
            "acme/tiny-flux/transformer/config.json takes 384 channels and makes 64",
        ),
        (
            {"text_encoder_2/config.json": {"quantization_config": {"quant_method": "bitsandbytes"}}},
            "acme/tiny-flux/text_encoder_2 is quantized with bitsandbytes",
        ),
        ({"transformer/quanto_qmap.json": {}}, "transformer is quantized with quanto"),
    ],
)
def test_what_is_not_served_is_refused_before_its_weights_come_down(
    folder: Path, tmp_path: Path, changes: dict[str, dict[str, object]], expected: str
) -> None:
    write_checkpoint(folder, changes)
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, expected in output) == (1, True), output
    assert not [name for name in hub.downloads if name.endswith(".safetensors")]


@pytest.mark.parametrize("file", ["model-Q4.gguf", "model.fp8.safetensors"])
def test_the_only_file_of_a_component_is_downloaded_whatever_it_is_called(
    folder: Path, tmp_path: Path, file: str
) -> None:
    (folder / "text_encoder_2/model.safetensors").rename(folder / "text_encoder_2" / file)
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, (Path(output.strip()) / "text_encoder_2" / file).exists()) == (0, True), output


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            "pytorch_model.bin",
            "acme/tiny-flux/text_encoder_2 has weights only as pytorch_model.bin, which can run code",
        ),
        ("model.onnx", "acme/tiny-flux/text_encoder_2 has weights only as model.onnx, which is not read"),
        ("notes.txt", "acme/tiny-flux/text_encoder_2/model.safetensors is missing"),
    ],
)
def test_weights_in_other_formats_are_refused_before_the_download(
    folder: Path, tmp_path: Path, file: str, expected: str
) -> None:
    (folder / "text_encoder_2/model.safetensors").unlink()
    add_files(folder, f"text_encoder_2/{file}")
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, expected in output) == (1, True), output
    assert not [name for name in hub.downloads if name in WEIGHTS]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flux1-schnell-Q4_K_S.gguf", "acme/tiny-flux holds GGUF files without the rest"),
        ("pytorch_lora_weights.safetensors", "acme/tiny-flux is a LoRA"),
        ("flux1-schnell-fp8.safetensors", "holds no model_index.json, only flux1-schnell-fp8.safetensors"),
        ("README.md", "acme/tiny-flux has no model_index.json"),
    ],
)
def test_a_repository_of_another_layout_is_refused_for_what_it_is(tmp_path: Path, name: str, expected: str) -> None:
    add_files(tmp_path / "model", name)
    with fake_hub(tmp_path / "model") as hub:
        status, output = download(
            hub, tmp_path / "cache", token=GOOD_TOKEN, script=f"import sys\nsys.stderr = sys.stdout{DOWNLOAD}"
        )

    assert (status, hub.downloads) == (1, []), output
    assert expected in output
    assert len(output.splitlines()) == 1


def test_a_cached_revision_is_found_though_not_all_of_the_repository_was_downloaded(
    folder: Path, tmp_path: Path
) -> None:
    add_files(folder, "flux1-schnell.safetensors")
    with fake_hub(folder) as hub:
        _, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
    found = download(hub, tmp_path / "cache", revision=SHA, offline=True, script=FIND_CACHED)

    assert found == (0, output)


def test_a_full_cache_serves_without_a_network(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        download(hub, tmp_path / "cache", token=GOOD_TOKEN)
    status, output = download(hub, tmp_path / "cache", offline=True)

    assert status == 0, output
    assert (Path(output) / "model_index.json").exists()


@pytest.mark.parametrize(
    ("gate", "token", "expected"),
    [
        ("accepted", None, "is gated and no token was given"),
        ("accepted", "hf_wrong", "does not accept the token"),
        ("never_requested", GOOD_TOKEN, "has never requested access"),
        ("pending", GOOD_TOKEN, "awaiting a review"),
        ("rejected", GOOD_TOKEN, "was rejected"),
        ("fine_grained", GOOD_TOKEN, "fine-grained"),
    ],
)
def test_each_refusal_of_the_gate_has_its_own_remedy(
    folder: Path, tmp_path: Path, gate: Gate, token: str | None, expected: str
) -> None:
    with fake_hub(folder, gate) as hub:
        status, output = download(hub, tmp_path / "cache", token=token)

    assert status == 1
    assert expected in output
    assert "hf_" not in output


@pytest.mark.parametrize("token", ["hf_two\nlines", "hf_sécret", "hf_with space"])
def test_a_token_that_can_be_none_is_refused_without_being_repeated(folder: Path, tmp_path: Path, token: str) -> None:
    """httpx would repeat a header that it cannot send."""
    with fake_hub(folder) as hub:
        given = download(hub, tmp_path / "cache", script=GIVEN_TOKEN, input=token)
        found = download(hub, tmp_path / "cache", token=token.replace("\n", " "))

    assert given == found
    assert given[0] == 1
    assert "give the token alone" in given[1]
    assert "hf_" not in given[1]


def test_a_token_is_taken_without_the_line_break_behind_it(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", script=GIVEN_TOKEN, input=f"{GOOD_TOKEN}\n")

    assert status == 0, output


def test_an_unknown_repository_is_named(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, repo="acme/nothing")

    assert (status, "acme/nothing is not on" in output) == (1, True), output


def test_an_unknown_revision_is_named(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, revision="v9")

    assert (status, "has no revision 'v9'" in output) == (1, True), output


def test_no_network_and_no_cache_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        pass
    status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert status == 1
    assert "cannot be reached" in output


def test_a_connection_that_breaks_off_says_that_the_download_can_go_on(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        hub.breaks_off = True
        broken, said = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
        hub.breaks_off = False
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (broken, status) == (1, 0), output
    assert "broke off" in said
    assert "files that have arrived are kept" in said


def test_a_disk_that_is_too_small_is_found_out_before_the_download(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        hub.claimed_sizes["transformer/diffusion_pytorch_model.safetensors"] = 10**18
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, set(hub.downloads)) == (1, {*CONFIGS}), output
    assert re.search(rf"the disk of {tmp_path}/cache/hub .* needs 1\.0 EB more, and [\d.]+ [kMGT]B are free", output)
    assert "HF_HUB_CACHE" in output


def test_only_the_missing_files_must_fit_on_the_disk(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        _, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
        lost = Path(output) / "transformer/config.json"
        lost.resolve().unlink()
        lost.unlink()
        hub.downloads.clear()
        hub.claimed_sizes["transformer/diffusion_pytorch_model.safetensors"] = 10**18
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, hub.downloads) == (0, ["transformer/config.json"]), output


@pytest.mark.skipif(not MAY_MOUNT, reason="this machine lets no test mount a disk of its own")
def test_a_disk_that_fills_up_on_the_way_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "transformer/diffusion_pytorch_model.safetensors").write_bytes(b"x" * 3_000_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount_and_run = f'mount -t tmpfs -o size=1m tmpfs {disk} && exec "$0" "$@"'
    with fake_hub(folder, "open") as hub:
        hub.claimed_sizes["transformer/diffusion_pytorch_model.safetensors"] = 1000
        status, output = download(hub, disk, prefix=[*OWN_DISK, "sh", "-c", mount_and_run])

    assert status == 1
    assert output.startswith(f"the disk of {disk}/hub is full before all of acme/tiny-flux has arrived"), output
    assert "HF_HUB_CACHE" in output


def test_a_report_tells_the_bytes_from_what_the_cache_has_to_all_of_them(folder: Path, tmp_path: Path) -> None:
    configs = sum((folder / name).stat().st_size for name in CONFIGS)
    total = configs + sum((folder / name).stat().st_size for name in WEIGHTS)
    with fake_hub(folder) as hub:
        _, first = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=REPORTED_DOWNLOAD)
        _, again = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=REPORTED_DOWNLOAD)

    reports = [tuple(map(int, line.split())) for line in first.splitlines()]
    assert (reports[0], reports[-1]) == ((configs, total), (total, total))
    assert reports == sorted(reports)
    assert again == ""


def test_the_command_line_says_in_a_few_lines_how_far_it_is_where_there_is_no_terminal(
    folder: Path, tmp_path: Path
) -> None:
    with fake_hub(folder) as hub:
        _, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=COMMAND_LINE)

    first, *lines = output.splitlines()
    assert first.startswith("Fetching acme/tiny-flux"), output
    assert re.fullmatch(r"Downloading acme/tiny-flux: [\d.]+ of [\d.]+ (kB|bytes) \(\d+%\)", lines[0])
    assert re.fullmatch(r"Downloading acme/tiny-flux: ([\d.]+) of \1 (kB|bytes) \(100%\)", lines[-1])
    assert len(lines) == 2, output
