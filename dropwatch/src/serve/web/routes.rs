//! What clients can ask of the exporter.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, WWW_AUTHENTICATE,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::serve::{Shared, access::Access, metrics::Format, page};

/// All that is served, to those who may read it.
pub fn routes(shared: Shared, access: Option<Arc<Access>>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/report", get(report))
        .route("/healthz", get(health))
        .merge(page::routes())
        .with_state(shared)
        .layer(middleware::from_fn_with_state(access, guard))
}

/// Answers those who may read it.
async fn guard(State(access): State<Option<Arc<Access>>>, request: Request, next: Next) -> Response {
    let Some(access) = access else { return next.run(request).await };
    let rules = access.rules();
    let mut response = if rules.allow(request.headers()).await {
        next.run(request).await
    } else {
        let wanted = [(WWW_AUTHENTICATE, "Basic realm=\"dropwatch\", charset=\"UTF-8\"")];
        (StatusCode::UNAUTHORIZED, wanted, "Unauthorized\n").into_response()
    };
    for (name, value) in &rules.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let published = shared.published.borrow().clone();
    let format = Format::accepted(&list(&headers, &ACCEPT));
    let common = [
        (CONTENT_TYPE, format.media_type()),
        (VARY, "accept, accept-encoding"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if accepts_gzip(&list(&headers, &ACCEPT_ENCODING)) {
        (common, [(CONTENT_ENCODING, "gzip")], published.texts.zipped(format)).into_response()
    } else {
        (common, published.texts.plain(format)).into_response()
    }
}

async fn report(State(shared): State<Shared>) -> Response {
    let json = shared.published.borrow().json.clone();
    if json.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "there is no report yet\n").into_response();
    }
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, json).into_response()
}

/// Whether counts still arrive.
async fn health(State(shared): State<Shared>) -> Response {
    let time = shared.published.borrow().report.time;
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    let text = format!("the last counts are {:.1} s old\n", age.as_secs_f64());
    let status = if shared.is_fresh() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
}

/// A header that is a list, which may come in parts.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Whether a client's `Accept-Encoding` allows gzip.
fn accepts_gzip(accepted: &str) -> bool {
    let weight = |wanted: &str| {
        accepted.split(',').find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
            let weight =
                parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f64>().ok());
            weight.filter(|_| is_wanted)
        })
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}
