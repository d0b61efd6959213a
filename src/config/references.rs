//! What the options refer to: files with passwords, certificates and keys, variables, the command for tokens.
//!
//! `config validate` reads all of it, as the relay would. `run` does not look before it connects: a secret may be
//! mounted later, and a file may be replaced. librdkafka checks the files of its properties.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::pkey::PKey;
use openssl::pkey::Private;
use openssl::x509::X509;

use crate::relay::postgres::Target;
use crate::units::SecretError;
use crate::units::SecretRef;

use super::options::Config;

/// Where OpenSSL and libpq look for the authorities of this machine.
const SYSTEM: &str = "system";

type Wrong<'a> = &'a mut dyn FnMut(&str, String);

/// Reports each reference that leads nowhere, with the path of its option.
pub(super) fn check(config: &Config, wrong: Wrong<'_>) {
    let kafka = &config.kafka;
    let key_password = kafka.tls.as_ref().and_then(|tls| tls.key_password.as_ref());
    for (option, secret) in [
        ("postgres.password", config.postgres.password.as_ref()),
        ("kafka.sasl.password", kafka.sasl.as_ref().map(|sasl| &sasl.password)),
        ("kafka.tls.key_password", key_password),
    ] {
        if let Some(Err(error)) = secret.map(SecretRef::read) {
            wrong(option, describe(&error));
        }
    }
    check_postgres(config, wrong);
    if let Some(tls) = &kafka.tls {
        // librdkafka also reads a folder of authorities.
        if !Path::new(&tls.root_cert).is_dir() {
            check_authorities("kafka.tls.root_cert", &tls.root_cert, wrong);
        }
        let (cert, key) = (tls.cert.as_deref(), tls.key.as_deref());
        let has_own = kafka.properties.keys().any(|name| name.starts_with("ssl."));
        if cert.is_some() != key.is_some() && !has_own {
            let (given, other) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            wrong(&format!("kafka.tls.{given}"), format!("needs kafka.tls.{other} as well"));
        }
        let identity = Identity {
            cert: cert.map(|path| ("kafka.tls.cert", path)),
            key: key.map(|path| ("kafka.tls.key", path)),
            password: key_password,
            encrypted: "it is encrypted: set kafka.tls.key_password",
        };
        identity.check(wrong);
    }
    if let Some(program) = kafka.oauth.as_ref().and_then(|oauth| oauth.token_command.first())
        && !program.is_empty()
        && !is_program(program)
    {
        let text = if program.contains(char::is_whitespace) {
            "the first text must be a program; give each argument as a text of its own".to_owned()
        } else {
            format!("cannot run {program}: there is no such program")
        };
        wrong("kafka.oauth.token_command", text);
    }
}

/// Each file is an option, or else a parameter of the URL.
fn check_postgres(config: &Config, wrong: Wrong<'_>) {
    let tls = &config.postgres.tls;
    let files = Target::resolve(&config.postgres.url).map(|target| target.tls_files).unwrap_or_default();
    if tls.root_cert != SYSTEM {
        check_authorities("postgres.tls.root_cert", &tls.root_cert, wrong);
    } else if let Some(roots) = &files.root_cert {
        check_authorities("postgres.url", roots, wrong);
    }
    let of_option = |option, path: &Option<_>| path.clone().map(|path: std::path::PathBuf| (option, path));
    let cert = of_option("postgres.tls.cert", &tls.cert).or_else(|| of_option("postgres.url", &files.cert));
    // The key may be in the file of the certificate.
    let key = of_option("postgres.tls.key", &tls.key).or_else(|| of_option("postgres.url", &files.key));
    let key = key.or_else(|| cert.clone());
    let identity = Identity {
        cert: cert.as_ref().map(|(option, path)| (*option, path.as_path())),
        key: key.as_ref().map(|(option, path)| (*option, path.as_path())),
        password: None,
        encrypted: "it is encrypted: remove its password, for example with `openssl pkey -in OLD -out NEW`",
    };
    identity.check(wrong);
}

/// A client's certificate and its key, each with its option.
struct Identity<'a> {
    cert: Option<(&'a str, &'a Path)>,
    key: Option<(&'a str, &'a Path)>,
    password: Option<&'a SecretRef>,
    /// What to say about a key that needs a password, but has none.
    encrypted: &'a str,
}

