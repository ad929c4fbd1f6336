"""`safelight serve`: one model behind both APIs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from safelight.cli import engine_flags
from safelight.cli.completion import complete_models


def serve(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            help="sprite (the default), a folder in the diffusers layout, a hub id, or a file (.safetensors, .gguf).",
            autocompletion=complete_models,
        ),
    ] = None,
    components: Annotated[
        str | None, typer.Option(help="For MODEL as a file: folder or hub id that has what the file lacks.")
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="File of the autoencoder, in place of the model's own.")] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="File of the CLIP text encoder, in place of the model's own.")
    ] = None,
    text_encoder_2: Annotated[
        Path | None, typer.Option(help="File of the T5 encoder, in place of the model's own.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on [127.0.0.1]. Anything but loopback needs a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [8000]. 0 takes a free one.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Processes that each load the model [1].")] = None,
    device: engine_flags.Device = None,
    dtype: engine_flags.Dtype = None,
    quantization: engine_flags.Quantization = None,
    text_encoder_2_quantization: engine_flags.TextEncoder2Quantization = None,
    offload: engine_flags.Offload = None,
    vae_tiling: engine_flags.VaeTiling = None,
    memory: engine_flags.Memory = None,
    num_threads: Annotated[int | None, typer.Option(help="CPU threads of each replica [cores / replicas].")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Rows that share a denoising step [8].")] = None,
    max_concurrent_requests: Annotated[int | None, typer.Option(help="Requests a replica runs at once [8].")] = None,
    max_queued_requests: Annotated[int | None, typer.Option(help="Requests that wait; one more gets 429 [64].")] = None,
    request_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a request is dropped with 408 [180].")
    ] = None,
    hold_while_loading: Annotated[
        float | None, typer.Option(help="Seconds that a request waits for a model that loads, before it gets 503 [30].")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Connections open at once, as far as descriptors allow [1024].")
    ] = None,
    header_timeout: Annotated[
        float | None, typer.Option(help="Seconds for a TLS handshake, and for a request's header [20].")
    ] = None,
    keep_alive_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which an idle connection is closed [75].")
    ] = None,
    stall_timeout: Annotated[
        float | None, typer.Option(help="Seconds in which a body or an answer must move on [30].")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="LoRA that requests may name, as NAME=PATH_OR_HUB_ID[:SCALE]; may be given several times."),
    ] = None,
    model_alias: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of another model that means this one, as ALIAS=MODEL (* for any name); may be given several "
            "times."
        ),
    ] = None,
    default_response_format: Annotated[
        str | None, typer.Option(help="b64_json or url: OpenAI's routes, if the request does not say [b64_json].")
    ] = None,
    fit_sizes: Annotated[
        bool | None,
        typer.Option(
            "--fit-sizes/--refuse-sizes", help="Make the nearest possible picture where a size is not, with a warning."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Bearer key clients must send. Shows in process listings: prefer --api-key-file."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds the Bearer key.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where state lives [~/.local/share/safelight].")] = None,
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", help="Serve HTTPS; makes a self-signed certificate if none is given."),
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate chain.")] = None,
    tls_private_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")] = None,
    public_url: Annotated[str | None, typer.Option(help="How clients reach this server.")] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which clients reach this server, beside its address: a Host that links may be made of; may "
            "be given several times."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin whose pages may call this server from a browser, such as https://app.example.org (* for all, "
            "without cookies); may be given several times."
        ),
    ] = None,
    private_prompts: Annotated[
        bool | None,
        typer.Option(
            "--private-prompts/--prompts-in-pictures", help="Leave prompts out of what pictures say of themselves."
        ),
    ] = None,
    content_credentials_certificate: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate chain that signs pictures (C2PA).")
    ] = None,
    content_credentials_key: Annotated[
        Path | None, typer.Option(help="PEM file of mode 600 with that certificate's key.")
    ] = None,
    azure_status_codes: Annotated[
        bool | None,
        typer.Option("--azure-status-codes/--honest-status-codes", help="424 for the model's own errors, as on Azure."),
    ] = None,
    online_endpoints: Annotated[
        bool | None,
        typer.Option("--online-endpoints/--no-online-endpoints", help="Serve connections, endpoints and deployments."),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [info].")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json for one JSON object a line on standard error [text].")
    ] = None,
) -> None:
    """Serve MODEL behind the Hugging Face and the OpenAI image APIs.

    Every option can also be set as an environment variable, such as SAFELIGHT_PORT or SAFELIGHT_API_KEY.
    """
    from safelight.cli.given_files import locate_given
    from safelight.model.loras import locate_loras
    from safelight.server import run
    from safelight.settings import load_settings

    settings = load_settings(
        model=model,
        components=components,
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        host=host,
        port=port,
        replicas=replicas,
        device=device,
        dtype=dtype,
        quantization=quantization,
        text_encoder_2_quantization=text_encoder_2_quantization,
        offload=offload,
        vae_tiling=vae_tiling,
        memory=memory,
        num_threads=num_threads,
        max_batch_size=max_batch_size,
        max_concurrent_requests_per_instance=max_concurrent_requests,
        max_queued_requests=max_queued_requests,
        request_timeout_s=request_timeout,
        hold_while_loading_s=hold_while_loading,
        max_connections=max_connections,
        header_timeout_s=header_timeout,
        keep_alive_timeout_s=keep_alive_timeout,
        stall_timeout_s=stall_timeout,
        loras=tuple(lora) if lora else None,
        model_aliases=tuple(model_alias) if model_alias else None,
        default_response_format=default_response_format,
        fit_sizes=fit_sizes,
        api_key=api_key,
        api_key_file=api_key_file,
        data_dir=data_dir,
        tls=tls,
        tls_certificate=tls_certificate,
        tls_private_key=tls_private_key,
        public_url=public_url,
        allowed_hosts=",".join(allowed_hosts) if allowed_hosts else None,
        cors_origins=",".join(cors_origin) if cors_origin else None,
        private_prompts=private_prompts,
        content_credentials_certificate=content_credentials_certificate,
        content_credentials_key=content_credentials_key,
        azure_status_codes=azure_status_codes,
        online_endpoints=online_endpoints,
        log_level=log_level,
        log_format=log_format,
    )
    folder, spec = locate_given(settings)
    run.serve(settings, folder, replace(spec, loras=locate_loras(settings.loras)))
