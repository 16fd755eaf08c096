"""What OpenTelemetry is told of a running broker: spans and the log, by OTLP, from threads of its SDK.

Only who sets `telemetry.enabled` imports this. The event loop puts spans and records into queues that have limits and
waits for nothing: what the receiver does not take in time is dropped, oldest first. Sizes of queues and batches,
sampling, headers and certificates are for the SDK's own variables (OTEL_...) to say.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.semconv.schemas import Schemas

from .. import __version__
from .config import schema
from .dispatch import Dispatch
from .state import State
from .tracing import TracedDispatch

log = logging.getLogger(__name__)

FLUSH_TIMEOUT_S = 3.0
COMPLAINT_INTERVAL_S = 60.0
# How long the thread that encodes spans may keep the loop waiting for the interpreter. At 500 requests a second one in
# a hundred took more than 5.5 ms with Python's 5 ms, more than 1.5 to 4 ms with this, and 0.5 ms without telemetry.
SWITCH_INTERVAL_S = 0.0005
_POLL_INTERVAL_S = 0.01
_OURS = __name__.partition(".")[0]
_SCHEMA = Schemas.V1_44_0.value
_SEVERITIES: Final = {
    logging.DEBUG: (SeverityNumber.DEBUG, "DEBUG"),
    logging.INFO: (SeverityNumber.INFO, "INFO"),
    logging.WARNING: (SeverityNumber.WARN, "WARN"),
    logging.ERROR: (SeverityNumber.ERROR, "ERROR"),
    logging.CRITICAL: (SeverityNumber.FATAL, "FATAL"),
}


class Telemetry:
    """Exporters and their threads. `close` sends what is left. span_exporter, log_exporter: in place of OTLP's."""

    def __init__(
        self,
        settings: schema.Telemetry,
        *,
        span_exporter: SpanExporter | None = None,
        log_exporter: LogRecordExporter | None = None,
    ) -> None:
        """Raises ImportError where packages are missing, ValueError and OSError for what the SDK's variables say."""
        spans = span_exporter or _span_exporter(settings.traces)
        records = log_exporter or _log_exporter(settings.logs)
        resource = Resource.create({"service.name": settings.service_name, "service.version": __version__}, _SCHEMA)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._is_traced = spans is not None
        if spans is not None:
            self._tracers.add_span_processor(BatchSpanProcessor(spans))
        self._exported: LogExport | None = None
        if records is not None:
            self._loggers.add_log_record_processor(BatchLogRecordProcessor(records))
            self._exported = LogExport(self._loggers)
            logging.getLogger(_OURS).addHandler(self._exported)
        self._complaints = Complaints()
        self._complaints.take_over()
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch_interval_s, SWITCH_INTERVAL_S))

    def dispatch(self, state: State) -> Dispatch:
        """Return a dispatch that makes spans, if they go anywhere."""
        if not self._is_traced:
            return Dispatch(state)
        return TracedDispatch(state, self._tracers.get_tracer(_OURS, __version__, _SCHEMA))

    async def close(self) -> None:
        """Send what is left, for FLUSH_TIMEOUT_S at most."""
        if self._exported is not None:
            logging.getLogger(_OURS).removeHandler(self._exported)
        # The SDK waits for 30 s, and a thread can't be cancelled: nobody waits for these.
        threads = [Thread(target=each.shutdown, daemon=True) for each in (self._tracers, self._loggers)]
        for thread in threads:
            thread.start()
        for _ in range(int(FLUSH_TIMEOUT_S / _POLL_INTERVAL_S)):
            if not any(thread.is_alive() for thread in threads):
                break
            await asyncio.sleep(_POLL_INTERVAL_S)
        else:
            log.warning("telemetry: the last spans or log records were not delivered in %g s", FLUSH_TIMEOUT_S)
        self._complaints.give_back()
        sys.setswitchinterval(self._switch_interval_s)


class LogExport(logging.Handler):
    """Hands our log records to OpenTelemetry, with the span that they were written in. What is of us here stays out."""

    def __init__(self, loggers: LoggerProvider) -> None:
        super().__init__()
        self._loggers = loggers
        self.addFilter(lambda record: record.name != __name__)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            number, text = _SEVERITIES.get(record.levelno, (SeverityNumber.UNSPECIFIED, record.levelname))
            exported = LogRecord(
                timestamp=int(record.created * 1e9),
                severity_number=number,
                severity_text=text,
                body=record.getMessage(),
                exception=record.exc_info[1] if record.exc_info else None,
            )
            self._loggers.get_logger(record.name, __version__, _SCHEMA).emit(exported)
        except Exception:
            self.handleError(record)


class Complaints(logging.Handler):
    """What the SDK's threads say of deliveries that fail, in lines of ours: one in COMPLAINT_INTERVAL_S."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock_s = clock_s
        self._next_s = clock_s()
        self._left_out = 0
        self._sdk = logging.getLogger("opentelemetry")

    def take_over(self) -> None:
        self._sdk.addHandler(self)
        self._sdk.propagate = False

    def give_back(self) -> None:
        self._sdk.removeHandler(self)
        self._sdk.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        now_s = self._clock_s()
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f" ({self._left_out} such lines left out)" if self._left_out else ""
        log.log(record.levelno, "telemetry: %s%s", record.getMessage(), more)
        self._next_s, self._left_out = now_s + COMPLAINT_INTERVAL_S, 0


def _span_exporter(settings: schema.TelemetryTraces) -> SpanExporter | None:
    if not settings.endpoint:
        return None
    if settings.transport == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter(endpoint=settings.endpoint)


def _log_exporter(settings: schema.TelemetryLogs) -> LogRecordExporter | None:
    if not settings.endpoint:
        return None
    if settings.transport == "http":
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    else:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    return OTLPLogExporter(endpoint=settings.endpoint)
