"""Why the service may refuse a request, apart from what the store and the spec refuse.

Plain errors with a code, a fault and a next step. Nothing here knows an HTTP status; `errors.py` does.
"""

from sentinel.errors import Fault, FieldError, ModelTooLarge, PathNotAllowed, SentinelError, SpecInvalid


class KeyRequired(SentinelError):
    """The request carries no API key, or one that is unknown, expired or revoked."""

    code = "key_required"
    fault = Fault.USER
    next_step = "Send `Authorization: Bearer <key>`; `python -m api.keys create --name NAME` makes a key."


class ScopeMissing(SentinelError):
    """The API key is good, but may not do this."""

    code = "scope_missing"
    fault = Fault.USER
    next_step = "Use a key that has this scope."


class RateExceeded(SentinelError):
    """More requests came than may come in the time."""

    code = "rate_exceeded"
    fault = Fault.USER
    next_step = "Wait for the seconds that Retry-After names, then go on more slowly."

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BodyTooLarge(SentinelError):
    """The request body is longer than the service reads."""

    code = "body_too_large"
    fault = Fault.USER
    next_step = "Send a shorter document."


class BodyTooSlow(SentinelError):
    """The request body comes so slowly that the service does not wait for its end."""

    code = "body_too_slow"
    fault = Fault.USER
    next_step = "Send the request again over a faster connection."


class HeadTooLarge(SentinelError):
    """The request has more or longer headers than the service reads."""

    code = "head_too_large"
    fault = Fault.USER
    next_step = "Send fewer and shorter headers."


class TargetTooLong(SentinelError):
    """The request's path and query are longer than the service reads."""

    code = "target_too_long"
    fault = Fault.USER
    next_step = "Send a shorter path and query."


class HostNotAllowed(SentinelError):
    """The Host header names a host that this service does not go by."""

    code = "host_not_allowed"
    fault = Fault.USER
    next_step = "Use the address that the service printed; its operator can add names to SENTINEL_ALLOWED_HOSTS."


class OriginNotAllowed(SentinelError):
    """A page of another site's asks for a change."""

    code = "origin_not_allowed"
    fault = Fault.USER
    next_step = "Send the request from a program, or from a page of this service."


class MediaTypeUnsupported(SentinelError):
    """The request body is neither JSON nor YAML."""

    code = "media_type_unsupported"
    fault = Fault.USER
    next_step = "Send the spec as `application/json` or `application/yaml` and name it in Content-Type."


class CursorInvalid(SentinelError):
    """The cursor is not one that a list of this service gave."""

    code = "cursor_invalid"
    fault = Fault.USER
    next_step = "Start again without a cursor, then follow `next_cursor`."


class RangeUnsatisfiable(SentinelError):
    """The requested range begins after the end of the file."""

    code = "range_unsatisfiable"
    fault = Fault.USER
    next_step = "Ask for bytes within the size that Content-Range names."

    def __init__(self, *, size: int) -> None:
        super().__init__(f"The file has {size} bytes.")
        self.size = size


class PeriodInvalid(SentinelError):
    """No time lies between the bounds."""

    code = "period_invalid"
    fault = Fault.USER
    next_step = "Name a `from` that is earlier than `to`; without them the report is of the current month."


class NoCheckpoint(SentinelError):
    """The job has no checkpoint to give."""

    code = "no_checkpoint"
    fault = Fault.USER
    next_step = "Wait until the job's `checkpoint_uri` is set; a job that ended without one can be retried."


class NothingMeasured(SentinelError):
    """A sweep has no result to choose from."""

    code = "nothing_measured"
    fault = Fault.USER
    next_step = "Wait until a job of the sweep has succeeded; its `counts` say how many have."


class NothingFits(SentinelError):
    """No result of a sweep is within the limits."""

    code = "nothing_fits"
    fault = Fault.USER
    next_step = "Ask with wider limits, or wait for the jobs of the sweep that have not ended."


class SpecPathsNotAllowed(PathNotAllowed, SpecInvalid):
    """The spec is sound, but names paths outside the folders that the operator opened."""


class SpecModelTooLarge(ModelTooLarge, SpecInvalid):
    """The spec is sound, but its model is larger than the operator allows."""

    def __init__(self, too_large: ModelTooLarge) -> None:
        mistake = FieldError(pointer="/model", code=too_large.code, message=too_large.message)
        SpecInvalid.__init__(self, too_large.message, errors=[mistake])


class Unready(SentinelError):
    """A part that the service cannot do without is missing."""

    code = "unready"
    fault = Fault.SERVICE
    next_step = "Try again shortly; the operator finds the cause in the log."


class UploadTooLarge(SentinelError):
    """The upload has more or larger files than the service takes."""

    code = "upload_too_large"
    fault = Fault.USER
    next_step = "Send less, or ask the operator to raise SENTINEL_MAX_UPLOAD_BYTES, …_FILE_BYTES or …_FILES."


class FileMismatch(SentinelError):
    """The bytes are not those that were declared; nothing of them is kept."""

    code = "file_mismatch"
    fault = Fault.USER
    next_step = "Send the file again, all of it; if it has changed, delete the upload and declare a new one."


class SpaceExhausted(SentinelError):
    """The service's disk or its storage is full; nothing half written is left."""

    code = "space_exhausted"
    fault = Fault.RESOURCE
    next_step = "Send the file again once the operator has made room."

    def __init__(self) -> None:
        super().__init__("There is no room for the file.")


class ArchiveRefused(SentinelError):
    """Base of what can be wrong with an archive."""

    fault = Fault.USER
    next_step = "Pack the model's folder again: plain files only, as .tar, or as .zip stored or deflated."


class ArchiveInvalid(ArchiveRefused):
    """It is not what its name says, or is damaged."""

    code = "archive_invalid"


class ArchiveTooLarge(ArchiveRefused):
    """It holds more files or bytes than the service takes."""

    code = "archive_too_large"
    next_step = UploadTooLarge.next_step


class ArchiveBomb(ArchiveRefused):
    """It is made to become much more than it is."""

    code = "archive_bomb"


class MemberOutside(ArchiveRefused):
    """A member's name leads out of the archive, or is no name of a file."""

    code = "archive_member_outside"


class MemberNoFile(ArchiveRefused):
    """A member is a link, a device or anything else that is neither a file nor a folder."""

    code = "archive_member_no_file"


class MemberRepeated(ArchiveRefused):
    """Two members have the same name, so that two readers might see different files."""

    code = "archive_member_repeated"


class MemberUnreadable(ArchiveRefused):
    """A member is encrypted, or compressed in another way than deflate."""

    code = "archive_member_unreadable"
