//! Whom to believe on the wire. Secrecy and reachability only: what is fetched is believed for its
//! signatures, whoever served it.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A configuration with the system's certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` are obeyed),
/// or, where there are none as in an empty container image, with Mozilla's list as built in;
/// and the extra ones.
///
/// # Errors
///
/// What is wrong with `extra_ca`.
pub fn config(extra_ca: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    if let Some(pem) = extra_ca {
        let extra = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| "the extra certificates are not PEM".to_owned())?;
        if extra.is_empty() {
            return Err("the extra certificates hold none".to_owned());
        }
        for certificate in extra {
            roots.add(certificate).map_err(|error| format!("an extra certificate: {error}"))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
