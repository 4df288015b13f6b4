//! OTLP over gRPC: a malformed request is answered with INVALID_ARGUMENT.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{Books, Malformed, SharedBooks, check, open};

#[derive(Clone)]
struct OtlpReceiver(SharedBooks);

/// Serves until the listener fails or the caller gives up.
pub(super) async fn serve(listener: TcpListener, books: SharedBooks) {
    let ear = OtlpReceiver(Arc::clone(&books));
    let _ended = Server::builder()
        .add_service(TraceServiceServer::new(ear.clone()))
        .add_service(MetricsServiceServer::new(ear.clone()))
        .add_service(LogsServiceServer::new(ear))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await;
}

impl OtlpReceiver {
    fn take<T>(
        &self,
        checked: Result<T, Malformed>,
        enter: impl FnOnce(&mut Books, T),
    ) -> Result<(), Status> {
        let mut books = open(&self.0);
        match checked {
            Ok(taken) => {
                enter(&mut books, taken);
                Ok(())
            }
            Err(reason) => {
                books.refuse(&reason);
                Err(Status::invalid_argument(reason.to_string()))
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for OtlpReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(check::spans(request.into_inner()), Books::take_spans)?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for OtlpReceiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(check::points(request.into_inner()), Books::take_metrics)?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for OtlpReceiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(check::logs(request.into_inner()), Books::take_logs)?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
