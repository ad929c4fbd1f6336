"""What `auto` means on this machine, and which devices and dtypes are refused."""

from __future__ import annotations

import pytest
import torch

from safelight.engine.devices import choose_device, choose_dtype
from safelight.errors import ConfigurationError

CPU = torch.device("cpu")


@pytest.mark.parametrize("capability", ["amx_bf16", "avx512_bf16"])
def test_auto_is_bf16_on_a_cpu_that_multiplies_it(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})

    assert choose_dtype("auto", CPU) is torch.bfloat16


def test_auto_is_fp32_on_a_cpu_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})

    assert choose_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_on_a_gpu_follows_its_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert choose_dtype("auto", torch.device("cuda")) is dtype


def test_a_dtype_that_is_named_is_taken() -> None:
    assert choose_dtype("float16", CPU) is torch.float16


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert choose_device("auto").type == "cuda"


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    assert choose_device("auto") == CPU


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    with pytest.raises(ConfigurationError, match=r"sees 1 GPUs.*use device cpu"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "tpu0", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="use auto, cuda, mps or cpu"):
        choose_device(name)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="use auto, bfloat16, float16, float32"):
        choose_dtype("int8", CPU)
