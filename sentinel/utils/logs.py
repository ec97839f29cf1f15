"""Log lines of a process: text for people, or one JSON object a line for machines.

Every line carries what its task or thread has bound: of which request, trace, job and attempt it speaks. Knows how a
line looks, not what is worth one. Loads no torch.
"""

import json
import logging
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType, TracebackType

Field = str | int | float

# Keys and webhooks' secrets of this service, tokens of the Hugging Face Hub, users and passwords in URLs.
SECRETS = re.compile(r"""sntl_[\w-]+|whsec_[\w+/=]+|hf_[A-Za-z0-9]{20,}|(?<=://)[^\s/@"'\\]+(?=@)""")
# The one names a URL a line, which may be signed; the other says at every look at the schema that it looks.
TALKATIVE = ("httpx", "alembic")

_bound: ContextVar[Mapping[str, Field]] = ContextVar("bound", default=MappingProxyType({}))


class LogFormat(StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


def configure(log_format: LogFormat, *, level: int = logging.INFO) -> None:
    """Write this process's lines, warnings and its last words to stderr. Call it once, before anything else logs."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[log_format]())
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(capture=True)
    for library in TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    sys.excepthook = _log_last_words


def adopt(*libraries: str) -> None:
    """Let the lines of libraries that bring handlers of their own go the way of all others."""
    for library in libraries:
        logger = logging.getLogger(library)
        logger.handlers.clear()
        logger.propagate = True


def bind(**fields: Field | None) -> None:
    """Let every further line of this task or thread carry the fields that are not None.

    For a part of a thread's life, call it inside `contextvars.copy_context().run(…)`.
    """
    _bound.set({**_bound.get(), **{name: value for name, value in fields.items() if value is not None}})


def redacted(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRETS.sub("***", text)


def bound() -> dict[str, Field]:
    """What is bound here, to be bound in another process."""
    return dict(_bound.get())


class Formatter(logging.Formatter, ABC):
    """One record → one line (text: with its traceback below), without any secret."""

    def format(self, record: logging.LogRecord) -> str:
        """Whatever a line is made of, what looks like a secret is not in it."""
        exception = self.formatException(record.exc_info) if record.exc_info else None
        return redacted(self.line(record, exception))

    @abstractmethod
    def line(self, record: logging.LogRecord, exception: str | None) -> str:
        """The line as it is before secrets are taken out."""


class TextFormatter(Formatter):
    """As people like it."""

    def line(self, record: logging.LogRecord, exception: str | None) -> str:
        """Time, level, logger, message, and in brackets what is bound."""
        fields = " ".join(f"{name}={_word(value)}" for name, value in _bound.get().items())
        said = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        return "".join((said, f" [{fields}]" if fields else "", f"\n{exception}" if exception else ""))


class JsonFormatter(Formatter):
    """As machines like it; times are RFC 3339 in UTC."""

    def line(self, record: logging.LogRecord, exception: str | None) -> str:
        """What is bound stands beside time, level, logger and message."""
        document: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get(),
        }
        if exception is not None:
            document["exception"] = exception
        return json.dumps(document, ensure_ascii=False)


FORMATTERS: Mapping[LogFormat, Callable[[], Formatter]] = MappingProxyType(
    {LogFormat.TEXT: TextFormatter, LogFormat.JSON: JsonFormatter}
)


def _word(value: Field) -> str:
    """A value in a text line. One with line ends, which a user may have sent, must not look like another line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def _log_last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("the process ends by an exception", exc_info=(kind, error, trace))
