//! OTLP over HTTP with binary protobuf: a malformed request is answered with 400, an unknown path with 404, another
//! method with 405, another content type with 415.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::net::TcpListener;

use super::{Malformed, SharedBooks, check, open};

/// The largest accepted request, as in the OpenTelemetry Collector.
const BODY_MAX: usize = 20 * 1_024 * 1_024;
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// Serves until the caller gives up.
pub(super) async fn serve(listener: TcpListener, books: SharedBooks) {
    loop {
        // The process has no free descriptor; the client will connect again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&books)));
            let connection = hyper::server::conn::http1::Builder::new();
            let _closed = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    books: SharedBooks,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if !["/v1/traces", "/v1/metrics", "/v1/logs"].contains(&path.as_str()) {
        return Ok(plain(StatusCode::NOT_FOUND, "unknown signal"));
    }
    if request.method() != Method::POST {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "POST is the method"));
    }
    if request.headers().get(CONTENT_TYPE).is_none_or(|value| value != PROTOBUF) {
        return Ok(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/x-protobuf is the type"));
    }
    let taken = match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => take(&path, body.to_bytes(), &books),
        Err(error) => Err(Malformed::Body(error.to_string())),
    };
    Ok(match taken {
        Ok(body) => {
            let mut response = Response::new(Full::new(body.into()));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, PROTOBUF.parse().expect("is a header value"));
            response
        }
        Err(reason) => {
            open(&books).refuse(&reason);
            plain(StatusCode::BAD_REQUEST, &reason.to_string())
        }
    })
}

fn take(path: &str, body: Bytes, books: &SharedBooks) -> Result<Vec<u8>, Malformed> {
    match path {
        "/v1/traces" => {
            let spans = check::spans(decoded(body)?)?;
            open(books).take_spans(spans);
            Ok(ExportTraceServiceResponse::default().encode_to_vec())
        }
        "/v1/metrics" => {
            let points = check::points(decoded(body)?)?;
            open(books).take_metrics(points);
            Ok(ExportMetricsServiceResponse::default().encode_to_vec())
        }
        _ => {
            let count = check::logs(decoded(body)?)?;
            open(books).take_logs(count);
            Ok(ExportLogsServiceResponse::default().encode_to_vec())
        }
    }
}

fn decoded<M: Message + Default>(body: Bytes) -> Result<M, Malformed> {
    M::decode(body).map_err(|error| Malformed::Body(error.to_string()))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
