//! Files and variables that `config validate` looks at.

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::X509;
use openssl::x509::X509NameBuilder;

use super::WITH_USER;
use crate::config::*;

/// A folder that is removed after the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("walrelay-files-{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).unwrap();
    }

    /// Gives each mistake without the folder, or nothing.
    fn validate(&self, text: &str) -> Vec<String> {
        let file = self.0.join("walrelay.toml");
        fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        assert!(load(&sources).is_ok(), "{text}: the relay starts before its files are there");
        let Err(mistakes) = validate(&sources) else { return Vec::new() };
        let folder = format!("{}/", self.0.display());
        mistakes.iter().map(|mistake| mistake.brief().replace(&folder, "")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap()
}

/// A certificate that is valid between two days, counted from today.
fn certificate(key: &PKey<Private>, days: (i64, i64)) -> Vec<u8> {
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "relay").unwrap();
    let name = name.build();
    let mut cert = X509::builder().unwrap();
    cert.set_subject_name(&name).unwrap();
    cert.set_issuer_name(&name).unwrap();
    cert.set_pubkey(key).unwrap();
    cert.set_not_before(&Asn1Time::from_unix(now + days.0 * 86_400).unwrap()).unwrap();
    cert.set_not_after(&Asn1Time::from_unix(now + days.1 * 86_400).unwrap()).unwrap();
    cert.sign(key, MessageDigest::sha256()).unwrap();
    cert.build().to_pem().unwrap()
}

fn check(folder: &Folder, text: &str, expected: &[&str]) {
    let mistakes = folder.validate(text);
    assert_eq!(mistakes.len(), expected.len(), "{text}: {mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected), "{expected:?} in {mistake:?}");
    }
}

const SASL: &str = "[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"u\"\n";

#[test]
fn every_secret_that_cannot_be_read_is_a_mistake() {
    let folder = Folder::new();
    folder.write("empty", "\n");
    folder.write("right", "secret\n");
    let text = format!("{WITH_USER}password = {{ file = \"absent\" }}\n{SASL}password.env = \"WALRELAY_NO\"\n");
    let expected = [
        "walrelay.toml:3:14: postgres.password: cannot read absent: No such file",
        "walrelay.toml:7:1: kafka.sasl.password: the environment variable WALRELAY_NO is not set",
    ];
    check(&folder, &text, &expected);
    for (file, expected) in [("empty", &["is empty"][..]), ("right", &[]), (".", &["cannot read"])] {
        check(&folder, &format!("{WITH_USER}password = {{ file = \"{file}\" }}\n"), expected);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_mistake() {
    let folder = Folder::new();
    let (own, other) = (key(), key());
    folder.write("valid.pem", certificate(&own, (-1, 1)));
    folder.write("expired.pem", certificate(&own, (-2, -1)));
    folder.write("early.pem", certificate(&own, (1, 2)));
    folder.write("both.pem", [certificate(&own, (-2, -1)), certificate(&own, (-1, 1))].concat());
    folder.write("own.key", own.private_key_to_pem_pkcs8().unwrap());
    folder.write("other.key", other.private_key_to_pem_pkcs8().unwrap());
    folder.write("text", "hello");
    let locked = own.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"right").unwrap();
    folder.write("locked.key", locked);
    folder.write("password", "right");
    folder.write("wrong", "wrong");
    let pair = |cert: &str, key: &str| format!("cert = \"{cert}\"\nkey = \"{key}\"\n");
    for (options, expected) in [
        (pair("valid.pem", "own.key"), &[][..]),
        (pair("expired.pem", "own.key"), &["tls.cert: the certificate expired.pem is not valid: it expired on "]),
        (pair("early.pem", "own.key"), &["tls.cert: the certificate early.pem is not valid: it is valid from "]),
        (pair("valid.pem", "other.key"), &["other.key does not belong to the certificate valid.pem"]),
        (pair("text", "text"), &["tls.cert: there is no certificate in PEM in text"]),
        (pair("valid.pem", "text"), &["tls.key: cannot read the private key text: it is not a private key in PEM"]),
        (pair("valid.pem", "locked.key"), &["locked.key: it is encrypted: "]),
        (pair("absent", "missing"), &["tls.cert: cannot read absent: No such", "tls.key: cannot read missing: No"]),
        ("root_cert = \"valid.pem\"\n".to_owned(), &[]),
        ("root_cert = \"both.pem\"\n".to_owned(), &[]),
        ("root_cert = \"expired.pem\"\n".to_owned(), &["tls.root_cert: no certificate in expired.pem is valid: it"]),
        ("root_cert = \"own.key\"\n".to_owned(), &["tls.root_cert: there is no certificate in PEM in own.key"]),
    ] {
        check(&folder, &format!("{WITH_USER}[postgres.tls]\n{options}"), expected);
        check(&folder, &format!("{WITH_USER}[kafka.tls]\n{options}"), expected);
    }
    let with_password = |file: &str| {
        let locked = pair("valid.pem", "locked.key");
        format!("{WITH_USER}[kafka.tls]\n{locked}key_password = {{ file = \"{file}\" }}\n")
    };
    check(&folder, &with_password("password"), &[]);
    check(&folder, &with_password("wrong"), &["kafka.tls.key: cannot read the private key locked.key: its password"]);
    check(&folder, &with_password("absent"), &["kafka.tls.key_password: cannot read absent"]);
    let only = format!("{WITH_USER}[kafka.tls]\ncert = \"valid.pem\"\n");
    check(&folder, &only, &["kafka.tls.cert: needs kafka.tls.key as well"]);
    let in_url = format!("[postgres]\nurl = \"host=localhost user=a sslrootcert={}/absent\"\n", folder.0.display());
    check(&folder, &in_url, &["walrelay.toml:2:1: postgres.url: cannot read absent: No such file"]);
}

#[test]
fn a_command_that_is_not_there_is_a_mistake() {
    let folder = Folder::new();
    let command = |program: &str| format!("{WITH_USER}[kafka.oauth]\ntoken_command = [\"{program}\"]\n");
    for (program, expected) in [
        ("sh", &[][..]),
        ("/bin/sh", &[]),
        ("/absent/sh", &["kafka.oauth.token_command: cannot run /absent/sh"]),
        ("no-such-program", &["cannot run no-such-program: there is no such program"]),
    ] {
        check(&folder, &command(program), expected);
    }
}
