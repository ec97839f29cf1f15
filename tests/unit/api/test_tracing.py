"""Which trace a request is counted to when OpenTelemetry has begun a span for it; headers are tried over HTTP."""

from opentelemetry import context, trace
from starlette.datastructures import Headers

from api.tracing import trace_id_of

OURS, THEIRS = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"


def test_a_span_that_has_begun_names_the_trace_unless_the_caller_does():
    span = trace.SpanContext(trace_id=int(OURS, 16), span_id=1, is_remote=False)
    attached = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(span)))
    try:
        assert trace_id_of(Headers({})) == OURS
        assert trace_id_of(Headers({"traceparent": "malformed"})) == OURS
        assert trace_id_of(Headers({"traceparent": f"00-{THEIRS}-b7ad6b7169203331-01"})) == THEIRS
    finally:
        context.detach(attached)
    assert trace_id_of(Headers({})) not in (OURS, THEIRS)
