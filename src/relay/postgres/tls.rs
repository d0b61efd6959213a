//! TLS towards PostgreSQL: libpq's modes on OpenSSL.
//!
//! Certificates and keys are read at each connect, so a rotated file is in use from the next connection on.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::ErrorCode;
use openssl::ssl::SslConnector;
use openssl::ssl::SslConnectorBuilder;
use openssl::ssl::SslMethod;
use openssl::ssl::SslRef;
use openssl::ssl::SslVerifyMode;
use openssl::ssl::SslVersion;
use openssl::x509::X509;
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::certificate;
use super::config::SYSTEM;
use super::config::Tls;
use super::error::Error;
use super::target::Host;
use super::target::SslMode;
use super::target::Target;

/// Opens TLS sessions.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    connector: SslConnector,
    checks_host: bool,
}

impl Connector {
    /// Configures TLS for the target's `sslmode`. The options override the files of the connection string.
    pub(super) fn new(target: &Target, options: &Tls) -> Result<Self, Error> {
        let files = &target.tls_files;
        let roots = Some(options.root_cert.as_str()).filter(|roots| *roots != SYSTEM);
        let roots = roots.or(files.root_cert.as_deref());
        let mut builder =
            SslConnector::builder(SslMethod::tls_client()).map_err(setup("could not initialize OpenSSL"))?;
        builder
            .set_min_proto_version(Some(SslVersion::TLS1_2))
            .map_err(setup("could not set the minimum TLS version"))?;
        // One system call for each read of the socket, not two for each TLS record.
        builder.set_read_ahead(true);
        let checks_server = match target.ssl_mode {
            SslMode::Disable | SslMode::Prefer => false,
            // As in libpq, a given root certificate is used.
            SslMode::Require => roots.is_some(),
            SslMode::VerifyCa | SslMode::VerifyFull => true,
        };
        if checks_server {
            trust(&mut builder, roots.unwrap_or(SYSTEM))?;
            builder.set_verify(SslVerifyMode::PEER);
        } else {
            builder.set_verify(SslVerifyMode::NONE);
        }
        if let Some(cert) = options.cert.as_ref().or(files.cert.as_ref()) {
            let key = options.key.as_ref().or(files.key.as_ref()).unwrap_or(cert);
            identify(&mut builder, cert, key)?;
        }
        Ok(Self { connector: builder.build(), checks_host: target.ssl_mode == SslMode::VerifyFull })
    }
}

fn setup(what: impl Into<String>) -> impl FnOnce(ErrorStack) -> Error {
    let what = what.into();
    move |source| Error::TlsSetup { what, source }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::TlsFile { path: path.to_owned(), source })
}

/// Trusts the certificate authorities in a file and no others, or those of this machine.
fn trust(builder: &mut SslConnectorBuilder, roots: &str) -> Result<(), Error> {
    if roots == SYSTEM {
        // OpenSSL comes with the binary, so its compiled-in paths are not this machine's.
        let found = openssl_probe::probe();
        let directory = found.cert_dir.first().map(PathBuf::as_path);
        if found.cert_file.is_none() && directory.is_none() {
            return Ok(());
        }
        return builder
            .load_verify_locations(found.cert_file.as_deref(), directory)
            .map_err(setup("could not load the certificate authorities of this machine"));
    }
    let what = format!("could not read root certificate file {roots}");
    let authorities = X509::stack_from_pem(&read(Path::new(roots))?).map_err(setup(what.as_str()))?;
    if authorities.is_empty() {
        return Err(Error::TlsSetup { what: format!("{what}: no certificate in it"), source: ErrorStack::get() });
    }
    let mut store = X509StoreBuilder::new().map_err(setup(what.as_str()))?;
    for authority in authorities {
        store.add_cert(authority).map_err(setup(what.as_str()))?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}

/// Loads the client certificate.
fn identify(builder: &mut SslConnectorBuilder, cert: &Path, key: &Path) -> Result<(), Error> {
    read(cert)?;
    let what = format!("could not read certificate file {}", cert.display());
    builder.set_certificate_chain_file(cert).map_err(setup(what))?;
    let what = format!("could not load private key file {}", key.display());
    // Without a callback OpenSSL would ask for a passphrase on the terminal.
    let key = PKey::private_key_from_pem_callback(&read(key)?, |_| Ok(0)).map_err(setup(what.as_str()))?;
    builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(setup(what))
}

/// Opens a TLS session on a socket after the server agreed to it.
pub(super) async fn handshake(
    connector: &Connector,
    host: &Host,
    socket: TcpStream,
) -> Result<SslStream<TcpStream>, Error> {
    let what = || format!("TLS handshake with {host} failed");
    let name = match host {
        Host::Tcp { name, .. } => name.as_str(),
        Host::Unix { .. } => "localhost",
    };
    let mut session = connector.connector.configure().map_err(setup(what()))?;
    session.set_verify_hostname(connector.checks_host);
    let session = session.into_ssl(name).map_err(setup(what()))?;
    let mut stream = SslStream::new(session, socket).map_err(setup(what()))?;
    let Err(error) = Pin::new(&mut stream).connect().await else {
        return Ok(stream);
    };
    let verdict = stream.ssl().verify_result();
    if verdict != X509VerifyResult::OK {
        let reason = format!("certificate verify failed: {}", verdict.error_string());
        return Err(Error::Tls { host: host.to_string(), reason });
    }
    let is_broken = error.code() == ErrorCode::SYSCALL || error.code() == ErrorCode::ZERO_RETURN;
    if is_broken || error.io_error().is_some() {
        let cause = error.into_io_error().unwrap_or_else(|_| std::io::ErrorKind::UnexpectedEof.into());
        return Err(Error::io(what())(cause));
    }
    Err(Error::Tls { host: host.to_string(), reason: error.to_string() })
}

/// Hashes the server's certificate for channel binding (RFC 5929, `tls-server-end-point`).
pub(super) fn end_point_hash(session: &SslRef) -> Option<Vec<u8>> {
    let certificate = session.peer_certificate()?;
    let algorithm = certificate.signature_algorithm().object().nid();
    let digest = match algorithm.signature_algorithms().map(|algorithms| algorithms.digest) {
        // The RFC replaces MD5 and SHA-1 by SHA-256.
        Some(Nid::MD5 | Nid::SHA1) => MessageDigest::sha256(),
        Some(digest) if digest != Nid::UNDEF => MessageDigest::from_nid(digest)?,
        Some(_) | None => certificate::pss_digest(&certificate.to_der().ok()?)?,
    };
    certificate.digest(digest).ok().map(|hash| hash.to_vec())
}
