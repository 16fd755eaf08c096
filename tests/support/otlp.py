"""Receivers of OTLP on 127.0.0.1, by HTTP and by gRPC, that keep what they get."""

from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_rpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_rpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SETTINGS = {"IGGY_TELEMETRY_ENABLED": "true", "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"}


class Receiver:
    """What arrived; with `settings` a server sends here. transport: "http" or "grpc"."""

    def __init__(self, transport: str = "http") -> None:
        self.transport = transport
        self.traces: list[ExportTraceServiceRequest] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self._server: Any = _grpc_server(self) if transport == "grpc" else _http_server(self)

    @property
    def settings(self) -> dict[str, str]:
        port: int = self._server.port if self.transport == "grpc" else self._server.server_port
        return SETTINGS | endpoints(f"http://127.0.0.1:{port}", self.transport)

    def spans(self) -> list[Span]:
        groups = [group for request in self.traces for group in request.resource_spans]
        return [span for group in groups for scope in group.scope_spans for span in scope.spans]

    def span(self, name: str) -> Span:
        """Return the one span of that name."""
        (span,) = [span for span in self.spans() if span.name == name]
        return span

    def records(self) -> list[LogRecord]:
        groups = [group for request in self.logs for group in request.resource_logs]
        return [record for group in groups for scope in group.scope_logs for record in scope.log_records]

    def bodies(self) -> list[str]:
        return [record.body.string_value for record in self.records()]

    def everything(self) -> bytes:
        return b"".join(request.SerializeToString() for request in (*self.traces, *self.logs))

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()


def endpoints(url: str, transport: str) -> dict[str, str]:
    """Return the variables of a server that sends to the receiver at `url`."""
    return {
        "IGGY_TELEMETRY_LOGS_TRANSPORT": transport,
        "IGGY_TELEMETRY_LOGS_ENDPOINT": f"{url}/v1/logs",
        "IGGY_TELEMETRY_TRACES_TRANSPORT": transport,
        "IGGY_TELEMETRY_TRACES_ENDPOINT": f"{url}/v1/traces",
    }


def attributes_of(pairs: Any) -> dict[str, Any]:
    items: list[KeyValue] = list(pairs)
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in items}


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def _http_server(receiver: Receiver) -> _HttpServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                receiver.traces.append(ExportTraceServiceRequest.FromString(data))
            elif self.path == "/v1/logs":
                receiver.logs.append(ExportLogsServiceRequest.FromString(data))
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = _HttpServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


class _GrpcServer:
    def __init__(self, receiver: Receiver) -> None:
        class Traces(traces_rpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                receiver.traces.append(request)
                return ExportTraceServiceResponse()

        class Logs(logs_rpc.LogsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                receiver.logs.append(request)
                return ExportLogsServiceResponse()

        self._server: Any = grpc.server(ThreadPoolExecutor(2))
        traces: Any = traces_rpc  # what is generated has no types
        logs: Any = logs_rpc
        traces.add_TraceServiceServicer_to_server(Traces(), self._server)
        logs.add_LogsServiceServicer_to_server(Logs(), self._server)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()


def _grpc_server(receiver: Receiver) -> _GrpcServer:
    return _GrpcServer(receiver)
