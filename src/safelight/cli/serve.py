"""`safelight serve`: one model behind both APIs."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from safelight.cli import engine_flags, model_flags
from safelight.cli.completion import complete_models

Model = Annotated[
    str | None,
    typer.Argument(
        help="sprite (the default), a folder in the diffusers layout, a hub id, or a file (.safetensors, .gguf). This, "
        "and every option, can also be set as an environment variable, such as SAFELIGHT_PORT or SAFELIGHT_API_KEY; "
        "docs/reference/settings.md has all of them, and those that have no option.",
        autocompletion=complete_models,
    ),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1]. Anything but loopback needs a key.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [8000]. 0 takes a free one.")]
Replicas = Annotated[int | None, typer.Option(help="Processes that each load the model [1].")]
Runtime = Annotated[
    str | None, typer.Option(help="Where replicas run: local, on this machine, or ray, on a cluster [local].")
]
MaxReplicas = Annotated[
    int | None,
    typer.Option(help="As many replicas as requests need, from --replicas up to this, on a cluster [--replicas]."),
]
RayAddress = Annotated[
    str | None, typer.Option(help="Head of the Ray cluster, such as HEAD:6379, or auto [a Ray of this server's own].")
]
RayNamespace = Annotated[
    str | None, typer.Option(help="Servers with the same one share replicas on a Ray cluster [safelight].")
]
RayNumCpus = Annotated[float | None, typer.Option(help="CPUs that a replica needs on its node of the Ray cluster [1].")]
RayNumGpus = Annotated[
    float | None, typer.Option(help="GPUs that a replica needs on its node [1 if the cluster has any].")
]
NumThreads = Annotated[int | None, typer.Option(help="CPU threads of each replica [cores / replicas].")]
MaxBatchSize = Annotated[int | None, typer.Option(help="Rows that share a denoising step [8].")]
MaxConcurrentRequests = Annotated[
    int | None, typer.Option("--max-concurrent-requests", help="Requests a replica runs at once [16].")
]
MaxQueuedRequests = Annotated[int | None, typer.Option(help="Requests that wait; one more gets 429 [64].")]
RequestTimeout = Annotated[
    float | None,
    typer.Option("--request-timeout", help="Seconds after which a request is dropped with 408 [180]."),
]
HoldWhileLoading = Annotated[
    float | None,
    typer.Option(
        "--hold-while-loading", help="Seconds that a request waits for a model that loads, before it gets 503 [30]."
    ),
]
IdleUnload = Annotated[
    float | None,
    typer.Option(
        help="Seconds without a request after which the model leaves memory, until the next one brings it back [0: it "
        "stays]. A deployment may say another SAFELIGHT_IDLE_UNLOAD."
    ),
]
MaxConnections = Annotated[
    int | None, typer.Option(help="Connections open at once, as far as descriptors allow [1024].")
]
HeaderTimeout = Annotated[
    float | None,
    typer.Option("--header-timeout", help="Seconds for a TLS handshake, and for a request's header [20]."),
]
KeepAliveTimeout = Annotated[
    float | None,
    typer.Option("--keep-alive-timeout", help="Seconds after which an idle connection is closed [75]."),
]
StallTimeout = Annotated[
    float | None, typer.Option("--stall-timeout", help="Seconds in which a body or an answer must move on [30].")
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", help="LoRA that requests may name, as NAME=PATH_OR_HUB_ID[:SCALE]; may be given several times."
    ),
]
ModelAliases = Annotated[
    list[str] | None,
    typer.Option(
        "--model-alias",
        help="Name of another model that means this one, as ALIAS=MODEL (* for any name); may be given several times.",
    ),
]
DefaultResponseFormat = Annotated[
    str | None, typer.Option(help="b64_json or url: OpenAI's routes, if the request does not say [b64_json].")
]
FitSizes = Annotated[
    bool | None,
    typer.Option(
        "--fit-sizes/--refuse-sizes", help="Make the nearest possible picture where a size is not, with a warning."
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(help="Bearer key clients must send. Shows in process listings: prefer --api-key-file.")
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File that holds the Bearer key.")]
DataDir = Annotated[Path | None, typer.Option(help="Where state lives [~/.local/share/safelight].")]
Tls = Annotated[
    bool | None,
    typer.Option("--tls/--no-tls", help="Serve HTTPS; makes a self-signed certificate if none is given."),
]
TlsCertificate = Annotated[Path | None, typer.Option(help="PEM file with the certificate chain.")]
TlsPrivateKey = Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")]
PublicUrl = Annotated[str | None, typer.Option(help="How clients reach this server.")]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        help="Name by which clients reach this server, beside its address: a Host that links may be made of; may "
        "be given several times."
    ),
]
CorsOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        help="Origin whose pages may call this server from a browser, such as https://app.example.org (* for all, "
        "without cookies); may be given several times.",
    ),
]
CredentialsCertificate = Annotated[
    Path | None, typer.Option(help="PEM file with the certificate chain that signs pictures (C2PA).")
]
CredentialsKey = Annotated[Path | None, typer.Option(help="PEM file of mode 600 with that certificate's key.")]
AzureStatusCodes = Annotated[
    bool | None,
    typer.Option("--azure-status-codes/--honest-status-codes", help="424 for the model's own errors, as on Azure."),
]
OnlineEndpoints = Annotated[
    bool | None,
    typer.Option("--online-endpoints/--no-online-endpoints", help="Serve connections, endpoints and deployments."),
]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error [info].")]
LogFormat = Annotated[
    str | None, typer.Option(help="text, or json for one JSON object a line on standard error [text].")
]


def serve(
    *,
    model: Model = None,
    components: model_flags.Components = None,
    vae: model_flags.Vae = None,
    text_encoder: model_flags.TextEncoder = None,
    text_encoder_2: model_flags.TextEncoder2 = None,
    host: Host = None,
    port: Port = None,
    replicas: Replicas = None,
    max_replicas: MaxReplicas = None,
    runtime: Runtime = None,
    ray_address: RayAddress = None,
    ray_namespace: RayNamespace = None,
    ray_num_cpus: RayNumCpus = None,
    ray_num_gpus: RayNumGpus = None,
    device: engine_flags.Device = None,
    dtype: engine_flags.Dtype = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    compile: engine_flags.Compile = None,
    memory: engine_flags.Memory = None,
    num_threads: NumThreads = None,
    max_batch_size: MaxBatchSize = None,
    max_concurrent_requests_per_instance: MaxConcurrentRequests = None,
    max_queued_requests: MaxQueuedRequests = None,
    request_timeout_s: RequestTimeout = None,
    hold_while_loading_s: HoldWhileLoading = None,
    idle_unload: IdleUnload = None,
    max_connections: MaxConnections = None,
    header_timeout_s: HeaderTimeout = None,
    keep_alive_timeout_s: KeepAliveTimeout = None,
    stall_timeout_s: StallTimeout = None,
    loras: Loras = None,
    model_aliases: ModelAliases = None,
    default_response_format: DefaultResponseFormat = None,
    fit_sizes: FitSizes = None,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    data_dir: DataDir = None,
    tls: Tls = None,
    tls_certificate: TlsCertificate = None,
    tls_private_key: TlsPrivateKey = None,
    public_url: PublicUrl = None,
    allowed_hosts: AllowedHosts = None,
    cors_origins: CorsOrigins = None,
    private_prompts: model_flags.PrivatePrompts = None,
    content_credentials_certificate: CredentialsCertificate = None,
    content_credentials_key: CredentialsKey = None,
    azure_status_codes: AzureStatusCodes = None,
    online_endpoints: OnlineEndpoints = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Serve MODEL behind the Hugging Face and the OpenAI image APIs."""
    _serve(**locals())  # each parameter has the name of the setting that it sets


def _serve(**flags: object) -> None:
    gc.disable()  # what is imported stays: `run` looks through it once, when all is there
    from safelight.cli.given_files import locate_given
    from safelight.model.loras import locate_loras
    from safelight.server import run
    from safelight.serving.backends.registry import components_here
    from safelight.settings import load_settings

    settings = load_settings(**flags)
    folder, spec = locate_given(settings, components_here(settings))
    run.serve(settings, folder, replace(spec, loras=locate_loras(settings.loras)))
