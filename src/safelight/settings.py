"""What can be set about a server: flag > `SAFELIGHT_*` variable > default, in one frozen `Settings`, built once."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from safelight.environment import DEFAULT_DATA_DIR, ENV_PREFIX
from safelight.errors import ConfigurationError
from safelight.hosts import is_name, is_origin
from safelight.library_variables import SETTING_VARIABLES

ANY_ORIGIN = "*"
_ALIAS = re.compile(r"(\*|[^\s=,*]{1,128})=.{1,256}")

Part = TypeVar("Part", bound=BaseModel)
Quantization = Literal["none", "int8", "fp8", "nf4"]
Offload = Literal["none", "encoders", "model", "layers"]
_BYTES_IN = {"TB": 10**12, "TIB": 2**40, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


class EngineOptions(BaseModel):
    """How a replica computes. Travels as it is from the settings to the engine; each is read where it acts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cuda", "mps", "cpu"] = Field(default="auto", description="where the model runs")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    quantization: Literal["auto", Quantization] = Field(
        default="auto",
        description="what the transformer's weights are kept as; none: as they lie in their file; auto: the most exact "
        "that fits",
    )
    text_encoder_2_quantization: Literal["auto", Quantization] = Field(
        default="auto", description="the same of the T5 encoder"
    )
    offload: Literal["auto", Offload] = Field(
        default="auto",
        description="what waits in the machine's memory until the GPU needs it: the text encoders, whole components "
        "(model), or the transformer's layers too",
    )
    vae_tiling: Literal["auto", "on", "off"] = Field(
        default="auto", description="decode large pictures in tiles; auto: where they do not fit whole"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="compile the transformer's blocks while eager ones serve, on CUDA; auto: not yet measured, so off",
    )
    memory: Annotated[int | None, NoDecode] = Field(
        default=None,
        gt=0,
        description="how much of the device a replica may take, such as 12GB or 11GiB; by default what is free",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of each replica; by default the cores are shared out"
    )
    max_batch_size: int = Field(
        default=8, ge=1, le=256, description="rows of the transformer's batch; a guided image takes two"
    )
    prompt_cache_bytes: int = Field(
        default=268_435_456, ge=0, description="text embeddings kept, least recently used out first"
    )
    lora_cache_bytes: int = Field(
        default=2_147_483_648, ge=0, description="LoRAs kept in each replica's memory, least recently used out first"
    )

    @field_validator("memory", mode="before")
    @classmethod
    def _read_memory(cls, memory: object) -> object:
        if not isinstance(memory, str):
            return memory
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) *([a-z]+)", memory.strip(), re.ASCII | re.IGNORECASE)
        if found is None or found[2].upper() not in _BYTES_IN:
            raise ValueError("this is no amount of memory; write it as 12GB or 11GiB")
        return int(float(found[1]) * _BYTES_IN[found[2].upper()])


