//! Which name a program is called by on loopback.
//!
//! A page in a browser may come from a name that its maker has lead to this machine, and would then be
//! shown what is answered there. The browser says the name, and no page has an address for one.

use std::net::{IpAddr, SocketAddr};

/// Whether a host, with a port or without, is an address or this machine, and so no name that somebody made.
pub fn is_address(host: &str) -> bool {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let bare = host.strip_prefix('[').and_then(|of| of.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || bare.unwrap_or(host).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_and_a_name_is_none() {
        for host in [
            "127.0.0.1:9464",
            "127.0.0.1",
            "[::1]:9464",
            "[::1]",
            "localhost:9464",
            "LOCALHOST",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "rebound.example:9464",
            "rebound.example",
            "127.0.0.1.example",
            "localhost.example:9464",
            "",
            ":9464",
            "127.0.0.1:9464:1",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }
}
