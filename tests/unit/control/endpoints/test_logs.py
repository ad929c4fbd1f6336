from __future__ import annotations

from pathlib import Path

from safelight.control.endpoints.logs import MAX_TAIL, DeploymentLogs


def test_a_line_that_a_full_disk_has_cut_off_hides_no_other_one(tmp_path: Path) -> None:
    log = DeploymentLogs(tmp_path).of("flux", "blue")
    log.write("Downloading …")
    path = tmp_path / "flux" / "blue" / "InferenceServer.log"
    path.write_bytes(path.read_bytes()[:-2])
    log.write("ready")

    read = log.read(tail=MAX_TAIL)

    assert "Downloading" in read
    assert read.endswith("ready\n")


def test_a_folder_whose_name_is_no_text_can_be_told_of(tmp_path: Path) -> None:
    log = DeploymentLogs(tmp_path).of("flux", "blue")

    log.write("fetched to /models/\udcff")

    assert log.read().endswith("fetched to /models/\\udcff\n")
