"""The environment variables that a deployment may set: those of its replicas' libraries, and settings of its own."""

from __future__ import annotations

from collections.abc import Mapping

LIBRARY_VARIABLES = frozenset(
    {
        *("OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY"),
        *("KMP_BLOCKTIME", "KMP_AFFINITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_VERBOSE"),
        *("ATEN_CPU_CAPABILITY", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING"),
        *("PYTORCH_ENABLE_MPS_FALLBACK", "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "NVIDIA_TF32_OVERRIDE"),
        *("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MODULE_LOADING"),
        *("CUDA_LAUNCH_BLOCKING", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"),
        *("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"),
    }
)
"""What a deployment may set for its replicas: it tunes their libraries, and names no file, program or host. All else
could run another program as the server's user (`LD_PRELOAD`, `OMP_TOOL_LIBRARIES`, `PYTHONPATH`, ...), or is read by
nothing: a replica runs no code of the user's.
"""
SETTING_VARIABLES: Mapping[str, str] = {
    "SAFELIGHT_LORAS": "loras",
    "SAFELIGHT_MODEL_ALIASES": "model_aliases",
    "SAFELIGHT_RESULT_CACHE_BYTES": "result_cache_bytes",
    "SAFELIGHT_QUANTIZATION": "quantization",
    "SAFELIGHT_TEXT_ENCODER_2_QUANTIZATION": "text_encoder_2_quantization",
    "SAFELIGHT_OFFLOAD": "offload",
    "SAFELIGHT_VAE_TILING": "vae_tiling",
    "SAFELIGHT_MEMORY": "memory",
    "SAFELIGHT_IDLE_UNLOAD": "idle_unload",
}
"""Variable -> the field of `DeploymentSettings` or `EngineOptions` that it sets."""


def for_libraries(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of a deployment's environment variables that its replicas see."""
    return {name: value for name, value in variables.items() if name in LIBRARY_VARIABLES}
