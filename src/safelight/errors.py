"""Every error that Safelight raises on purpose, named by its cause.

SafelightError
├── InvalidRequest            what was asked cannot be made; names the field and the remedy
│   ├── MissingParameter      a field that the request cannot do without
│   ├── UnknownParameter      a field that this API does not have
│   ├── WrongType             a field of the wrong JSON type
│   ├── NotAcceptable         no image format that the client accepts
│   ├── IdempotencyKeyReused  another request came under the same Idempotency-Key
│   ├── BodyTooLarge          more bytes than the server reads
│   ├── UnknownContentCoding   a body compressed in a way that is not read
│   └── ModelNotFound         no such model
├── AuthenticationFailed      no key, or a wrong one
├── Overloaded                the queue is full; come back after `retry_after_s`
│   └── ReplicaFull           other gateways' requests took its last place; the request waits for the next, if it may
├── NotReady                  no replica can take the request yet; come back after `retry_after_s`
├── DeadlineExceeded          the request grew older than its timeout
├── GenerationCancelled       the client left, or the server is shutting down
├── ReplicaLost               the replica's process ended under the request; it may be sent again
│   └── ProtocolViolation     gateway and replica do not understand each other; the replica is restarted
├── EngineFailure             the model could not make this image
│   └── NonFiniteValues       NaN or infinity in latents or pixels; names the step
├── ImageNotKept              an image was made, but the store behind its link did not take it
├── StorageUnavailable        what is to be kept cannot be: a disk is full, or takes no writes for another reason
├── ModelLoadError            a model folder that cannot be loaded now; names the file and the remedy
│   ├── OtherVersion          Safelight was updated under whoever starts it; that one has to be started again
│   ├── OutOfMemory           there is not enough memory for it; names what needs less
│   └── UnsupportedModel      one that cannot be loaded as it is, however often it is tried
├── DownloadError             the hub refused or could not be reached; names the remedy
├── ResourceNotFound          no connection, endpoint, deployment, operation or job of that name
├── Conflict                  the resource is in use, has an operation in progress, or is not there yet
├── SecretsInjectionFailed    a deployment may not, or cannot, read a secret that it refers to
└── ConfigurationError        a flag, an environment variable or a file that makes no sense

HTTP status codes live in `server/error_handlers.py` only.
"""

from __future__ import annotations


class SafelightError(Exception):
    """An error with a message for the user: one or two sentences that name the thing and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(SafelightError):
    """What was asked cannot be made. `field` is the name the engine uses; dialects translate it."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MissingParameter(InvalidRequest):
    """A field that the request cannot do without."""


class UnknownParameter(InvalidRequest):
    """A field that this API does not have."""


class WrongType(InvalidRequest):
    """A field of the wrong JSON type."""


class NotAcceptable(InvalidRequest):
    """The client accepts none of the formats that can be produced."""


class IdempotencyKeyReused(InvalidRequest):
    """Another request came under the same Idempotency-Key."""


class BodyTooLarge(InvalidRequest):
    """The request body has more bytes than the server reads."""


class UnknownContentCoding(InvalidRequest):
    """The request body is compressed in a way that is not read."""


class ModelNotFound(InvalidRequest):
    """No model of that name is served, registered or on disk."""


class AuthenticationFailed(SafelightError):
    """No key was given where one is needed, or it is not one of the valid keys."""


class Overloaded(SafelightError):
    """The queue is full."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ReplicaFull(Overloaded):
    """Other gateways' requests took the last place of a replica; the request waits for the next one that is free."""


class NotReady(SafelightError):
    """No replica can take the request yet."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(SafelightError):
    """The request grew older than its timeout and was dropped."""


class GenerationCancelled(SafelightError):
    """The client left, or the server is shutting down."""


class ReplicaLost(SafelightError):
    """The replica's process ended under the request; sending it again is safe."""


class ProtocolViolation(ReplicaLost):
    """A frame between gateway and replica that makes no sense."""


class EngineFailure(SafelightError):
    """The model could not make this image."""


class NonFiniteValues(EngineFailure):
    """NaN or infinity in latents or pixels."""


class ImageNotKept(SafelightError):
    """An image was made, but the store behind its link did not take it."""


class StorageUnavailable(SafelightError):
    """A disk or a database takes no writes; come back after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: int = 10) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelLoadError(SafelightError):
    """A model folder that cannot be loaded now: a file is missing or broken, or there is no memory for it."""


class OtherVersion(ModelLoadError):
    """A replica's process is of another version of Safelight than whoever started it, and always will be."""


class OutOfMemory(ModelLoadError):
    """A model, or a part of it, that found no memory while it was loaded."""


class UnsupportedModel(ModelLoadError):
    """A model that cannot be loaded as it is, however often it is tried: its files say that it is something else."""


class DownloadError(SafelightError):
    """The hub refused a download, or could not be reached."""


class ResourceNotFound(SafelightError):
    """No connection, endpoint, deployment, operation or job of that name."""


class Conflict(SafelightError):
    """The endpoint has an operation in progress, or the resource is in use."""


class SecretsInjectionFailed(SafelightError):
    """A deployment may not, or cannot, read a secret that it refers to."""


class ConfigurationError(SafelightError):
    """A flag, an environment variable or a file that makes no sense."""
