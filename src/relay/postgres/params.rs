//! Parses both forms of a connection string into named parameters.

use std::collections::BTreeMap;

/// Parameters by their names in libpq.
pub(super) type Params = BTreeMap<String, String>;

/// The connection string cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadConninfo {
    /// Its syntax is wrong.
    #[error("{0}")]
    Form(String),
    /// A parameter does not exist.
    #[error(
        "invalid or unsupported connection parameter {name:?}{}",
        nearest.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
    )]
    Unknown {
        name: String,
        /// The nearest known one.
        nearest: Option<&'static str>,
    },
    /// A value is not one of those allowed.
    #[error("invalid {name} value: {value:?}; allowed: {allowed}")]
    Value {
        /// The parameter.
        name: &'static str,
        value: String,
        allowed: &'static str,
    },
}

/// The supported parameters, then those that are accepted without effect: application name, encoding and socket
/// settings are fixed, and there is no GSS encryption.
const KNOWN: [&str; 29] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "channel_binding",
    "options",
    "connect_timeout",
    "service",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "sslcompression",
    "sslsni",
];

/// The word itself is not shown: it may be a part of a password.
pub(super) const NO_EQUALS: &str = "missing \"=\" in the connection string: a URI begins with postgres:// or \
                                    postgresql://, and a value with spaces needs single quotes";
/// Neither is an invalid name.
pub(super) const NOT_A_NAME: &str = "invalid name of a connection parameter (not shown: it may be secret): a URI \
                                     begins with postgres:// or postgresql://, and a value with spaces needs single \
                                     quotes";

/// Reads a connection URI or a key/value string.
pub(super) fn read(text: &str) -> Result<Params, BadConninfo> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") { uri(text) } else { key_values(text) }
}

/// Says whether a connection string contains a password.
#[must_use]
pub fn has_password(text: &str) -> bool {
    read(text).is_ok_and(|params| params.get("password").is_some_and(|password| !password.is_empty()))
}

/// Checks that this is a known parameter.
pub(super) fn known(name: &str) -> Result<(), BadConninfo> {
    if KNOWN.contains(&name) {
        return Ok(());
    }
    let nearest = KNOWN.into_iter().filter(|known| strsim::damerau_levenshtein(known, name) <= 3);
    let nearest = nearest.min_by_key(|known| strsim::damerau_levenshtein(known, name));
    // What does not look like a name may be a part of a password.
    let is_name = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if !is_name {
        return Err(BadConninfo::Form(NOT_A_NAME.to_owned()));
    }
    Err(BadConninfo::Unknown { name: name.to_owned(), nearest })
}

fn uri(text: &str) -> Result<Params, BadConninfo> {
    let mut params = Params::new();
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    if !authority.contains('@') && text.contains('@') {
        // Probably the password has an unescaped character. Its parts must not be shown.
        return Err(BadConninfo::Form(
            "unexpected @ after the host: write / ? # @ and : in user and password as %2F %3F %23 %40 and %3A"
                .to_owned(),
        ));
    }
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let mut set = |name: &str, value: &str| -> Result<(), BadConninfo> {
        if !value.is_empty() {
            params.insert(name.to_owned(), percent_decode(value)?);
        }
        Ok(())
    };
    set("user", user)?;
    set("password", password.unwrap_or_default())?;
    set("dbname", dbname)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (name, behind) = bracketed
                    .split_once(']')
                    .ok_or_else(|| BadConninfo::Form("IPv6 address without closing bracket".to_owned()))?;
                match behind.strip_prefix(':') {
                    Some(port) => (name, port),
                    None if behind.is_empty() => (name, ""),
                    None => return Err(BadConninfo::Form("unexpected character between ] and the port".to_owned())),
                }
            }
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    set("host", &names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        set("port", &ports.join(","))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| BadConninfo::Form("missing \"=\" in a parameter of the connection URI".to_owned()))?;
        let name = match name {
            "ssl" if value == "true" => {
                set("sslmode", "require")?;
                continue;
            }
            name => name,
        };
        known(name)?;
        set(name, value)?;
    }
    Ok(params)
}

fn percent_decode(text: &str) -> Result<String, BadConninfo> {
    let bad = || BadConninfo::Form("invalid percent-encoded token in the connection URI".to_owned());
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).map_err(|_| bad())?);
    }
    String::from_utf8(decoded)
        .map_err(|_| BadConninfo::Form("the decoded connection URI is not valid UTF-8".to_owned()))
}

fn key_values(text: &str) -> Result<Params, BadConninfo> {
    let mut params = Params::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(params);
        }
        let mut name = String::new();
        while let Some(char) = chars.next_if(|char| *char != '=' && !char.is_whitespace()) {
            name.push(char);
        }
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(BadConninfo::Form(NO_EQUALS.to_owned()));
        }
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        let is_quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if is_quoted => break,
                Some(char) if !is_quoted && char.is_whitespace() => break,
                Some(char) => value.push(char),
                None if is_quoted => {
                    return Err(BadConninfo::Form("unterminated quoted string in the connection string".to_owned()));
                }
                None => break,
            }
        }
        if params.contains_key("password") && !KNOWN.contains(&name.as_str()) {
            // It may be the second word of a password with spaces.
            return Err(BadConninfo::Form(NO_EQUALS.to_owned()));
        }
        known(&name)?;
        params.insert(name, value);
    }
}
