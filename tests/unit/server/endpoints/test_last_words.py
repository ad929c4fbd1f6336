from __future__ import annotations

from pathlib import Path

from safelight.control.endpoints.deployments import AppliedDeployment, DeploymentSpec
from safelight.server.endpoints.last_words import HIDDEN, MAX_LINE_CHARACTERS, MAX_LINES, known_secrets, last_lines

REFERENCE = "${{azureml://connections/c/credentials/PIN}}"


def test_only_the_last_lines_are_shown_and_none_is_long() -> None:
    lines = last_lines("\n".join(f"{number} " + "x" * 1000 for number in range(100)), ())

    assert len(lines) == MAX_LINES
    assert lines[-1].startswith("99 ")
    assert all(len(line) == MAX_LINE_CHARACTERS for line in lines)


def test_a_terminal_is_not_told_to_do_anything() -> None:
    assert last_lines("a\x1b[2Jb\rc\n\n", ()) == ["a\\x1b[2Jb", "c"]


def test_what_a_deployment_and_its_server_keep_secret_is_hidden() -> None:
    deployment = AppliedDeployment(
        endpoint_name="flux",
        name="blue",
        spec=DeploymentSpec(
            model="tiny", environment_variables={"PIN": REFERENCE, "HF_TOKEN": "hf_1", "PLAIN": "seen"}
        ),
        folder=Path("/models/tiny"),
        environment={"PIN": "1234", "HF_TOKEN": "hf_1", "PLAIN": "seen", "ADDED": "first line\nsecond line"},
    )
    server = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "MONKEY": "1", "HOME": "/home/me"}

    secrets = known_secrets(deployment, server)

    said = "1234 hf_1 seen wJalrXUtnFEMI /home/me 1\nfirst line\n>>second line<<"
    assert last_lines(said, secrets) == [f"{HIDDEN} {HIDDEN} seen {HIDDEN} /home/me 1", HIDDEN, f">>{HIDDEN}<<"]
