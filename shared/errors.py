"""The errors that reach a person, and their RFC 9457 problem-details form. Every party uses them.

    DoorbellError
    ├── SettingsError           500  the environment describes no service that could run
    ├── DatasetError            422  a picture folder that cannot be learned from
    │   └── UnusablePicture     422  one file that is left out (dataset.decoding)
    ├── InvalidMessage          400  bytes from a peer that violate the protocol
    │   └── NoAnswer            400  a model that fails validation (device.rounds.model_trial)
    ├── NotSigned               401  a message between services without a signature
    ├── BadSignature            401  a signature that does not verify; the problem type says why
    ├── Forbidden               403  the sender is known, and not authorized
    ├── Refused                 403  not the operator's own request (shared.web.operators)
    │   ├── LoginRequired       401  a request without the operator token
    │   └── TooManyAttempts     429  at an operator token or a join code
    ├── NotFound                404  no such detector, version or page
    ├── OutOfOrder              409  a step before its time
    │   └── Busy                409  the training child has another job (device.training)
    ├── TrainingFailed          500  the training child gave up or ran out of memory
    │   └── ChildDied           500  it was killed, or ended by itself (device.training)
    ├── CannotTrain             409  TensorFlow is not installed on this device
    ├── Cancelled               409  a training that its owner ended
    ├── NotFaithful             500  an exported model that deviates (device.vision.export)
    ├── PlotFailed              500  a plot that cannot be drawn (device.evaluation.drawing)
    ├── NoPicture               503  the camera delivers no picture (device.camera)
    ├── StorageFailed           507  a disk, bucket or database that fails to read or write
    │   ├── StorageUnavailable  503  one that does not answer at the moment
    │   └── _Vanished           507  a file deleted during a backup (federation.backup)
    ├── PeerUnreachable         503  another service does not answer
    ├── TooManyPages            429  no thread is left for live pages (shared.web.live)
    ├── StepRefused             500  a server refused a step of a round (federation.round)
    ├── NotReady                500  a federation that cannot start (federation.preflight)
    └── BackupUnusable          500  a file that is no complete backup (federation.backup)

Each says three things: what happened, what was kept, and what to do next.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal


class DoorbellError(Exception):
    """An error with a message that is written for the person who reads it.

    Args:
        happened: What happened, one sentence.
        kept: What was kept or left unchanged, one sentence.
        todo: What to do next, one sentence; may be empty where the sentence before already says it.
    """

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: str = "failed"

    def __init__(
        self, happened: str, *, kept: str = "Nothing was changed.", todo: str = ""
    ) -> None:
        super().__init__(happened, kept, todo)
        self.happened = happened
        self.kept = kept
        self.todo = todo

    def __str__(self) -> str:
        return " ".join(part for part in (self.happened, self.kept, self.todo) if part)

    def problem(self) -> dict[str, object]:
        """Return the RFC 9457 members: type, title, status, detail."""
        return {
            "type": f"urn:doorbell:problem:{self.slug}",
            "title": self.happened,
            "status": int(self.status),
            "detail": str(self),
        }


class SettingsError(DoorbellError):
    """The environment describes no service that could run."""

    slug = "settings"


class DatasetError(DoorbellError):
    """A picture folder that cannot be learned from."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "dataset"


class InvalidMessage(DoorbellError):
    """Bytes from a peer that violate the protocol."""

    status = HTTPStatus.BAD_REQUEST
    slug = "invalid-message"


class NotSigned(DoorbellError):
    """A message between services without a signature."""

    status = HTTPStatus.UNAUTHORIZED
    slug = "signature-missing"


SignatureFault = Literal[
    "signature-malformed",
    "signature-incomplete",
    "signature-wrong-audience",
    "signature-from-the-future",
    "signature-expired",
    "signature-unknown-key",
    "signature-wrong-key",
    "signature-invalid",
    "digest-mismatch",
    "signature-replayed",
]


class BadSignature(DoorbellError):
    """A message between services whose signature does not verify.

    Args:
        slug: Why; the end of the problem type.
        happened: What happened, one sentence.
        todo: What to do next, one sentence.
    """

    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, slug: SignatureFault, happened: str, todo: str) -> None:
        super().__init__(happened, todo=todo)
        self.slug = slug


class Forbidden(DoorbellError):
    """The sender is known and not authorized, or a service has not joined yet."""

    status = HTTPStatus.FORBIDDEN
    slug = "forbidden"

    def __init__(
        self,
        happened: str,
        *,
        kept: str = "Nothing was changed.",
        todo: str = "",
        slug: str = "forbidden",
    ) -> None:
        super().__init__(happened, kept=kept, todo=todo)
        self.slug = slug


class NotFound(DoorbellError):
    """No such detector, version or page."""

    status = HTTPStatus.NOT_FOUND
    slug = "not-found"


class OutOfOrder(DoorbellError):
    """A step before its time."""

    status = HTTPStatus.CONFLICT
    slug = "out-of-order"


class TrainingFailed(DoorbellError):
    """The training child gave up, was killed, or ran out of memory."""

    slug = "training-failed"


class CannotTrain(DoorbellError):
    """TensorFlow is not installed: the device predicts, and follows what the others learn."""

    status = HTTPStatus.CONFLICT
    slug = "cannot-train"

    def __init__(self) -> None:
        super().__init__(
            "TensorFlow is not installed here, so this device does not train.",
            kept="It looks and answers, and follows what the other devices learn.",
            todo="Install requirements.txt to train here too.",
        )


class Cancelled(DoorbellError):
    """A training that its owner ended; later work of the same step is not started."""

    status = HTTPStatus.CONFLICT
    slug = "cancelled"

    def __init__(self) -> None:
        super().__init__(
            "The training was cancelled.",
            kept="The models and earlier trainings are kept.",
            todo="Train again whenever you like.",
        )


class StorageFailed(DoorbellError):
    """A disk, a bucket or a database that fails to read or write.

    Args:
        happened: What happened, one sentence.
        kept: What was kept, one sentence.
        todo: What to do next, one sentence.
    """

    status = HTTPStatus.INSUFFICIENT_STORAGE
    slug = "storage"

    def __init__(
        self, happened: str, *, kept: str = "What was stored before is kept.", todo: str = ""
    ) -> None:
        super().__init__(happened, kept=kept, todo=todo)


class StorageUnavailable(StorageFailed):
    """A disk, a bucket or a database that does not answer at the moment."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "storage-unavailable"


class PeerUnreachable(DoorbellError):
    """Another service did not answer, or not as this project's services do."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "peer-unreachable"
