//! TLS as callers and endpoints meet it.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;

const DAY_S: i64 = 86_400;
/// Days before its end from which a certificate is warned of: whoever renews by hand still has a working week, and
/// programs that do it have failed to by then.
const SOON_DAYS: i64 = 14;

/// The cryptography that all TLS here uses.
pub(crate) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Why nobody can be served with a certificate and its key, and with which of the two that has to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{0}")]
    Certificate(String),
    #[error("{0}")]
    Key(String),
}

/// Certificate and key of a server that offers HTTP/2 and HTTP/1.1.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates(certificate).map_err(TlsError::Certificate)?;
    let wrong = |error: rustls::Error| TlsError::Certificate(told(certificate, error));
    let mut config = rustls::ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, private(key).map_err(TlsError::Key)?)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Key(told(
                key,
                format!(
                    "is not the key of {}; give the one that belongs to it",
                    certificate.display()
                ),
            )),
            error => wrong(error),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The private key of a file.
fn private(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let none = || {
        let message = "holds no unencrypted private key that can be used; `openssl pkey -in FILE` writes one without \
                       its password";
        told(path, message)
    };
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::Io(error) => told(path, error),
        _ => none(),
    })?;
    // What is under the right heading may be anything.
    let usable = crypto().key_provider.load_private_key(key.clone_key());
    usable.map_err(|_| none()).map(|_| key)
}

/// What is to be said of the file's certificate that ends first, where it has ended or soon will.
pub(crate) fn ending(path: &Path, now_ms: i64) -> Option<String> {
    // What can not be read is told where it is used.
    let chain = certificates(path).ok()?;
    let ends = chain.iter().filter_map(|der| {
        let validity = Certificate::from_der(der).ok()?.tbs_certificate.validity;
        i64::try_from(validity.not_after.to_unix_duration().as_secs()).ok()
    });
    let until = ends.min()?;
    let left = until.saturating_sub(now_ms.div_euclid(1_000));
    let day = Timestamp::from_second(until).ok()?.strftime("%Y-%m-%d");
    let file = path.display();
    if left <= 0 {
        return Some(format!("{file} expired on {day}: callers refuse it"));
    }
    (left < SOON_DAYS * DAY_S).then(|| {
        format!(
            "{file} expires on {day}, in {} days",
            left.div_euclid(DAY_S)
        )
    })
}

/// The certificates of a file, as those that a server's own has to be signed by.
pub(crate) fn trusted(path: &Path) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| told(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| told(path, error))?;
    if read.is_empty() {
        let message = "has no certificate; give a PEM file with one";
        return Err(told(path, message));
    }
    Ok(read)
}

fn told(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
