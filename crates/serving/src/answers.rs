//! What is answered.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// That all is well, or what is not.
pub fn health(problems: &[String]) -> Response {
    match problems.is_empty() {
        true => "ok\n".into_response(),
        false => {
            let text = problems.join("\n") + "\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// What is measured.
pub fn metrics(text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text).into_response()
}
