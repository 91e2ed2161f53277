//! Encryption, with certificates from files.

use std::{borrow::Cow, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Unusable,
    file::{ClientAuth, Curve, Source, Tls, Version},
    read,
};

/// What a section says, with the files it names; `path` is the file it is in.
pub fn acceptor(section: &Tls, path: &Path, directory: &Path) -> Result<TlsAcceptor, Unusable> {
    let provider = Arc::new(provider(section).map_err(|why| Unusable::new(path, &why))?);
    let files = Files { path, directory };
    let (chain, certificate) = files.chain(section.certificate())?;
    let (key, _) = files.key(section.key())?;
    let verifier = files.verifier(section, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(section))
        .map_err(|error| Unusable::new(path, &error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| Unusable::new(&certificate, &format!("it cannot be used with its key: {error}")))?;
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where texts are.
struct Files<'a> {
    path: &'a Path,
    directory: &'a Path,
}

/// What was read, and in which file.
type Found<T> = Result<(T, std::path::PathBuf), Unusable>;

impl Files<'_> {
    fn text<'a>(&self, source: Option<Source<'a>>) -> Found<Cow<'a, [u8]>> {
        match source {
            Some(Source::File(file)) => {
                let path = self.directory.join(file);
                read(&path).map(|text| (text.into(), path))
            }
            Some(Source::Text(text)) => Ok((text.as_bytes().into(), self.path.to_owned())),
            None => Err(Unusable::new(self.path, "it names no certificate or no key")),
        }
    }

    fn chain(&self, source: Option<Source<'_>>) -> Found<Vec<CertificateDer<'static>>> {
        let (text, path) = self.text(source)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok((chain, path)),
            Ok(_) => Err(Unusable::new(&path, "there is no certificate in it (BEGIN CERTIFICATE)")),
            Err(error) => Err(Unusable::new(&path, &format!("a certificate in it cannot be read: {error}"))),
        }
    }

    fn key(&self, source: Option<Source<'_>>) -> Found<PrivateKeyDer<'static>> {
        let (text, path) = self.text(source)?;
        match PrivateKeyDer::from_pem_slice(&text) {
            Ok(key) => Ok((key, path)),
            Err(error) => {
                Err(Unusable::new(&path, &format!("there is no private key in it that can be read: {error}")))
            }
        }
    }

    fn verifier(
        &self,
        section: &Tls,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, Unusable> {
        let is_optional = match section.client_auth_type {
            ClientAuth::RequireAndVerifyClientCert => false,
            ClientAuth::VerifyClientCertIfGiven => true,
            _ => return Ok(None),
        };
        let (authorities, path) = self.chain(section.client_ca())?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| Unusable::new(&path, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = if is_optional { verifier.allow_unauthenticated() } else { verifier };
        verifier.build().map(Some).map_err(|error| Unusable::new(&path, &error))
    }
}

fn versions(section: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let (min, max) = section.versions();
    let all = [(Version::TLS12, &TLS12), (Version::TLS13, &TLS13)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect()
}

/// What encrypts, as far as the section allows.
fn provider(section: &Tls) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if let Some(names) = &section.cipher_suites {
        let known = provider.cipher_suites.clone();
        let chosen = names.iter().map(|name| suite(name, &known));
        provider.cipher_suites = chosen.collect::<Result<_, _>>()?;
    }
    if let Some(curves) = &section.curve_preferences {
        provider.kx_groups = curves.iter().map(|curve| group(*curve)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// Go and the RFC write `TLS_AES_128_GCM_SHA256`, rustls `TLS13_AES_128_GCM_SHA256`.
fn suite(name: &str, known: &[SupportedCipherSuite]) -> Result<SupportedCipherSuite, String> {
    let word = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let found = known.iter().find(|suite| word(suite) == name);
    found.copied().ok_or_else(|| {
        let words: Vec<_> = known.iter().map(word).collect();
        format!("there is no cipher suite '{name}' (known ones: {})", words.join(", "))
    })
}

fn group(curve: Curve) -> Result<&'static dyn SupportedKxGroup, String> {
    match curve {
        Curve::CurveP256 => Ok(ring::kx_group::SECP256R1),
        Curve::CurveP384 => Ok(ring::kx_group::SECP384R1),
        Curve::X25519 => Ok(ring::kx_group::X25519),
        Curve::CurveP521 => Err("CurveP521 is not supported: X25519, CurveP256 and CurveP384 are".to_owned()),
    }
}
