//! A server over TLS whose certificate nobody vouches for.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::network::HOST;

/// Listens at `https://10.77.0.1:PORT/` until this process ends; returns that address. A client that
/// trusts it after all finds a connection that is closed.
///
/// # Errors
/// When the port is taken.
pub(crate) fn serve(port: u16) -> anyhow::Result<String> {
    let own = rcgen::generate_simple_self_signed([HOST.to_owned()]).context("make a certificate")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)?;
    let config = Arc::new(config);
    let address: SocketAddr = format!("{HOST}:{port}").parse()?;
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { continue };
            // A client that says nothing must not keep the next one waiting for ever.
            if stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok() {
                // The client goes away in the handshake, which is what this is for.
                let _ = StreamOwned::new(connection, stream).read(&mut [0; 1024]);
            }
        }
    });
    Ok(format!("https://{address}/"))
}
