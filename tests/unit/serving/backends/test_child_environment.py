from __future__ import annotations

import pytest

from safelight.library_variables import for_libraries
from safelight.serving.backends.child_environment import child_environment, share_of_cores, visible_gpus


def test_waiting_threads_sleep_and_the_thread_count_is_set() -> None:
    environment = child_environment({"PATH": "/bin", "OMP_NUM_THREADS": "64"}, num_threads=3)

    assert environment["PATH"] == "/bin"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["GOMP_SPINCOUNT"] == "0"
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"


def test_a_wait_policy_that_somebody_chose_stays() -> None:
    assert child_environment({"OMP_WAIT_POLICY": "ACTIVE"}, num_threads=1)["OMP_WAIT_POLICY"] == "ACTIVE"


def test_keys_and_tokens_stay_in_the_gateway() -> None:
    secrets = {"SAFELIGHT_API_KEY": "k", "SAFELIGHT_API_KEY_FILE": "f", "safelight_api_key": "l", "HF_TOKEN": "t"}
    secrets |= {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=t"}

    environment = child_environment(secrets, num_threads=1)

    assert not secrets.keys() & environment.keys()


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "OMP_TOOL_LIBRARIES", "SAFELIGHT_API_KEY", "HF_TOKEN", "MY_OWN"]
)
def test_a_deployment_tunes_libraries_and_sets_nothing_else(name: str) -> None:
    assert for_libraries({name: "x", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}) == {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"
    }


def test_each_replica_sees_one_of_several_gpus() -> None:
    seen = [
        child_environment({}, num_threads=1, replica_index=index, gpus=["0", "1"])["CUDA_VISIBLE_DEVICES"]
        for index in range(3)
    ]

    assert seen == ["0", "1", "0"]


def test_the_only_gpu_is_not_renamed() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in child_environment({}, num_threads=1, gpus=["0"])


def test_gpus_that_were_hidden_stay_hidden() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-1a"}) == ["3", "GPU-1a"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_every_replica_gets_a_core() -> None:
    assert share_of_cores(1) >= 1
    assert share_of_cores(10_000) == 1
