//! What may be a secret, in one list, and how a text is shown without it.
//!
//! `config show`, the mistakes of a configuration, the commands in a next step and the warning about an open file all
//! ask here. In doubt a text is secret: a name may be mistyped, and a password may hold a character that ends it.

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// Parts of the names whose values are secrets: options, librdkafka's properties and libpq's parameters.
const NAMES: [&str; 6] = ["pass", "pwd", "secret", "token", "key.pem", "oauthbearer.config"];

/// The names that end so say where a secret is read from.
const REFERENCES: [&str; 2] = ["file", ".env"];

/// What else a line has that may hold a secret.
const NEIGHBOURS: [&str; 5] = ["url", "://", "pem", "oauth", "sasl"];

/// Names of this neighbourhood whose values are none.
const HARMLESS: [&str; 2] = ["sasl.mechanism", "sasl.username"];

/// The option that holds a connection string.
const URL: &str = "postgres.url";
/// What the names of librdkafka's properties stand under.
const PROPERTIES: &str = "kafka.properties.";

/// Sections in which nothing resembles a secret.
const HARMLESS_SECTIONS: [&str; 6] = ["relay", "source", "outbox", "delivery", "log", "shutdown"];

/// Options of the other sections whose values are shown in a `--set`, and the beginnings of such.
const HARMLESS_OPTIONS: [&str; 14] = [
    "http.listen",
    "postgres.connect_timeout",
    "postgres.wal_sender_timeout",
    "postgres.max_row_bytes",
    "postgres.tls.",
    "kafka.allow_plaintext",
    "kafka.brokers",
    "kafka.client_id",
    "kafka.compression",
    "kafka.metrics",
    "kafka.properties.",
    "kafka.sasl.mechanism",
    "kafka.sasl.username",
    "kafka.tls.",
];

/// Says whether nothing in a section resembles a secret.
#[must_use]
pub fn is_harmless_section(name: &str) -> bool {
    HARMLESS_SECTIONS.contains(&name)
}

/// Says whether the value of this name is a secret.
#[must_use]
pub fn is_named(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|part| name.contains(part)) && !REFERENCES.iter().any(|end| name.ends_with(end))
}

/// Says whether a line of a configuration, or the value of an option of this name, may hold a secret.
#[must_use]
pub fn may_be_in(text: &str) -> bool {
    let text = HARMLESS.iter().fold(text.to_ascii_lowercase(), |text, name| text.replace(name, ""));
    NAMES.iter().chain(&NEIGHBOURS).any(|part| text.contains(part))
}

/// Says whether the value of a valid option holds a secret, and not only where it is read from.
#[must_use]
pub fn is_in_value(option: &str, value: &str) -> bool {
    option.strip_prefix(PROPERTIES).map_or_else(|| option == URL && without_url(value) != value, is_named)
}

/// Shows the value of an option without its secret.
#[must_use]
pub fn without(option: &str, value: &str) -> String {
    // `{ file = "..." }` is a reference. A text in its place is a secret that was written into the wrong place.
    let is_reference = !option.starts_with(PROPERTIES) && value.contains('{');
    match option {
        URL => without_url(value),
        _ if is_named(option) && !is_reference => REDACTED.to_owned(),
        _ => value.to_owned(),
    }
}

/// Shows a `--set section.key=value` without its secret. Only what is known to be none is shown.
#[must_use]
pub fn without_in_set(set: &str) -> String {
    let is_path = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "_-.\" ".contains(char));
    let (path, value) = set.split_once('=').map_or((set, None), |(path, value)| (path, Some(value)));
    if !is_path(path) {
        return REDACTED.to_owned();
    }
    let Some(value) = value else { return path.to_owned() };
    let option = path.replace(['"', ' '], "");
    let is_harmless = option.split('.').next().is_some_and(is_harmless_section)
        || HARMLESS_OPTIONS.iter().any(|known| option == *known || known.ends_with('.') && option.starts_with(known));
    let looks_secret = ["@", "{", "-----"].iter().any(|part| value.contains(part));
    let shown = match option.as_str() {
        URL => without_url(value.trim().trim_matches(['"', '\''])),
        _ if is_reference(value) => value.to_owned(),
        _ if option.ends_with(".password.file") || option.ends_with(".password.env") => value.to_owned(),
        _ if is_harmless && !is_named(&option) && !looks_secret => value.to_owned(),
        _ => REDACTED.to_owned(),
    };
    format!("{path}={shown}")
}

