//! An OTLP receiver in this process, over gRPC or HTTP, with or without TLS.

mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
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
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::oneshot;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

#[derive(Default)]
struct Received {
    spans: Vec<ExportTraceServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    /// The header `x-tenant` of each request that has one.
    tenants: Vec<String>,
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Received>>);

/// Ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    book: Book,
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    pub(crate) fn grpc() -> Receiver {
        Receiver::grpc_by(tonic::transport::Server::builder())
    }

    /// The certificate of `localhost` in PEM, and the receiver.
    pub(crate) fn grpc_with_tls() -> (String, Receiver) {
        let (certificate, key) = tls::made();
        let identity = Identity::from_pem(&certificate, key);
        let server = tonic::transport::Server::builder();
        let server = server.tls_config(ServerTlsConfig::new().identity(identity));
        (certificate, Receiver::grpc_by(server.expect("the certificate fits the key")))
    }

    fn grpc_by(mut server: tonic::transport::Server) -> Receiver {
        Receiver::start(|listener, book| async move {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            server
                .add_service(TraceServiceServer::new(book.clone()))
                .add_service(LogsServiceServer::new(book.clone()))
                .add_service(MetricsServiceServer::new(book))
                .serve_with_incoming(incoming)
                .await
                .expect("the receiver serves");
        })
    }

    /// Takes no other signal than metrics.
    pub(crate) fn grpc_of_metrics() -> Receiver {
        Receiver::start(|listener, book| async move {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            tonic::transport::Server::builder()
                .add_service(MetricsServiceServer::new(book))
                .serve_with_incoming(incoming)
                .await
                .expect("the receiver serves");
        })
    }

    /// Refuses each request by 401.
    pub(crate) fn http_unauthorized() -> Receiver {
        Receiver::start(|listener, _| async move {
            let router = Router::new().fallback(async || StatusCode::UNAUTHORIZED);
            axum::serve(listener, router).await.expect("the receiver serves");
        })
    }

    pub(crate) fn http() -> Receiver {
        Receiver::start(|listener, book| async move {
            axum::serve(listener, book.router()).await.expect("the receiver serves");
        })
    }

    /// The certificate of `localhost` in PEM, and the receiver.
    pub(crate) fn http_with_tls() -> (String, Receiver) {
        let (certificate, key) = tls::made();
        let acceptor = tls::acceptor(&certificate, &key);
        let receiver = Receiver::start(|listener, book| async move {
            let listener = tls::TlsListener { listener, acceptor };
            axum::serve(listener, book.router()).await.expect("the receiver serves");
        });
        (certificate, receiver)
    }

    fn start<F: Future<Output = ()>>(
        serve: impl FnOnce(tokio::net::TcpListener, Book) -> F + Send + 'static,
    ) -> Receiver {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        listener.set_nonblocking(true).expect("a socket may be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let book = Book::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let kept = book.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, kept) => {}
                    _ = stopped => {}
                }
            });
        });
        Receiver { address, book, _stop: stop }
    }

    /// In the order of arrival.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let book = self.book.get();
        let resources = book.spans.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|r| &r.scope_spans).flat_map(|s| s.spans.clone()).collect()
    }

    pub(crate) fn log_lines(&self) -> Vec<LogRecord> {
        let book = self.book.get();
        let resources = book.logs.iter().flat_map(|request| &request.resource_logs);
        resources.flat_map(|r| &r.scope_logs).flat_map(|s| s.log_records.clone()).collect()
    }

    /// The metrics of the last collection.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let book = self.book.get();
        let last = book.metrics.last().into_iter().flat_map(|request| &request.resource_metrics);
        last.flat_map(|r| &r.scope_metrics).flat_map(|s| s.metrics.clone()).collect()
    }

    /// The header `x-tenant` of each request that has one.
    pub(crate) fn tenants(&self) -> Vec<String> {
        self.book.get().tenants.clone()
    }

    /// An attribute of the resource of the first spans.
    pub(crate) fn resource(&self, key: &str) -> String {
        let book = self.book.get();
        let resource = book.spans[0].resource_spans[0].resource.clone().expect("a resource");
        let found = resource.attributes.into_iter().find(|kv| kv.key == key);
        match found.and_then(|kv| kv.value?.value) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{key} is {other:?}"),
        }
    }
}

impl Book {
    fn get(&self) -> std::sync::MutexGuard<'_, Received> {
        self.0.lock().expect("nobody panicked with the book in hand")
    }
}

impl Book {
    fn router(self) -> Router {
        Router::new()
            .route("/v1/traces", self.keeping(|received, request| received.spans.push(request)))
            .route("/v1/logs", self.keeping(|received, request| received.logs.push(request)))
            .route("/v1/metrics", self.keeping(|received, request| received.metrics.push(request)))
    }

    fn keeping<T: Message + Default + 'static>(
        &self,
        keep: fn(&mut Received, T),
    ) -> axum::routing::MethodRouter {
        let book = self.clone();
        post(async move |headers: HeaderMap, body: Bytes| {
            let tenant = headers.get(TENANT).map(|tenant| tenant.to_str().expect("ASCII"));
            let request = T::decode(body).expect("the body is OTLP");
            book.note(tenant, |received| keep(received, request));
        })
    }

    fn note(&self, tenant: Option<&str>, keep: impl FnOnce(&mut Received)) {
        let mut received = self.get();
        received.tenants.extend(tenant.map(str::to_owned));
        keep(&mut received);
    }

    fn note_grpc<T>(&self, request: Request<T>, keep: fn(&mut Received, T)) {
        let tenant = request.metadata().get(TENANT).map(|tenant| tenant.to_str().expect("ASCII"));
        let tenant = tenant.map(str::to_owned);
        self.note(tenant.as_deref(), |received| keep(received, request.into_inner()));
    }
}

const TENANT: &str = "x-tenant";

#[tonic::async_trait]
impl TraceService for Book {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note_grpc(request, |received, request| received.spans.push(request));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Book {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.note_grpc(request, |received, request| received.logs.push(request));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Book {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.note_grpc(request, |received, request| received.metrics.push(request));
        Ok(Response::new(Default::default()))
    }
}
