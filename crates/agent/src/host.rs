//! Which name the agent is called by on loopback.
//!
//! A page in a browser may come from a name that its maker has lead to this machine, and would then be
//! shown what is answered there. The browser says the name, and no page has an address for one.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sealcast_serving::is_address;

use crate::api::Fault;

/// Answers those who call the agent by its address, or by none.
pub(crate) async fn by_address(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match hosts.all(|host| host.to_str().is_ok_and(is_address)) {
        true => next.run(request).await,
        false => Fault::new("api.host", "on loopback the agent is called by its address")
            .answer(StatusCode::MISDIRECTED_REQUEST),
    }
}