/// Says whether a value names where a secret is, and nothing else: `{ env = "NAME" }` or `{ file = "PATH" }`.
fn is_reference(value: &str) -> bool {
    let inner = value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let pair = inner.and_then(|inner| inner.split_once('=')).filter(|(_, value)| !value.contains(['=', ',', '{']));
    pair.is_some_and(|(name, _)| ["env", "file"].contains(&name.trim()))
}

/// Shows a connection string of either form without its password.
fn without_url(url: &str) -> String {
    let is_scheme = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "+.-:".contains(char));
    match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => format!("{scheme}://{}", without_uri(rest)),
        _ => without_key_values(url),
    }
}

/// The last `@` before the query ends the password, also one that holds `/`. With one behind a `?` only, the password
/// may be on either side of it, so nothing is shown.
fn without_uri(rest: &str) -> String {
    let before_query = rest.split('?').next().unwrap_or_default();
    let Some(login_end) = before_query.rfind('@').or_else(|| (!rest.contains('@')).then_some(0)) else {
        return REDACTED.to_owned();
    };
    let (login, rest) = rest.split_at(login_end);
    let login = match login.split_once(':') {
        Some((user, password)) if !password.is_empty() => format!("{user}:{REDACTED}"),
        Some(_) | None => login.to_owned(),
    };
    let Some((place, query)) = rest.split_once('?') else { return login + rest };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() && (is_named(name) || name.contains('%')) => {
            format!("{name}={REDACTED}")
        }
        Some(_) | None => pair.to_owned(),
    };
    format!("{login}{place}?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&"))
}

/// What follows a password may be its rest, if it holds spaces without quotes: it is not shown either.
fn without_key_values(text: &str) -> String {
    let mut rest = text;
    while let Some((name, behind)) = rest.split_once('=') {
        let value = behind.trim_start();
        if is_named(name.trim()) && !value.is_empty() {
            let shown = text.get(..text.len() - behind.len()).unwrap_or_default();
            return format!("{shown}'{REDACTED}'");
        }
        rest = after(value);
    }
    text.to_owned()
}

