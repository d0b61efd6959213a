//! TLS with libpq's meanings of `sslmode`, through OpenSSL, for both kinds of connection.

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslConnector;
use openssl::ssl::SslFiletype;
use openssl::ssl::SslMethod;
use openssl::ssl::SslRef;
use openssl::ssl::SslVerifyMode;
use openssl::ssl::SslVersion;
use openssl::x509::X509VerifyResult;

use super::Config;
use super::Error;
use super::SslMode;
use super::Target;

/// Makes a connector, or none if TLS is off.
pub(super) fn connector(target: &Target, config: &Config) -> Result<Option<SslConnector>, Error> {
    if target.ssl_mode == SslMode::Disable {
        return Ok(None);
    }
    build(target, config).map(Some).map_err(Error::TlsSetup)
}

fn build(target: &Target, config: &Config) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    let root = target.tls_files.root_cert.as_deref().unwrap_or(&config.tls.root_cert);
    if root == "system" {
        // The compiled-in directory of a vendored OpenSSL does not exist: look in the usual places.
        let found = openssl_probe::probe();
        if found.cert_file.is_some() || !found.cert_dir.is_empty() {
            let directory = found.cert_dir.first().map(AsRef::<Path>::as_ref);
            builder.load_verify_locations(found.cert_file.as_deref(), directory)?;
        }
    } else {
        builder.set_ca_file(root)?;
    }
    let verifies = match target.ssl_mode {
        SslMode::VerifyCa | SslMode::VerifyFull => true,
        // libpq: with a root certificate at hand, require verifies it.
        SslMode::Require => root != "system",
        SslMode::Disable | SslMode::Prefer => false,
    };
    builder.set_verify(if verifies { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
    if let Some(cert) = target.tls_files.cert.as_ref().or(config.tls.cert.as_ref()) {
        builder.set_certificate_chain_file(cert)?;
    }
    if let Some(key) = target.tls_files.key.as_ref().or(config.tls.key.as_ref()) {
        builder.set_private_key_file(key, SslFiletype::PEM)?;
        builder.check_private_key()?;
    }
    Ok(builder.build())
}

/// Says whether the host's name is checked against the certificate.
pub(super) fn checks_name(mode: SslMode) -> bool {
    mode == SslMode::VerifyFull
}

/// Tells which check failed.
pub(super) fn reason(ssl: &SslRef, error: &openssl::ssl::Error) -> String {
    match ssl.verify_result() {
        X509VerifyResult::OK => error.to_string(),
        failed => format!("the server's certificate is not trusted: {}", failed.error_string()),
    }
}

/// Gives the hash of the server's certificate, as `tls-server-end-point` (RFC 5929) defines it.
pub(super) fn end_point(ssl: &SslRef) -> Option<Vec<u8>> {
    let certificate = ssl.peer_certificate()?;
    let algorithms = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithms.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        nid => MessageDigest::from_nid(nid)?,
    };
    certificate.digest(digest).ok().map(|hash| hash.to_vec())
}