impl Identity<'_> {
    fn check(&self, wrong: Wrong<'_>) {
        let mut noted = |option: &str, found: Result<_, String>| found.map_err(|text| wrong(option, text)).ok();
        let cert = self.cert.and_then(|(option, path)| noted(option, certificate(path)));
        let Some((option, path)) = self.key else { return };
        // A key in the file of its certificate is not reported twice.
        if self.cert.is_some_and(|(_, other)| other == path) && cert.is_none() {
            return;
        }
        let key = match self.private_key(path) {
            Ok(key) => key,
            Err(text) => return wrong(option, text),
        };
        if let (Some(cert), Some(key)) = (cert, key)
            && !cert.public_key().is_ok_and(|public| public.public_eq(&key))
        {
            let of = self.cert.map_or_else(String::new, |(_, path)| format!(" {}", path.display()));
            wrong(option, format!("the private key {} does not belong to the certificate{of}", path.display()));
        }
    }

    /// Gives nothing if its password is missing, which is reported elsewhere.
    fn private_key(&self, path: &Path) -> Result<Option<PKey<Private>>, String> {
        let pem = read(path)?;
        let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        let password = match self.password.map(SecretRef::read) {
            Some(Err(_)) => return Ok(None),
            Some(Ok(password)) => Some(password),
            None => None,
        };
        let given = password.as_ref().map_or("", |password| password.expose()).as_bytes();
        let parsed = PKey::private_key_from_pem_callback(&pem, |buffer| {
            let length = given.len().min(buffer.len());
            buffer.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
            Ok(length)
        });
        parsed.map(Some).map_err(|_| {
            let why = match (is_encrypted, &password) {
                (true, None) => self.encrypted,
                (true, Some(_)) => "its password is wrong",
                (false, _) => "it is not a private key in PEM",
            };
            format!("cannot read the private key {}: {why}", path.display())
        })
    }
}

/// Checks a file with authorities: one of them must be valid.
fn check_authorities(option: &str, roots: &str, wrong: Wrong<'_>) {
    if roots == SYSTEM {
        return;
    }
    let path = Path::new(roots);
    let result = certificates(path).and_then(|all| {
        let ends: Vec<_> = all.iter().filter_map(|cert| invalid_now(cert).err()).collect();
        let last = ends.last().filter(|_| ends.len() == all.len());
        last.map_or(Ok(()), |why| Err(format!("no certificate in {roots} is valid: {why}")))
    });
    if let Err(text) = result {
        wrong(option, text);
    }
}

/// Reads a client's certificate: the first one of the chain.
fn certificate(path: &Path) -> Result<X509, String> {
    let first = certificates(path)?.into_iter().next();
    let first = first.ok_or_else(|| format!("there is no certificate in {}", path.display()))?;
    invalid_now(&first).map_err(|why| format!("the certificate {} is not valid: {why}", path.display()))?;
    Ok(first)
}

fn certificates(path: &Path) -> Result<Vec<X509>, String> {
    let all = X509::stack_from_pem(&read(path)?);
    let all = all.map_err(|_| format!("cannot read {}: it is not a certificate in PEM", path.display()))?;
    if all.is_empty() {
        return Err(format!("there is no certificate in PEM in {}", path.display()));
    }
    Ok(all)
}

fn invalid_now(cert: &X509) -> Result<(), String> {
    let Ok(now) = Asn1Time::days_from_now(0) else { return Ok(()) };
    if cert.not_after() < now {
        return Err(format!("it expired on {}", cert.not_after()));
    }
    if cert.not_before() > now {
        return Err(format!("it is valid from {}", cert.not_before()));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if is_content(path) {
        return Err("this is the text of a file, not its path".to_owned());
    }
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Says whether a path is what should be in the file.
fn is_content(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains('\n') || path.contains("-----BEGIN")
}

fn describe(error: &SecretError) -> String {
    match error {
        SecretError::Env { name, source: std::env::VarError::NotPresent } => {
            format!("the environment variable {name} is not set")
        }
        SecretError::Env { name, .. } => format!("the environment variable {name} is not UTF-8"),
        SecretError::File { path, .. } if is_content(path) => "this is the text of a file, not its path".to_owned(),
        SecretError::File { path, source } => format!("cannot read {}: {source}", path.display()),
        SecretError::Empty { .. } => error.to_string(),
    }
}

/// Says whether this can be run: a path to an executable file, or a name that PATH has.
fn is_program(program: &str) -> bool {
    let is_executable =
        |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return is_executable(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program)))
}