/// Gives what follows a value: a quoted one ends at its quote, any other at a space.
fn after(value: &str) -> &str {
    let is_quoted = value.starts_with('\'');
    let mut chars = value.char_indices().skip(usize::from(is_quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '\'' if is_quoted => return value.get(at + 1..).unwrap_or_default(),
            char if !is_quoted && char.is_whitespace() => return value.get(at..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_and_a_reference_is_none() {
        for name in [
            "postgres.password",
            "PGPASSWORD",
            "sslpassword",
            "kafka.properties.ssl.keystore.password",
            "kafka.properties.ssl.key.pem",
            "kafka.properties.sasl.oauthbearer.client.secret",
            "kafka.properties.sasl.oauthbearer.assertion.private.key.passphrase",
            "kafka.properties.sasl.oauthbearer.config",
        ] {
            assert!(is_named(name) && may_be_in(name), "{name}");
        }
        for name in ["postgres.password.file", "kafka.sasl.password.env", "passfile", "user", "kafka.sasl.username"] {
            assert!(!is_named(name), "{name}");
        }
    }

    #[test]
    fn a_mechanism_is_shown_and_what_stands_beside_it_is_not() {
        for text in ["kafka.sasl.mechanism", "mechanism = \"SCRAM\"", "sasl.mechanism = \"SCRAM\""] {
            assert!(!may_be_in(text), "{text}");
        }
        for text in ["sasl = \"hunter2\"", "sasl.mechanism = \"PLAIN\", sasl.password = \"hunter2\"", "kafka.sasl.psw"]
        {
            assert!(may_be_in(text), "{text}");
        }
    }

    #[test]
    fn a_connection_string_is_shown_without_its_password() {
        for (url, expected) in [
            ("postgres://app:hunter2@db:5432/shop", "postgres://app:[redacted]@db:5432/shop"),
            ("postgres://app@db/shop?sslmode=require", "postgres://app@db/shop?sslmode=require"),
            ("postgres://app:@db/shop", "postgres://app:@db/shop"),
            ("postgres://db/shop?password=hunter2&user=a", "postgres://db/shop?password=[redacted]&user=a"),
            ("postgres://db/shop?p%61ssword=hunter2", "postgres://db/shop?p%61ssword=[redacted]"),
            ("postgres://a:p@hunter2/x@db/shop", "postgres://a:[redacted]@db/shop"),
            ("postgres://a:x?hunter2@db", "postgres://[redacted]"),
            ("postgres://db/shop?user=a&password=hunt@er2", "postgres://[redacted]"),
            ("postgres://db:5432/shop?password=hunt@er2", "postgres://[redacted]"),
            ("jdbc:postgresql://a:hunter2@db/shop", "jdbc:postgresql://a:[redacted]@db/shop"),
            ("host=db user=password dbname=password", "host=db user=password dbname=password"),
            ("host=db password=hunter2 user=a", "host=db password='[redacted]'"),
            ("host=db password = 'a hunter2'", "host=db password ='[redacted]'"),
            ("host=db password=two hunter2=words", "host=db password='[redacted]'"),
            ("options='-c a=http://b' password=hunter2", "options='-c a=http://b' password='[redacted]'"),
        ] {
            assert_eq!(without(URL, url), expected);
            assert_eq!(is_in_value(URL, url), url != expected, "{url}");
        }
    }

    #[test]
    fn an_option_is_shown_without_its_secret() {
        for (set, expected) in [
            ("kafka.sasl.password=hunter2", "kafka.sasl.password=[redacted]"),
            ("kafka.sasl.password={ env = \"X\" }", "kafka.sasl.password={ env = \"X\" }"),
            ("postgres.password.file=/run/pg", "postgres.password.file=/run/pg"),
            ("kafka.properties.ssl.key.pem={hunter2}", "kafka.properties.ssl.key.pem=[redacted]"),
            ("source.slot=orders", "source.slot=orders"),
            ("kafka.brokers=[\"a:9092\"]", "kafka.brokers=[\"a:9092\"]"),
            ("kafka.brokers=SASL://me:hunter2@a:9092", "kafka.brokers=[redacted]"),
            ("postgres.url=\"postgres://a:hunter2@h/x\"", "postgres.url=postgres://a:[redacted]@h/x"),
            ("postgres.url= 'host=h password=hunter2'", "postgres.url=host=h password='[redacted]'"),
            ("postgres.\"url\"=postgres://a:hunter2@h/x", "postgres.\"url\"=postgres://a:[redacted]@h/x"),
            ("postgres={url=\"postgres://a:hunter2@h/x\"}", "postgres=[redacted]"),
            ("kafka.properties={sasl.password=\"hunter2\"}", "kafka.properties=[redacted]"),
            ("kafka.sasl={username=\"a\",password=\"hunter2\"}", "kafka.sasl=[redacted]"),
            ("kafka.sasl.psw=hunter2", "kafka.sasl.psw=[redacted]"),
            ("kafka.tls.key=-----BEGIN hunter2", "kafka.tls.key=[redacted]"),
            ("postgres://a:hunter2@h/x?sslmode=require", "[redacted]"),
            ("postgres.url:postgres://a:hunter2@h/x", "[redacted]"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_in_set(set), expected);
        }
        assert!(is_in_value("kafka.properties.sasl.oauthbearer.client.secret", "x"));
        assert!(!is_in_value("postgres.password.file", "/run/pg"));
    }
}
