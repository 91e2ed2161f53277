//! Clients of a loopback address: those of this host, and no web site.
//!
//! A browser lets a script read only from the site that it is from. But a site's owner can make its name point to 127.0.0.1
//! once the script is there, which can then read from what listens at that address. The browser still sends the site's
//! name, as `Host`.

use std::net::IpAddr;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header::HOST, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

/// The answer to all others.
const REFUSED: &str = "This address is for clients of its own host: the Host header must be localhost or a loopback address. \
                       A proxy can set it, or use a Unix socket (--listen unix:PATH).\n";

/// The same for those that call it by a name of its own host.
pub fn local_only(router: Router) -> Router {
    router.layer(middleware::from_fn(guard))
}

async fn guard(request: Request, next: Next) -> Response {
    if is_local(&request) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, REFUSED).into_response()
    }
}

/// Every name that the request has for this host; no browser leaves it out.
fn is_local(request: &Request) -> bool {
    let names = request.headers().get_all(HOST);
    let has_any = names.iter().next().is_some() || request.version() < Version::HTTP_11;
    let in_line = request.uri().authority();
    has_any && names.iter().all(is_local_name) && in_line.is_none_or(is_loopback)
}

fn is_local_name(name: &HeaderValue) -> bool {
    Authority::try_from(name.as_bytes()).is_ok_and(|name| is_loopback(&name))
}

/// Whatever the port: a tunnel has another one.
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    is_address || host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, line: &str, hosts: &[&str]) -> Request {
        let request = Request::builder().version(version).uri(line);
        let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
        request.body(axum::body::Body::empty()).expect("a request")
    }

    #[test]
    fn names_of_this_host_are_its_own() {
        for host in [
            "localhost",
            "LocalHost:10098",
            "localhost.",
            "127.0.0.1:10098",
            "127.9.8.7",
            "[::1]:9",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_local(&request(Version::HTTP_11, "/", &[host])), "{host}");
        }
        assert!(is_local(&request(Version::HTTP_10, "/", &[])), "no browser");
        assert!(is_local(&request(Version::HTTP_11, "http://localhost/", &["localhost"])));
    }

    #[test]
    fn every_other_name_is_a_sites() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:127",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "192.0.2.1",
            "0.0.0.0",
            "[::]",
            "::1",
            "",
            "local host",
        ] {
            assert!(!is_local(&request(Version::HTTP_11, "/", &[host])), "{host}");
            assert!(!is_local(&request(Version::HTTP_11, "/", &["localhost", host])), "{host}, second");
            assert!(!is_local(&request(Version::HTTP_10, "/", &[host])), "{host}");
        }
        assert!(!is_local(&request(Version::HTTP_11, "http://evil.example/", &["localhost"])));
        assert!(!is_local(&request(Version::HTTP_11, "/", &[])), "HTTP/1.1 requires one");
    }
}
