//! TLS with invalid certificates, and servers that break off.

use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::EcGroup;
use openssl::ec::EcKey;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::pkey::Private;
use openssl::ssl::SslAcceptor;
use openssl::ssl::SslMethod;
use openssl::ssl::SslVerifyMode;
use openssl::x509::X509;
use openssl::x509::X509NameBuilder;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::extension::SubjectAlternativeName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use crate::relay::postgres::Config;
use crate::relay::postgres::Error;
use crate::relay::postgres::Session;
use crate::relay::postgres::Tls;
use crate::relay::postgres::tests::fake::WELCOME;
use crate::relay::postgres::tests::fake::authentication;
use crate::relay::postgres::tests::fake::listen;
use crate::relay::postgres::tests::fake::startup;
use crate::relay::postgres::tests::fake::target;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

struct Identity {
    cert: X509,
    key: PKey<Private>,
}

/// Creates a certificate that is valid between two days, counted from today; without an issuer it is self-signed.
fn identity(name: &str, days: (i64, i64), issuer: Option<&Identity>) -> Identity {
    const DAY: i64 = 86_400;
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(now + days.0 * DAY).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(now + days.1 * DAY).unwrap()).unwrap();
    match issuer {
        Some(issuer) => {
            builder.set_issuer_name(issuer.cert.subject_name()).unwrap();
            let mut names = SubjectAlternativeName::new();
            let names = names.dns(name).build(&builder.x509v3_context(Some(&issuer.cert), None)).unwrap();
            builder.append_extension(names).unwrap();
            builder.sign(&issuer.key, MessageDigest::sha256()).unwrap();
        }
        None => {
            builder.set_issuer_name(&subject).unwrap();
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
            builder.sign(&key, MessageDigest::sha256()).unwrap();
        }
    }
    Identity { cert: builder.build(), key }
}

/// A file that is removed after the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("walrelay-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Accepts one connection, with TLS if the client requests it, and answers the startup message.
async fn serve(listener: &TcpListener, server: &Identity, client_root: Option<&Identity>, answer: &[u8]) {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key(&server.key).unwrap();
    acceptor.set_certificate(&server.cert).unwrap();
    if let Some(root) = client_root {
        acceptor.cert_store_mut().add_cert(root.cert.clone()).unwrap();
        acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    let acceptor = acceptor.build();
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        startup(&mut socket).await;
        socket.write_all(b"S").await.unwrap();
        let ssl = openssl::ssl::Ssl::new(acceptor.context()).unwrap();
        let mut stream = SslStream::new(ssl, socket).unwrap();
        if Pin::new(&mut stream).accept().await.is_err() {
            continue;
        }
        startup(&mut stream).await;
        stream.write_all(answer).await.unwrap();
    }
}

async fn connect(params: &str, tls: Tls, server: &Identity, answer: &[u8]) -> Result<Session, Error> {
    let (listener, address) = listen().await;
    let text = format!("host=db.test hostaddr=127.0.0.1 port={} user=u password=secret {params}", address.port());
    let config = Config { tls, ..Config::default() };
    let target = target(&text);
    tokio::select! {
        session = Session::connect(&target, &config, "test") => session,
        () = serve(&listener, server, None, answer) => unreachable!("it serves for ever"),
    }
}

fn trusting(root: &File) -> Tls {
    Tls { root_cert: root.path().to_str().unwrap().to_owned(), ..Tls::default() }
}

#[tokio::test]
async fn each_mode_checks_what_libpq_checks_and_says_what_failed() {
    let root = identity("root", (-10, 10), None);
    let stranger = identity("stranger", (-10, 10), None);
    let root_file = File::new("modes.pem", &root.cert.to_pem().unwrap());
    let good = identity("db.test", (-1, 1), Some(&root));
    let elsewhere = identity("other.test", (-1, 1), Some(&root));
    let expired = identity("db.test", (-9, -1), Some(&root));
    let early = identity("db.test", (2, 9), Some(&root));
    let foreign = identity("db.test", (-1, 1), Some(&stranger));
    let own = identity("db.test", (-1, 1), None);
    let rows: [(&Identity, [Option<&str>; 4]); 6] = [
        // prefer, require without and with a root (two rows in one), verify-ca, verify-full
        (&good, [None, None, None, None]),
        (&elsewhere, [None, None, None, Some("hostname mismatch")]),
        (&expired, [None, Some("has expired"), Some("has expired"), Some("has expired")]),
        (&early, [None, Some("not yet valid"), Some("not yet valid"), Some("not yet valid")]),
        (&foreign, [None, Some("issuer"), Some("issuer"), Some("issuer")]),
        (&own, [None, Some("self-signed"), Some("self-signed"), Some("self-signed")]),
    ];
    for (number, (server, expected)) in rows.into_iter().enumerate() {
        for (mode, expected) in ["prefer", "require", "verify-ca", "verify-full"].into_iter().zip(expected) {
            let result = connect(&format!("sslmode={mode}"), trusting(&root_file), server, WELCOME).await;
            match (result, expected) {
                (Ok(session), None) => assert!(session.is_tls()),
                (Err(error), Some(part)) => {
                    assert!(error.to_string().contains(part), "{number} {mode}: {error}");
                    assert_eq!((error.code().to_string().as_str(), error.fate()), ("WR-6701", Fate::Fatal));
                }
                (result, expected) => panic!("{number} {mode}: {result:?} instead of {expected:?}"),
            }
        }
        connect("sslmode=require", Tls::default(), server, WELCOME).await.unwrap();
    }
    let unknown = connect("sslmode=verify-full", Tls::default(), &good, WELCOME).await.unwrap_err();
    assert!(unknown.to_string().contains("issuer"), "{unknown}");
}

