"""Which trace a request belongs to: the caller's, or a new one. Knows headers, not what is done in a trace."""

from secrets import token_hex

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

HEADER = "traceparent"


def trace_id_of(headers: Headers) -> str:
    """The id in a valid W3C `traceparent`; else that of a span which OpenTelemetry, where set up, began; else new."""
    # Joined as HTTP joins repeated headers, so that two of them are none.
    carrier = {HEADER: ", ".join(headers.getlist(HEADER))}
    found = TraceContextTextMapPropagator().extract(carrier, context.get_current())
    span = trace.get_current_span(found).get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else token_hex(16)
