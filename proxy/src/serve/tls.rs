//! TLS as callers and endpoints meet it.

use std::path::Path;
use std::sync::Arc;

/// The cryptography that all TLS here uses.
pub(crate) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificate and key of a server that offers HTTP/2 and HTTP/1.1.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let told = |path: &Path, error: String| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| told(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(told(
            certificate,
            "has no certificate; give a PEM file with one".to_owned(),
        ));
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => told(
                key,
                format!(
                    "is not the key of {}; give the one that belongs to it",
                    certificate.display()
                ),
            ),
            error => told(certificate, error.to_string()),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
