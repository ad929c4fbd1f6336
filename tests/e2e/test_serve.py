"""The real server process: pictures over both APIs with curl, keys, crashes, and stopping."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from tests.e2e.pictures import open_picture
from tests.e2e.processes import Server, run_safelight, running_server, start_server
from tests.warm import cold


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """As users start it: see `tests.warm`."""
    with ExitStack() as stack:
        with cold():
            server = stack.enter_context(running_server())
        yield server


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Poll a condition that the outside world will make true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_banner_says_what_is_served_where_and_a_curl_line_that_works(server: Server, tmp_path: Path) -> None:
    curl = next(line.strip() for line in server.output if line.strip().startswith("curl "))
    subprocess.run(curl, shell=True, check=True, cwd=tmp_path, capture_output=True, timeout=60)

    assert "sprite" in server.text
    assert "no key" in server.text
    assert re.search(r"plan: transformer \w+ in memory 0\.1 GB|plan: transformer \w+ in memory \d+ MB", server.text)
    assert open_picture(tmp_path / "astronaut.png").size == (256, 256)


def test_curl_gets_an_openai_picture(server: Server) -> None:
    body = json.dumps({"prompt": "a red apple", "size": "256x256", "seed": 1})
    command = ["curl", "-sS", f"{server.url}/v1/images/generations", "-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)

    picture = json.loads(done.stdout)["data"][0]
    assert open_picture(base64.b64decode(picture["b64_json"])).size == (256, 256)


def test_both_apis_make_the_same_picture_of_the_same_request(server: Server) -> None:
    parameters = {"seed": 9, "num_inference_steps": 2, "width": 128, "height": 128}
    plain = httpx.post(f"{server.url}/predict", json={"inputs": "a red apple", "parameters": parameters})
    openai = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "a red apple", **parameters})

    picture = open_picture(plain.content)
    other = open_picture(base64.b64decode(openai.json()["data"][0]["b64_json"]))
    assert picture.tobytes() == other.tobytes()


def test_a_picture_made_among_others_is_the_one_made_alone(server: Server) -> None:
    def picture(seed: int, steps: int) -> bytes:
        parameters = {"seed": seed, "num_inference_steps": steps}
        answer = httpx.post(f"{server.url}/", json={"inputs": "a cat", "parameters": parameters}, timeout=60)
        return open_picture(answer.content).tobytes()

    alone = picture(seed=21, steps=4)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda index: picture(seed=21 + index, steps=4 + index), range(6)))

    assert together[0] == alone


def test_what_a_client_says_of_proxies_is_believed_neither_in_links_nor_in_the_log(server: Server) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    body = {"prompt": "a cat", "response_format": "url", "size": "128x128", "seed": 1}
    path = "/openai/deployments/sprite/images/generations"

    answer = httpx.post(f"{server.url}{path}", json=body, headers=forged, timeout=60)
    wait_until(lambda: path in server.text)

    assert answer.json()["data"][0]["url"].startswith(f"{server.url}/v1/images/files/")
    assert "203.0.113.9" not in server.text
    assert httpx.get(answer.json()["data"][0]["url"]).content.startswith(b"\x89PNG")


def test_a_killed_replica_comes_back(server: Server) -> None:
    (replica,) = psutil.Process(server.process.pid).children()
    replica.kill()

    wait_until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503)
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    wait_until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200)
    answer = httpx.post(f"{server.url}/", json={"inputs": "a cat"}, timeout=60)
    assert answer.status_code == 200
    assert "safelight_replica_restarts_total 1.0" in httpx.get(f"{server.url}/metrics").text


def test_a_key_is_needed_where_one_is_set_and_is_never_printed(tmp_path: Path) -> None:
    key_file = tmp_path / "key.txt"
    key_file.write_text("a-secret-key\n")
    with running_server("--api-key-file", str(key_file), "--num-threads", "1") as server:
        body = {"inputs": "a cat"}
        refused = httpx.post(f"{server.url}/", json=body)
        wrong = httpx.post(f"{server.url}/v1/images/generations", json={}, headers={"Authorization": "Bearer nope"})
        granted = httpx.post(f"{server.url}/", json=body, headers={"Authorization": "Bearer a-secret-key"}, timeout=60)
        status = server.stop()

    assert (refused.status_code, wrong.status_code, granted.status_code) == (401, 401, 200)
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert "a-secret-key" not in server.text
    assert status == 0


def test_sigterm_lets_a_running_request_finish(cold: None, tmp_path: Path) -> None:
    with running_server("--num-threads", "1") as server, ThreadPoolExecutor(1) as pool:
        body = {"inputs": "a cat", "parameters": {"num_inference_steps": 40}}
        answer = pool.submit(httpx.post, f"{server.url}/", json=body, timeout=120)
        wait_until(lambda: steps_run(server) > 0)
        status = server.stop(timeout_s=120)

        assert answer.result().status_code == 200
        assert status == 0
        assert "Traceback" not in server.text


def steps_run(server: Server) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("safelight_transformer_calls_total"))


LONG = {"num_inference_steps": 50, "width": 384, "height": 384, "guidance_scale": 3.0}


def test_what_overruns_the_drain_gets_a_503_in_its_dialect() -> None:
    env = {"SAFELIGHT_DRAIN_TIMEOUT_S": "0.1"}
    with running_server("--num-threads", "1", env=env) as server, ThreadPoolExecutor(2) as pool:
        openai = pool.submit(
            httpx.post, f"{server.url}/v1/images/generations", json={"prompt": "a cat", "n": 10, **LONG}, timeout=120
        )
        plain = pool.submit(
            httpx.post, f"{server.url}/score", json={"inputs": "a cat", "parameters": LONG}, timeout=120
        )
        wait_until(lambda: steps_run(server) > 2)
        status = server.stop()

        assert (openai.result().status_code, plain.result().status_code) == (503, 503)
        assert set(openai.result().json()["error"]) == {"message", "type", "param", "code"}
        assert set(plain.result().json()["error"]) == {"code", "message"}
        assert "x-request-id" in plain.result().headers
        assert status == 0
    assert "Traceback" not in server.text


def test_a_body_that_never_ends_does_not_hold_up_stopping() -> None:
    with running_server("--num-threads", "1") as server, closing(connect(server)) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        status = server.stop(timeout_s=20)

        assert client.recv(65536).startswith(b"HTTP/1.1 503")
        assert status == 0
    assert "Traceback" not in server.text


@pytest.mark.parametrize("broken", ["channels", "scales"])
def test_a_model_that_can_never_load_ends_the_server_at_once(
    tiny_flux_folder: Path, tmp_path: Path, broken: str
) -> None:
    """The gateway finds out what the configs say, a replica what the heads of the weights say: it is not restarted."""
    folder = Path(shutil.copytree(tiny_flux_folder, tmp_path / "model"))
    if broken == "channels":
        config = folder / "transformer" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 96, "out_channels": 16}))
        expected = "takes 96 channels and makes 16: a model such as FLUX.1 Fill"
    else:
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        save_file(load_file(path) | {"x_embedder.scale_weight": np.ones(1, np.float32)}, path)
        expected = "is quantized with scaled fp8 (x_embedder.scale_weight), which is not read"

    done = run_safelight("serve", str(folder), "--port", "0")

    assert (done.returncode, expected in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "starting it again" not in done.stdout + done.stderr


def test_stopping_while_the_model_loads_is_no_failure() -> None:
    process = start_server()
    assert process.stdout is not None
    assert any("is loading" in line for line in process.stdout)
    process.terminate()
    rest = process.stdout.read()
    process.stdout.close()

    assert process.wait(timeout=60) == 0
    assert "error" not in rest


def test_a_second_signal_ends_the_server_at_once_without_a_traceback() -> None:
    with running_server() as server, closing(connect(server)) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping:" in server.text)
        status = server.stop(timeout_s=20)

        assert status == 0
    assert "Traceback" not in server.text


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=30)
