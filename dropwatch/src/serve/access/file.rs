//! The file's text. A field that is not known is a fault: it might have been meant to protect something.

use std::{collections::BTreeMap, path::Path, str::FromStr as _};

use axum::http::{HeaderName, HeaderValue};
use bcrypt::HashParts;
use serde::Deserialize;
use serde_norway::Value;

/// Headers that can be added to answers: those that tell browsers to be careful.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];
/// The largest cost of a hash: each step doubles the time, and this one is seconds.
const MOST_COST: u32 = 16;

/// Everything a file can say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Encryption; none, if there is no such section.
    pub tls_server_config: Option<Tls>,
    http_server_config: Option<Http>,
    basic_auth_users: Option<BTreeMap<String, String>>,
}

/// Encryption.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    cert: Option<String>,
    cert_file: Option<String>,
    key: Option<String>,
    key_file: Option<String>,
    client_ca: Option<String>,
    client_ca_file: Option<String>,
    /// What clients must show.
    pub client_auth_type: ClientAuth,
    min_version: Option<Version>,
    max_version: Option<Version>,
    /// Names of cipher suites, if not all are allowed.
    pub cipher_suites: Option<Vec<String>>,
    /// Whether the server's order of them counts.
    pub prefer_server_cipher_suites: Option<bool>,
    /// Names of key exchanges, if not all are allowed.
    pub curve_preferences: Option<Vec<Curve>>,
}

/// A text in the file itself, or a file that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// PEM.
    Text(&'a str),
    /// A path, relative to the directory of the file that names it.
    File(&'a str),
}

/// What clients must show, in Go's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// An optional certificate, which is not verified.
    RequestClientCert,
    /// A certificate, which is not verified.
    RequireAnyClientCert,
    /// A valid certificate, or none.
    VerifyClientCertIfGiven,
    /// A valid certificate.
    RequireAndVerifyClientCert,
}

/// A version of TLS, in Go's words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0.
    TLS10,
    /// 1.1.
    TLS11,
    /// 1.2.
    TLS12,
    /// 1.3.
    TLS13,
}

/// A key exchange, in Go's words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Curve {
    /// NIST's, of 256 bits.
    CurveP256,
    /// NIST's, of 384 bits.
    CurveP384,
    /// NIST's, of 521 bits.
    CurveP521,
    /// RFC 7748's.
    X25519,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    /// Answers are HTTP/1.1, whatever it says: a client that prefers 2 uses it where it is offered.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

impl WebConfig {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A value has each key once, which structures of maps do not check.
        let whole: Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        if whole.is_null() {
            return Ok(Self::default());
        }
        let config: Self = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        config.check().map(|()| config)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(tls) = &self.tls_server_config {
            tls.check()?;
        }
        for (user, hash) in self.basic_auth_users.iter().flatten() {
            check_user(user, hash)?;
        }
        for (name, value) in self.added() {
            if !HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(format!("the header '{name}' cannot be set: only {} can", HEADERS.join(", ")));
            }
            HeaderValue::from_str(value)
                .map_err(|_| format!("the header '{name}' has characters that none can have"))?;
        }
        Ok(())
    }

    /// Whether a client without a certificate is refused.
    pub fn requires_certificates(&self) -> bool {
        let section = self.tls_server_config.as_ref();
        section.is_some_and(|tls| tls.client_auth_type == ClientAuth::RequireAndVerifyClientCert)
    }

    fn added(&self) -> impl Iterator<Item = (&String, &String)> {
        self.http_server_config.iter().filter_map(|http| http.headers.as_ref()).flatten()
    }

    /// The headers of each answer.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let parsed = self.added().filter_map(|(name, value)| {
            Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?))
        });
        parsed.collect()
    }

    /// Hashes by users; none, if everybody is allowed.
    pub fn users(&self) -> BTreeMap<String, String> {
        self.basic_auth_users.clone().unwrap_or_default()
    }
}

fn check_user(user: &str, hash: &str) -> Result<(), String> {
    if user.is_empty() || user.contains(':') {
        return Err(format!("'{user}' cannot be a user's name: it must not be empty or have a colon in it"));
    }
    let is_bcrypt = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|start| hash.starts_with(start));
    let cost = HashParts::from_str(hash)
        .ok()
        .filter(|_| is_bcrypt && hash.len() == 60)
        .map(|parts| parts.get_cost());
    match cost {
        None => Err(format!(
            "the password of '{user}' is not a hash of bcrypt: `htpasswd -nBC 10 {user}` makes one"
        )),
        Some(4..=MOST_COST) => Ok(()),
        Some(cost) => {
            Err(format!("the password of '{user}' has the cost {cost}: it must be from 4 to {MOST_COST}"))
        }
    }
}