#[tokio::test]
async fn a_named_root_is_trusted_alone() {
    let (root, stranger) = (identity("root", (-10, 10), None), identity("stranger", (-10, 10), None));
    let root_file = File::new("alone.pem", &stranger.cert.to_pem().unwrap());
    let server = identity("db.test", (-1, 1), Some(&root));
    let from_url = format!("sslmode=verify-full sslrootcert={}", root_file.path().display());
    assert!(matches!(connect(&from_url, Tls::default(), &server, WELCOME).await, Err(Error::Tls { .. })));
}

#[tokio::test]
async fn channel_binding_is_required_over_tls_unless_told_otherwise() {
    let root = identity("root", (-10, 10), None);
    let root_file = File::new("binding.pem", &root.cert.to_pem().unwrap());
    let server = identity("db.test", (-1, 1), Some(&root));
    let only_scram = authentication(10, b"SCRAM-SHA-256\0\0");
    let refused = connect("sslmode=verify-full", trusting(&root_file), &server, &only_scram).await.unwrap_err();
    assert!(refused.to_string().contains("a proxy or pooler"), "{refused}");
    let url = "channel_binding=prefer";
    let tried = connect(url, trusting(&root_file), &server, &only_scram).await.unwrap_err();
    assert!(matches!(tried, Error::Closed | Error::Io { .. }), "{tried:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_unless_tls_is_only_preferred() {
    for (mode, is_accepted) in [("prefer", true), ("require", false), ("verify-ca", false), ("verify-full", false)] {
        let (listener, address) = listen().await;
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            assert_eq!(startup(&mut socket).await, 80_877_103_u32.to_be_bytes());
            socket.write_all(b"N").await.unwrap();
            if is_accepted {
                startup(&mut socket).await;
                socket.write_all(WELCOME).await.unwrap();
            }
        };
        let target = target(&format!("postgres://u@{address}/d?sslmode={mode}"));
        let config = Config::default();
        let (session, ()) = tokio::join!(Session::connect(&target, &config, "test"), serve);
        match session {
            Ok(session) => assert!(is_accepted && !session.is_tls(), "{mode}"),
            Err(error) => assert!(!is_accepted && matches!(error, Error::TlsRefused { .. }), "{mode}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_slipped_in_before_tls_is_not_believed() {
    let (listener, address) = listen().await;
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        startup(&mut socket).await;
        socket.write_all(&[b"S", WELCOME].concat()).await.unwrap();
        // Until the client closes.
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    };
    let target = target(&format!("postgres://u@{address}/d?sslmode=require"));
    let config = Config::default();
    let (refused, ()) = tokio::join!(Session::connect(&target, &config, "test"), serve);
    assert!(matches!(refused, Err(Error::Tls { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_handshake_that_breaks_off_may_be_tried_again() {
    for answer in [&b""[..], b"S", b"E"] {
        let (listener, address) = listen().await;
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            startup(&mut socket).await;
            socket.write_all(answer).await.unwrap();
        };
        let target = target(&format!("postgres://u@{address}/d?sslmode=require"));
        let config = Config::default();
        let (broken, ()) = tokio::join!(Session::connect(&target, &config, "test"), serve);
        assert_eq!(broken.unwrap_err().fate(), Fate::Transient, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let root = identity("root", (-10, 10), None);
    let (server, client) = (identity("db.test", (-1, 1), Some(&root)), identity("u", (-1, 1), Some(&root)));
    let root_file = File::new("mutual.pem", &root.cert.to_pem().unwrap());
    let cert = File::new("mutual-cert.pem", &client.cert.to_pem().unwrap());
    let key = File::new("mutual-key.pem", &client.key.private_key_to_pem_pkcs8().unwrap());
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let locked = client.key.private_key_to_pem_pkcs8_passphrase(cipher, b"phrase").unwrap();
    let locked = File::new("mutual-locked.pem", &locked);
    for (key, is_accepted) in [(Some(&key), true), (Some(&locked), false), (None, false)] {
        let (listener, address) = listen().await;
        let text = format!("host=db.test hostaddr=127.0.0.1 port={} user=u", address.port());
        let mut tls = trusting(&root_file);
        if let Some(key) = key {
            tls.cert = Some(cert.path().to_owned());
            tls.key = Some(key.path().to_owned());
        }
        let (config, target) = (Config { tls, ..Config::default() }, target(&text));
        let session = tokio::select! {
            session = Session::connect(&target, &config, "test") => session,
            () = serve(&listener, &server, Some(&root), WELCOME) => unreachable!("it serves for ever"),
        };
        assert_eq!(session.is_ok(), is_accepted, "{session:?}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let missing = Tls { root_cert: "/nowhere/root.pem".to_owned(), ..Tls::default() };
    let server = identity("db.test", (-1, 1), None);
    let error = connect("sslmode=verify-full", missing, &server, WELCOME).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code().to_string().as_str()),
        ("could not read file /nowhere/root.pem", "WR-6422")
    );
    let empty = File::new("empty.pem", b"nothing");
    let error = connect("sslmode=verify-full", trusting(&empty), &server, WELCOME).await.unwrap_err();
    assert!(error.to_string().contains("no certificate in it"), "{error}");
}