class DeploymentSettings(BaseModel):
    """What a deployment decides for itself, and a server for the model that it was started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "sprite", description="`sprite`, a folder in the diffusers layout, a hub id, or a .safetensors or .gguf"
    )
    replicas: int = Field(1, ge=1, le=50, description="processes that each load the model and own a device")
    max_replicas: int | None = Field(
        None, ge=1, le=50, description="as many as requests need, from `replicas` up to this, on a cluster"
    )
    target_utilization: float = Field(
        0.7, gt=0, le=1, description="how full the places of replicas should be, where their number may change"
    )
    scaling_interval_s: float = Field(1.0, gt=0, description="how often that is looked at")
    max_concurrent_requests_per_instance: int = Field(
        16,
        ge=1,
        description="requests that a replica runs at once: a full batch, and as many being encoded and decoded",
    )
    max_queued_requests: int = Field(64, ge=0, description="requests that wait for a replica; one more gets 429")
    max_queue_wait_s: float | None = Field(
        None, gt=0, description="a request that waits longer for a replica gets 429; by default only its timeout counts"
    )
    result_cache_bytes: int = Field(
        0, ge=0, description="pictures kept to answer a request that is identical in every parameter and seed; 0: none"
    )
    idle_unload: float = Field(
        0.0, ge=0, description="seconds without a request after which the model leaves memory; 0: it stays"
    )
    request_timeout_s: float = Field(180.0, gt=0, description="a request older than this is dropped with 408")
    loras: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="LoRAs that requests may name: NAME=PATH_OR_HUB_ID[:SCALE], with commas"
    )

    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names of other models that mean this one: ALIAS=MODEL, with commas; *=MODEL for any name"
    )

    @field_validator("loras", "model_aliases", mode="before")
    @classmethod
    def _split(cls, entries: object) -> object:
        return tuple(each for each in entries.split(",") if each.strip()) if isinstance(entries, str) else entries

    @field_validator("model_aliases")
    @classmethod
    def _check_aliases(cls, aliases: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ALIAS.fullmatch(each.strip()) for each in aliases):
            raise ValueError("a model alias is given as ALIAS=MODEL, or *=MODEL for any name")
        return tuple(each.strip() for each in aliases)


class Settings(BaseSettings, EngineOptions, DeploymentSettings):
    """Everything that can be set about a server. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    runtime: str = Field(
        "local", description="where replicas run; local: as processes of this machine; ray: on a cluster"
    )
    ray_address: str | None = Field(
        None, description="head of the Ray cluster, such as HEAD:6379, or auto; by default a Ray of this server's own"
    )
    ray_namespace: str = Field(
        "safelight", min_length=1, description="servers with the same one share replicas on a Ray cluster"
    )
    ray_num_cpus: float = Field(1.0, ge=0, description="CPUs that a replica needs on its node of the Ray cluster")
    ray_num_gpus: float | None = Field(
        None, ge=0, description="GPUs that a replica needs on its node; by default one, if the cluster has any"
    )
    host: str = Field("127.0.0.1", description="address to listen on; anything but loopback needs a key")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    hold_while_loading_s: float = Field(
        30.0, ge=0, description="how long a request waits for a model that loads, before it gets 503"
    )
    max_connections: int = Field(
        1024,
        ge=2,
        description="connections open at once, as far as descriptors allow; seven of eight may have a request",
    )
    header_timeout_s: float = Field(
        20.0, gt=0, description="a TLS handshake or a request's header that takes longer ends the connection"
    )
    keep_alive_timeout_s: float = Field(75.0, gt=0, description="a connection idle for longer is closed")
    stall_timeout_s: float = Field(
        30.0, gt=0, description="a client that sends a body or takes an answer, but next to nothing in so long, is gone"
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="how long SIGTERM waits for requests to finish")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="a longer request body gets 413")
    image_store_url: str | None = Field(
        None, description="where images behind links are kept: a folder, or any URL of fsspec; data_dir by default"
    )
    max_upload_bytes: int = Field(
        52_428_800, ge=1024, description="a longer request body gets 413 where the body holds images"
    )
    max_upload_pixels: int = Field(16_777_216, ge=1024, description="an image with more pixels is not decoded")
    max_held_upload_bytes: int = Field(
        268_435_456, ge=1024, description="uploads that are being read and decoded hold so much at once; more gets 429"
    )
    max_running_jobs: int = Field(4, ge=1, description="jobs that run at once, beside the requests that are waited for")
    max_jobs_per_key: int = Field(1000, ge=1, description="jobs of one key that are kept; one more gets 429")
    max_job_bytes_per_key: int = Field(
        1_073_741_824, ge=1024, description="bodies and results that are kept for one key; one more job gets 429"
    )
    job_lifetime_s: float = Field(3600.0, gt=0, description="how long a job's result is kept after it has ended")
    webhooks_to_private_addresses: bool = Field(
        False, description="let Webhook-Url name loopback, private and link-local addresses"
    )
    components: str | None = Field(
        None, description="folder in the diffusers layout, or hub id, for what a model that is a file lacks"
    )
    vae: Path | None = Field(None, description="file of the autoencoder, in place of the model's own")
    text_encoder: Path | None = Field(None, description="file of the CLIP text encoder, in place of the model's own")
    text_encoder_2: Path | None = Field(None, description="file of the T5 encoder, in place of the model's own")
    default_response_format: Literal["b64_json", "url"] = Field(
        "b64_json", description="what OpenAI's routes answer with if response_format is not given"
    )
    fit_sizes: bool = Field(
        False, description="make the nearest possible picture, with a warning, instead of refusing a size"
    )
    api_key: SecretStr | None = Field(None, description="the Bearer key clients must send")
    api_key_file: Path | None = Field(None, description="file that holds the key, so that it is in no process listing")
    data_dir: Path = Field(DEFAULT_DATA_DIR, description="where state lives")
    online_endpoints: bool = Field(True, description="serve connections, endpoints and deployments beside the model")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL or SQLite URL of the control plane; by default a SQLite file in data_dir"
    )
    encryption_keys: SecretStr | None = Field(
        None, description="Fernet keys for secrets at rest, newest first, with commas; by default a file in data_dir"
    )
    tls: bool = Field(False, description="serve HTTPS; makes a self-signed certificate unless one is given")
    tls_certificate: Path | None = Field(None, description="PEM file with the certificate chain")
    tls_private_key: Path | None = Field(None, description="PEM file with the certificate's key")
    public_url: str | None = Field(
        None, description="how clients reach this server, such as https://images.example.org"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names by which clients reach this server, with commas: a Host among them may be put into links"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins whose pages may call this server from a browser, with commas; * for all, which get no "
        "cookies",
    )
    base_domain: str = Field("localhost", description="NAME.base_domain reaches endpoint NAME; empty turns it off")
    private_prompts: bool = Field(False, description="leave prompts out of the recipe that a picture carries")
    content_credentials_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain that signs pictures (C2PA)"
    )
    content_credentials_key: Path | None = Field(None, description="PEM file of mode 600 with that certificate's key")
    azure_status_codes: bool = Field(
        False,
        description="answer the model's own errors with 424, as Azure's gateway does, not with their honest status",
    )
    oidc_issuer: str | None = Field(None, description="issuer whose JWTs open endpoints with auth_mode aad_token")
    oidc_audience: str = Field("https://ml.azure.com", description="audience that those JWTs must name")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")
    log_format: Literal["text", "json"] = Field("text", description="lines for people, or one JSON object a line")

    @field_validator(
        "vae",
        "text_encoder",
        "text_encoder_2",
        "data_dir",
        "api_key_file",
        "tls_certificate",
        "tls_private_key",
        "content_credentials_certificate",
        "content_credentials_key",
    )
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser()
        except RuntimeError:
            raise ValueError(f"{path} lies in the home of nobody who is known; give the whole path") from None

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, names: object) -> object:
        given = names.split(",") if isinstance(names, str) else names
        return tuple(each.strip() for each in given if each.strip()) if isinstance(given, list | tuple) else given

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for each in hosts:
            if not is_name(each):
                raise ValueError(f"{each[:64]!r} is no name or address without scheme, port and path")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if ANY_ORIGIN in origins and len(origins) > 1:
            raise ValueError("* stands for every origin; give it alone, or name the origins")
        for each in origins:
            if each != ANY_ORIGIN and not is_origin(each):
                raise ValueError(
                    f"{each[:64]!r} is no origin as browsers send it: scheme and host in lower case, a port unless it "
                    "is the scheme's own, and no path, such as https://app.example.org"
                )
        return origins

    @property
    def binds_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def read_api_key(self) -> str | None:
        """The key clients must send, from the setting or its file. Raises ConfigurationError."""
        if self.api_key is not None:
            return _checked_key(self.api_key.get_secret_value(), "api_key")
        if self.api_key_file is None:
            return None
        try:
            return _checked_key(self.api_key_file.read_text(encoding="utf-8"), str(self.api_key_file))
        except OSError as error:
            raise ConfigurationError(f"api_key_file {self.api_key_file} cannot be read: {error.strerror}") from None


