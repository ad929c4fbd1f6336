"""`safelight generate --from`: what is in the folder afterwards, whatever happened on the way."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safelight.picture.files import encode
from tests.e2e.pictures import open_picture
from tests.e2e.processes import SAFELIGHT, START_TIMEOUT_S, environment, run_safelight
from tests.fakes import FakeDeployment
from tests.live_server import live_server
from tests.odd_server import answering
from tests.waiting import eventually

SMALL = ("--width", "128", "--height", "128")


def test_a_file_of_prompts_becomes_a_folder_of_pictures_and_a_manifest(tmp_path: Path) -> None:
    batch_line = {"custom_id": "x", "method": "POST", "url": "/v1/images/generations"}
    _write_lines(
        tmp_path / "prompts.jsonl",
        {"prompt": "a dog", "seed": 5, "n": 2, "steps": 2, "format": "webp", "quality": 50},
        {**batch_line, "body": {"model": "sprite", "prompt": "a fox", "size": "192x128", "seed": 6}},
    )
    run_safelight("generate", "a dog", "-o", "alone.webp", "--seed", "6", "--steps", "2", *SMALL, cwd=tmp_path)

    done = run_safelight("generate", "--from", "prompts.jsonl", "--out", "made", *SMALL, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert _names(tmp_path / "made") == ["000001-0.webp", "000001-1.webp", "000002.png", "manifest.jsonl"]
    assert open_picture(tmp_path / "made" / "000002.png").size == (192, 128)
    assert open_picture(tmp_path / "made" / "000001-1.webp").size == open_picture(tmp_path / "alone.webp").size
    first, second = _manifest(tmp_path / "made")
    assert (first["line"], first["prompt"], first["seed"]) == (1, "a dog", 5)
    assert (first["model"], first["parameters"]["num_inference_steps"]) == ("sprite", 2)
    assert (second["custom_id"], second["files"]) == ("x", ["000002.png"])


def test_a_picture_of_a_file_is_the_picture_made_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n\na fox next to a car\na red apple\n")
    run_safelight("generate", "a fox next to a car", "-o", "alone.png", "--seed", "7", cwd=tmp_path)

    done = run_safelight("generate", "--from", "prompts.txt", "--out", "made", "--seed", "7", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [entry["line"] for entry in _manifest(tmp_path / "made")] == [1, 3, 4]
    assert _pixels(tmp_path / "made" / "000003.png") == _pixels(tmp_path / "alone.png")


def test_a_line_that_makes_no_sense_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "a dog"}',
        b"a dog",
        b'{"prompt": "\xff"}',
        b'{"prompt": "a dog", "stepz": 3}',
        b'{"seed": 1}',
    ]
    lines += [b'{"prompt": "a dog", "width": 250}', b'{"prompt": "a dog", "stream": true}', b"[" * 100_000]
    (tmp_path / "prompts.jsonl").write_bytes(b"\n".join(lines))

    done = run_safelight("generate", "--from", "prompts.jsonl", "--out", "made", *SMALL, cwd=tmp_path)

    assert done.returncode == 1
    assert "7 of 8 lines failed" in done.stderr
    for expected in ("line 2: the line is not JSON", "line 3: the line is not UTF-8", "line 5: prompt is missing"):
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
    errors = {entry["line"]: entry["error"] for entry in _manifest(tmp_path / "made") if "error" in entry}
    assert sorted(errors) == [2, 3, 4, 5, 6, 7, 8]
    assert (errors[6]["field"], errors[7]["field"]) == ("width", "stream")
    assert "the nearest is 256" in errors[6]["message"]
    assert _names(tmp_path / "made") == ["000001.png", "manifest.jsonl"]


def test_only_what_is_missing_or_has_changed_is_made_with_overwrite(tmp_path: Path) -> None:
    prompts, made = tmp_path / "prompts.jsonl", tmp_path / "made"
    _write_lines(
        prompts, {"prompt": "a dog"}, {"prompt": "a fox"}, {"prompt": "a hat", "steps": 0}, {"prompt": "a car"}
    )
    command = ("generate", "--from", "prompts.jsonl", "--out", "made", *SMALL)
    run_safelight(*command, cwd=tmp_path)
    before = {name: (made / name).read_bytes() for name in ("000001.png", "000002.png", "000004.png")}
    (made / "000004.png").unlink()
    (made / ".000004.png.partial").write_bytes(b"half")
    with (made / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"line": 4, "prom')
    _write_lines(prompts, {"prompt": "a dog"}, {"prompt": "a cat"}, {"prompt": "a hat"}, {"prompt": "a car"})

    refused = run_safelight(*command, cwd=tmp_path)
    kept = {name: (made / name).read_bytes() for name in ("000001.png", "000002.png")}
    done = run_safelight(*command, "--overwrite", cwd=tmp_path)

    assert refused.returncode == 1
    assert "line 2 has changed since made/000002.png was made" in refused.stderr
    assert kept == {name: before[name] for name in kept}
    assert done.returncode == 0, done.stderr
    assert "1 of 4 lines are made already" in done.stderr
    assert (made / "000001.png").read_bytes() == before["000001.png"]
    assert (made / "000002.png").read_bytes() != before["000002.png"]
    assert _names(made) == ["000001.png", "000002.png", "000003.png", "000004.png", "manifest.jsonl"]
    assert [entry["prompt"] for entry in _manifest(made)] == ["a dog", "a cat", "a hat", "a car"]


def test_a_file_that_the_manifest_does_not_know_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "000002.png").write_bytes(b"a stranger's")
    with live_server() as server:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", server.url)
        refused = run_safelight(*command, cwd=tmp_path)
        names, content = _names(tmp_path / "made"), (tmp_path / "made" / "000002.png").read_bytes()
        done = run_safelight(*command, "--overwrite", cwd=tmp_path)

    assert refused.returncode == 1
    assert "made/000002.png is in the way of line 2" in refused.stderr
    assert (names, content) == (["000002.png", "manifest.jsonl"], b"a stranger's")
    assert done.returncode == 0, done.stderr
    assert open_picture(tmp_path / "made" / "000002.png").size == (64, 64)


def test_new_prompts_at_the_end_are_made_and_at_the_top_refused(tmp_path: Path) -> None:
    prompts, made = tmp_path / "prompts.txt", tmp_path / "made"
    prompts.write_text("one\n")
    with live_server() as server:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", server.url)
        run_safelight(*command, cwd=tmp_path)
        before = (made / "000001.png").read_bytes()
        prompts.write_text("one\ntwo\n")
        at_the_end = run_safelight(*command, cwd=tmp_path)
        prompts.write_text("zero\none\ntwo\n")
        at_the_top = run_safelight(*command, cwd=tmp_path)

    assert at_the_end.returncode == 0, at_the_end.stderr
    assert at_the_top.returncode == 1
    assert "line 1 has changed since made/000001.png was made; give another --out" in at_the_top.stderr
    assert _names(made) == ["000001.png", "000002.png", "manifest.jsonl"]
    assert (made / "000001.png").read_bytes() == before


def test_pictures_of_another_revision_are_kept_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n")
    command = ("generate", "--from", "prompts.txt", "--out", "made", *SMALL)
    run_safelight(*command, cwd=tmp_path)
    (entry,) = _manifest(tmp_path / "made")
    _write_lines(tmp_path / "made" / "manifest.jsonl", entry | {"revision": "sha256:0123456789abcdef"})
    before = (tmp_path / "made" / "000001.png").read_bytes()
    (tmp_path / "prompts.txt").write_text("a dog\na fox\n")

    done = run_safelight(*command, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "the folder has pictures of sprite sha256:0123456789abcdef" in done.stderr
    assert f"those of this run are {entry['revision']}'s" in done.stderr
    assert (tmp_path / "made" / "000001.png").read_bytes() == before


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"a dog and {number} trees\n" for number in range(20)))
    made = tmp_path / "made"
    command = ("generate", "--from", "prompts.txt", "--out", "made", "--concurrency", "3", *SMALL)
    process = subprocess.Popen(
        [str(SAFELIGHT), *command], env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: (made / "000001.png").exists())

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=START_TIMEOUT_S)

    assert process.returncode == 130, stderr
    assert "the same command goes on from here" in stderr
    assert "Traceback" not in stderr
    kept = {entry["files"][0] for entry in _manifest(made)}
    assert 0 < len(kept) < 20
    assert _names(made) == [*sorted(kept), "manifest.jsonl"]
    before = {name: (made / name).read_bytes() for name in kept}

    done = run_safelight(*command, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(_manifest(made)) == 20
    assert {name: (made / name).read_bytes() for name in kept} == before


def test_prompts_come_from_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(SAFELIGHT), "generate", "--from", "-", "--out", "made", *SMALL],
        input=b'\n{"prompt": "a dog", "seed": 3}\n',
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=START_TIMEOUT_S,
    )

    assert done.returncode == 0, done.stderr
    assert _names(tmp_path / "made") == ["000002.png", "manifest.jsonl"]


def test_a_server_that_is_full_is_asked_again_until_all_is_made(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nFAIL_STEP\n")
    (tmp_path / "key.txt").write_text("the-key\n")
    full = FakeDeployment(max_concurrent_requests=1, max_queued_requests=0)
    with live_server(full, api_key="the-key") as server:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", f"{server.url}/v1", "--n", "2")
        done = run_safelight(*command, "--api-key-file", "key.txt", cwd=tmp_path)
        again = run_safelight(*command, env={"SAFELIGHT_API_KEY": "the-key"}, cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    assert "line 4: the model could not make this image" in done.stderr
    names = [f"00000{line}-{image}.png" for line in (1, 2, 3) for image in (0, 1)]
    assert _names(tmp_path / "made") == [*names, "manifest.jsonl"]
    entries = _manifest(tmp_path / "made")
    assert [entry.get("model") for entry in entries] == ["fake", "fake", "fake", None]
    assert json.loads(open_picture(tmp_path / "made" / names[0]).info["safelight"])["seed"] == entries[0]["seed"]
    assert "3 of 4 lines are made already" in again.stderr


def test_a_wrong_key_ends_the_run_before_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    with live_server(api_key="the-key") as server:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", server.url)
        done = run_safelight(*command, env={"SAFELIGHT_API_KEY": "a-wrong-key"}, cwd=tmp_path)

    assert done.returncode == 1
    assert "set SAFELIGHT_API_KEY" in done.stderr
    assert "the same command goes on from here" in done.stderr
    assert "a-wrong-key" not in done.stderr
    assert _manifest(tmp_path / "made") == []


def test_what_is_waited_for_is_said_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n")
    with live_server() as server:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", server.url)
        done = run_safelight(*command, env={"FORCE_COLOR": "1"}, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert f"Waiting for {server.url} ..." in done.stderr


def test_a_server_that_goes_away_in_the_middle_is_waited_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n")
    picture = base64.b64encode(encode(np.zeros((8, 8, 3), np.uint8), image_format="png")).decode()
    with answering(json.dumps({"data": [{"b64_json": picture}]}).encode(), num_dropped=2) as url:
        command = ("generate", "--from", "prompts.txt", "--out", "made", "--server", url)
        done = run_safelight(*command, env={"FORCE_COLOR": "1"}, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    said = re.findall(rf"Developing|Waiting for {re.escape(url)}(?! \.\.\.)", done.stderr)
    assert [doing for doing, _ in groupby(said)] == ["Developing", f"Waiting for {url}", "Developing"]


def test_pictures_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n")
    with live_server() as server:
        run_safelight("generate", "--from", "prompts.txt", "--out", "made", "--server", server.url, cwd=tmp_path)
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")

    done = run_safelight("generate", "--from", "prompts.txt", "--out", "made", cwd=tmp_path)

    assert done.returncode == 1
    assert "made has pictures of fake, and these would be sprite's; give another --out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "missing.jsonl", "--out", "made"], "missing.jsonl cannot be read"),
        (["--from", "prompts.txt"], "give --out FOLDER"),
        (["a dog", "--from", "prompts.txt", "--out", "made"], "no PROMPT"),
        (["a dog", "--server", "http://127.0.0.1:1"], "go with --from FILE"),
        (["--from", "prompts.txt", "--out", "/proc/made"], "/proc/made cannot be written to"),
        (["--from", "prompts.txt", "--out", "made", "--server", "127.0.0.1:1"], "is no URL of a server"),
        (["--from", "prompts.txt", "--out", "made", "--server", "http://127.0.0.1:1"], "a server that runs"),
        (["--from", "prompts.txt", "--out", "."], "manifest.jsonl is not a manifest of ours"),
        (["--from", "prompts.txt", "--out", "made", "--format", "gif"], "--format must be png, jpeg or webp"),
    ],
)
def test_a_mistake_is_answered_by_one_clear_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "prompts.txt").write_text("one\n")
    (tmp_path / "manifest.jsonl").write_text("somebody else's")

    done = run_safelight("generate", *arguments, cwd=tmp_path)

    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "manifest.jsonl").read_text() == "somebody else's"


def _write_lines(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _pixels(path: Path) -> bytes:
    return open_picture(path).tobytes()


def test_a_line_that_takes_longer_than_it_may_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n")

    done = run_safelight("generate", "--from", "prompts.txt", "--out", "out", "--timeout", "0.001", cwd=tmp_path)

    assert done.returncode == 1
    assert "timeout of 0.001 s" in done.stderr
    assert "Traceback" not in done.stderr