impl Tls {
    fn check(&self) -> Result<(), String> {
        for (name, text, file) in [
            ("cert", &self.cert, &self.cert_file),
            ("key", &self.key, &self.key_file),
            ("client_ca", &self.client_ca, &self.client_ca_file),
        ] {
            let is_required = name != "client_ca" || self.verifies();
            match (text, file) {
                (None, None) if is_required => return Err(format!("tls_server_config lacks {name}_file")),
                (Some(_), Some(_)) => {
                    return Err(format!("tls_server_config has both {name} and {name}_file"));
                }
                _ => {}
            }
        }
        let has_ca = self.client_ca.is_some() || self.client_ca_file.is_some();
        match self.client_auth_type {
            ClientAuth::RequestClientCert | ClientAuth::RequireAnyClientCert => Err(format!(
                "client_auth_type {:?} is not supported: a certificate that is not verified protects nothing \
                 (RequireAndVerifyClientCert, VerifyClientCertIfGiven and NoClientCert are)",
                self.client_auth_type
            )),
            ClientAuth::NoClientCert if has_ca => {
                Err("client_ca_file has no effect without client_auth_type: RequireAndVerifyClientCert"
                    .to_owned())
            }
            _ => self.check_versions(),
        }
    }

    fn check_versions(&self) -> Result<(), String> {
        for version in [self.min_version, self.max_version].into_iter().flatten() {
            if version < Version::TLS12 {
                return Err(format!("{version:?} is not supported: TLS12 and TLS13 are"));
            }
        }
        let (min, max) = self.versions();
        if min > max { Err(format!("min_version {min:?} is above max_version {max:?}")) } else { Ok(()) }
    }

    fn verifies(&self) -> bool {
        matches!(
            self.client_auth_type,
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert
        )
    }

    /// The oldest and the newest version that is allowed.
    pub fn versions(&self) -> (Version, Version) {
        (self.min_version.unwrap_or(Version::TLS12), self.max_version.unwrap_or(Version::TLS13))
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(Path::new)
    }

    /// The certificate and those that signed it.
    pub fn certificate(&self) -> Option<Source<'_>> {
        source(self.cert.as_ref(), self.cert_file.as_ref())
    }

    /// Its private key.
    pub fn key(&self) -> Option<Source<'_>> {
        source(self.key.as_ref(), self.key_file.as_ref())
    }

    /// What signs the certificates of clients.
    pub fn client_ca(&self) -> Option<Source<'_>> {
        source(self.client_ca.as_ref(), self.client_ca_file.as_ref())
    }
}

fn source<'a>(text: Option<&'a String>, file: Option<&'a String>) -> Option<Source<'a>> {
    text.map(|text| Source::Text(text)).or(file.map(|file| Source::File(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`, at the least cost.
    const HASH: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

    fn fault(text: &str) -> String {
        WebConfig::parse(text).expect_err(text)
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = format!(
            "tls_server_config:
  cert_file: server.crt
  key_file: /etc/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS13
  curve_preferences: [X25519, CurveP256]
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  prometheus: {HASH}
"
        );
        let config = WebConfig::parse(&text).expect("a good file");
        let tls = config.tls_server_config.as_ref().expect("a section");
        assert_eq!(tls.certificate(), Some(Source::File("server.crt")));
        assert_eq!(tls.key(), Some(Source::File("/etc/server.key")));
        assert_eq!(tls.client_ca(), Some(Source::File("ca.crt")));
        assert_eq!(tls.versions(), (Version::TLS13, Version::TLS13));
        assert_eq!(config.headers().len(), 1);
        assert_eq!(config.users(), BTreeMap::from([("prometheus".to_owned(), HASH.to_owned())]));
    }

    #[test]
    fn an_empty_file_restricts_nothing() {
        for text in ["", "# nothing\n", "{}", "basic_auth_users:\n"] {
            let config = WebConfig::parse(text).expect(text);
            assert!(config.users().is_empty() && config.tls_server_config.is_none(), "{text}");
        }
    }

    #[test]
    fn what_would_not_protect_as_it_says_is_refused() {
        let tls = |more: &str| fault(&format!("tls_server_config:\n  cert_file: a\n  key_file: b\n{more}"));
        let cases = [
            fault("basic_auth_user:\n  a: b\n"),
            fault("tls_server_config:\n  cert_file: a\n"),
            fault("tls_server_config: {}\n"),
            tls("  client_allowed_sans: [a]\n"),
            tls("  client_auth_type: RequireAnyClientCert\n"),
            tls("  client_auth_type: Sometimes\n"),
            tls("  client_auth_type: RequireAndVerifyClientCert\n"),
            tls("  client_ca_file: ca\n"),
            tls("  min_version: TLS11\n"),
            tls("  min_version: TLS13\n  max_version: TLS12\n"),
            tls("  cert: both\n"),
            fault("basic_auth_users:\n  a: secret\n"),
            fault(&format!("basic_auth_users:\n  'a:b': {HASH}\n")),
            fault(&format!("basic_auth_users:\n  a: {HASH}\n  a: {HASH}\n")),
            fault(&format!("basic_auth_users:\n  a: {}\n", HASH.replace("$04$", "$31$"))),
            fault("http_server_config:\n  headers:\n    Set-Cookie: a\n"),
            fault("http_server_config:\n  headers:\n    X-Frame-Options: \"a\\nb\"\n"),
            fault("- a list\n"),
            fault("a: [\n"),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