def part_of(settings: BaseModel, part: type[Part], **changes: object) -> Part:
    """Those of the settings that belong together as `part`, with changes, which are checked as the settings were."""
    return part.model_validate({name: getattr(settings, name) for name in part.model_fields} | changes)


def engine_options(settings: Settings, variables: Mapping[str, str]) -> EngineOptions:
    """Those of a replica, some of which the environment `variables` of its deployment may say.

    Raises ConfigurationError naming the variable, and not its value, which may be a secret.
    """
    values = {name: getattr(settings, name) for name in EngineOptions.model_fields}
    return _with_variables(EngineOptions, values, variables)


def deployment_settings(variables: Mapping[str, str], **values: object) -> DeploymentSettings:
    """Those of a deployment, some of which its environment `variables` may say. Raises as `engine_options`."""
    return _with_variables(DeploymentSettings, values, variables)


def _with_variables(part: type[Part], values: Mapping[str, object], variables: Mapping[str, str]) -> Part:
    said = {
        field: variables[name]
        for name, field in SETTING_VARIABLES.items()
        if name in variables and field in part.model_fields
    }
    try:
        return part.model_validate({**values, **said})
    except ValidationError as error:
        field, problem = _first_problem(error)
        is_said = field.partition(".")[0] in said
        where = f"environment variable {ENV_PREFIX}{field.upper()}" if is_said else field
        raise ConfigurationError(f"{where} of the deployment: {problem}") from None


def load_settings(**flags: Any) -> Settings:
    """Settings from flags (None: not given) over the environment. Raises ConfigurationError naming what is wrong."""
    _refuse_unknown_variables()
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        name, problem = _first_problem(error)
        raise ConfigurationError(f"{name}: {problem} (flag or {ENV_PREFIX}{name.upper()})") from None
    if settings.read_api_key() is None and not settings.binds_loopback:
        raise ConfigurationError(
            f"refusing to listen on {settings.host} without a key; give --api-key-file FILE or set {ENV_PREFIX}API_KEY"
        )
    return settings


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """The field, and what is wrong with it."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"unknown environment variable {name}{hint}")


def _checked_key(text: str, where: str) -> str:
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(f"the key in {where} must be non-empty printable ASCII")
    return key
