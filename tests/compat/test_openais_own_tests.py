"""What the `openai` client tests its image routes with, from its source, against this server in place of their mock.

Its placeholder bytes become real pictures. The mock takes anything: what here is refused in honest words are the tests
that ask for all that OpenAI has at once, transparency and the fields of GIF and SVG among it. Without these they pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.fakes import FAKE_SPEC, FakeDeployment
from tests.fetch import WHY_NOT, openai_sdist
from tests.live_server import LiveServer, live_server
from tests.unit.picture.incoming.test_uploads import encoded, left_red, with_hole

IMAGES = "tests/api_resources/test_images.py"
KEPT = ("tests/__init__.py", "tests/utils.py", "tests/api_resources/__init__.py", IMAGES)
NOT_MADE = re.compile(
    r"^ +(?:frame_count|frame_duration_ms|markup)=.*\n|^ +svg=\{\n(?: {16}.*\n)*? {12}\},\n", re.MULTILINE
)
"""The fields of `output_format` gif and svg, and of edits by a sketch."""
CONFTEST = """
import os

import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAI

WHERE = {"base_url": os.environ["TEST_API_BASE_URL"], "api_key": "My API Key", "max_retries": 0}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def client(request):
    with OpenAI(**WHERE, _strict_response_validation=request.param) as client:
        yield client


@pytest.fixture
async def async_client(request):
    is_aiohttp = isinstance(request.param, dict)
    options = {"http_client": DefaultAioHttpClient()} if is_aiohttp else {}
    strict = True if is_aiohttp else request.param
    async with AsyncOpenAI(**WHERE, **options, _strict_response_validation=strict) as client:
        yield client
"""
"""As theirs, without the plugins that their other tests need."""


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    spec = replace(FAKE_SPEC, max_size=1024, max_pixels=1024 * 1024)
    with live_server(FakeDeployment(spec=spec), model_aliases=("*=fake",)) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Their tests, unpacked."""
    if not openai_sdist().exists():
        why = WHY_NOT.read_text(encoding="utf-8") if WHY_NOT.exists() else "it has not been fetched"
        pytest.fail(
            f"no source of the openai client: {why}\nRun `make fetch` where the Python registry can be reached.", False
        )
    with tarfile.open(openai_sdist()) as archive:
        root = f"{openai_sdist().name.removesuffix('.tar.gz')}/"
        for name in KEPT:
            source = archive.extractfile(root + name)
            assert source is not None
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(source.read())
    (tmp_path / "tests/conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    (tmp_path / "image.png").write_bytes(encoded(left_red()))
    (tmp_path / "mask.png").write_bytes(encoded(with_hole()))
    return tmp_path


def run(folder: Path, server: LiveServer, *, only_made: bool, tests: Sequence[str] = (IMAGES,)) -> dict[str, str]:
    """Each test's failure in the words of its last line, empty if it passed; by what runs it alone."""
    source = (folder / IMAGES).read_text()
    for field, file in (("image", "image.png"), ("mask", "mask.png"), ("markup", "mask.png")):
        source = source.replace(f'{field}=b"Example data"', f'{field}=open("{file}", "rb").read()')
    assert 'b"Example data"' not in source
    if only_made:
        source = NOT_MADE.sub("", source).replace('background="transparent"', 'background="opaque"')
    (folder / IMAGES).write_text(source)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SAFELIGHT_"))}
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--durations=8",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:schemathesis",
            "--junitxml=report.xml",
            *tests,
        ],
        cwd=folder,
        env=env | {"TEST_API_BASE_URL": f"{server.url}/v1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (folder / "report.xml").exists(), outcome.stdout + outcome.stderr
    cases = ElementTree.parse(folder / "report.xml").iter("testcase")
    return {
        f"{IMAGES}::{str(each.get('classname')).rpartition('.')[2]}::{each.get('name')}": _failure(each)
        for each in cases
    }


def _failure(case: ElementTree.Element) -> str:
    return " ".join(each.get("message", "") for each in case if each.tag in ("failure", "error", "skipped"))


def test_all_pass_but_those_that_ask_for_what_is_not_made_and_these_pass_without_it(
    folder: Path, server: LiveServer
) -> None:
    outcomes = run(folder, server, only_made=False)

    refused = {name: words for name, words in outcomes.items() if words}
    assert len(outcomes) == 100
    assert {name.rpartition("::")[2].partition("[")[0] for name in refused} == {
        f"test_method_{each}_with_all_params_overload_{number}" for each in ("edit", "generate") for number in (1, 2)
    }
    assert len(refused) == 20
    assert all("Error code: 400" in words for words in refused.values()), refused
    assert run(folder, server, only_made=True, tests=list(refused)) == dict.fromkeys(refused, "")
