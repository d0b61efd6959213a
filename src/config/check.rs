//! Checks that depend on several options, and warnings.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::relay::Mode;
use crate::relay::postgres::Target;
use crate::relay::publish;
use crate::relay::publish::Mechanism;
use crate::relay::record::route;
use crate::relay::record::route::Preset;
use crate::units::SecretRef;

use super::options::Config;

/// The maximum number of rows of one batch of the polling source.
const MAX_BATCH_ROWS: u32 = 10_000;

/// Checks the options together.
pub(super) fn check(config: &Config, wrong: &mut dyn FnMut(&str, String)) {
    match Target::resolve(&config.postgres.url) {
        Err(error) => wrong("postgres.url", error.to_string()),
        Ok(target) if target.accepts_any_server(&config.postgres.tls) => wrong(
            "postgres.url",
            "sslmode=verify-ca with the system's certificate authorities accepts any server with a certificate of one \
             of them: use sslmode=verify-full, or set postgres.tls.root_cert to your own authority"
                .to_owned(),
        ),
        Ok(_) => {}
    }
    let is_slot_name = |name: &str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !is_slot_name(&config.source.slot) {
        wrong("source.slot", "invalid slot name: allowed are 1 to 63 of a-z 0-9 _".to_owned());
    }
    if !(1..=63).contains(&config.source.publication.len()) {
        wrong("source.publication", "invalid publication name: allowed are 1 to 63 bytes".to_owned());
    }
    // PostgreSQL cuts a longer application_name, by which a relay knows itself.
    let name = &config.relay.name;
    if !(1..=63).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        wrong("relay.name", "invalid name: allowed are 1 to 63 printable ASCII characters without spaces".to_owned());
    }
    if let Err(error) = config.log.check() {
        wrong("log.level", error.to_string());
    }
    check_outboxes(config, wrong);
    check_kafka(config, wrong);
    check_limits(config, wrong);
}

fn check_outboxes(config: &Config, wrong: &mut dyn FnMut(&str, String)) {
    if config.outbox.is_empty() {
        wrong("outbox", "needs at least one [[outbox]]".to_owned());
    }
    let mut tables = BTreeSet::new();
    for (place, outbox) in config.outbox.iter().enumerate() {
        let path = format!("outbox.{place}");
        for (option, table) in [("table", &outbox.table)]
            .into_iter()
            .chain(outbox.renamed_from.iter().map(|table| ("renamed_from", table)))
        {
            let parts: Vec<&str> = table.split('.').collect();
            if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
                wrong(&format!("{path}.{option}"), "invalid table name: the form is schema.table".to_owned());
            }
            if !tables.insert(table.trim_start_matches("public.")) {
                let text = format!("table {table} is in two [[outbox]], or twice in one");
                wrong(&format!("{path}.{option}"), text);
            }
        }
        if outbox.preset == Preset::Debezium && config.source.mode == Mode::Poll {
            let text = "debezium needs source.mode = \"wal\": its table has no columns for polling".to_owned();
            wrong(&format!("{path}.preset"), text);
        }
        let partition = ("partition".to_owned(), outbox.partition.as_ref());
        let columns = outbox.columns.all().map(|(option, names)| (format!("columns.{option}"), names));
        for (option, names) in columns.into_iter().chain([partition]) {
            if names.is_some_and(|names| !names.is_fit()) {
                wrong(
                    &format!("{path}.{option}"),
                    "needs at least one name, none of them empty or repeated".to_owned(),
                );
            }
        }
        for (option, text) in route::mistakes(outbox) {
            wrong(&format!("{path}.{option}"), text);
        }
    }
}

fn check_kafka(config: &Config, wrong: &mut dyn FnMut(&str, String)) {
    let kafka = &config.kafka;
    if kafka.brokers.is_empty() {
        wrong("kafka.brokers", "needs at least one broker, each host:port".to_owned());
    }
    let has_port = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    // What stands before an @ may be a password, so it is not shown.
    let is_url = |broker: &str| broker.contains(['@', '/']) || broker.contains(char::is_whitespace);
    for broker in &kafka.brokers {
        if is_url(broker) {
            wrong("kafka.brokers", "a broker is host:port, without a scheme, a login or a path".to_owned());
        } else if !has_port(broker) {
            wrong("kafka.brokers", format!("{broker:?} is not of the form host:port"));
        }
    }
    if let Some(text) = publish::plaintext_error(kafka) {
        wrong("kafka.brokers", text);
    }
    if kafka.tls.is_none() && kafka.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        wrong("kafka.sasl.mechanism", "PLAIN sends the password in clear text: it needs [kafka.tls]".to_owned());
    }
    if let Some(oauth) = &kafka.oauth {
        if kafka.sasl.is_some() {
            wrong("kafka.oauth", "a connection has one mechanism: remove [kafka.sasl] or [kafka.oauth]".to_owned());
        }
        if oauth.token_command.first().is_none_or(String::is_empty) {
            wrong("kafka.oauth.token_command", "needs a program, and its arguments".to_owned());
        }
        if let Some(text) = publish::clear_token_error(kafka) {
            wrong("kafka.oauth.token_command", text);
        }
    }
    for (name, text) in publish::check_properties(kafka) {
        wrong(&format!("kafka.properties.{name}"), text);
    }
}

fn check_limits(config: &Config, wrong: &mut dyn FnMut(&str, String)) {
    let second = Duration::from_secs(1);
    let durations = [
        ("postgres.connect_timeout", config.postgres.connect_timeout, second / 10),
        ("postgres.wal_sender_timeout", config.postgres.wal_sender_timeout, second),
        ("source.disconnect_on_stall_after", config.source.disconnect_on_stall_after, second),
        ("source.takeover_delay", config.source.takeover_delay, Duration::ZERO),
        ("source.poll.interval", config.source.poll.interval, second / 1_000),
        ("source.poll.batch_timeout", config.source.poll.batch_timeout, second),
        ("shutdown.drain", config.shutdown.drain, Duration::ZERO),
    ];
    for (path, value, least) in durations {
        if value < least {
            wrong(path, format!("must be at least {}", humantime::format_duration(least)));
        }
    }
    if !(1..=MAX_BATCH_ROWS).contains(&config.source.poll.max_batch_rows) {
        wrong("source.poll.max_batch_rows", format!("must be from 1 to {MAX_BATCH_ROWS}"));
    }
    for (path, value) in [
        ("delivery.max_in_flight_bytes", config.delivery.max_in_flight_bytes),
        ("postgres.max_row_bytes", config.postgres.max_row_bytes),
    ] {
        if !((64 << 10)..=(1 << 30)).contains(&value) {
            wrong(path, "must be from 64KiB to 1GiB".to_owned());
        }
    }
}

/// Gives the warnings. The file is given if it contains a password.
pub(super) fn warnings(holds_password: Option<&Path>, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(path) = holds_password.filter(|path| is_open(path)) {
        warnings.push(format!("{} holds a password and others can read it: chmod 600 it", path.display()));
    }
    let (stall, silence) = (config.source.disconnect_on_stall_after, config.postgres.wal_sender_timeout);
    if stall > silence {
        warnings.push(format!(
            "source.disconnect_on_stall_after is {}, but counts as postgres.wal_sender_timeout ({}), after which \
             PostgreSQL may give the slot to another relay",
            humantime::format_duration(stall),
            humantime::format_duration(silence)
        ));
    }
    let kafka = &config.kafka;
    let secrets = kafka.sasl.iter().map(|sasl| &sasl.password);
    let secrets = secrets.chain(kafka.tls.iter().filter_map(|tls| tls.key_password.as_ref()));
    for secret in config.postgres.password.iter().chain(secrets) {
        if let SecretRef::File(file) = secret
            && is_open(file)
        {
            warnings.push(format!("the secret in {} can be read by others: chmod 600 it", file.display()));
        }
    }
    let of_url = Target::resolve(&config.postgres.url).ok().and_then(|target| target.tls_files.key);
    let keys = config.postgres.tls.key.iter().chain(of_url.iter().filter(|_| config.postgres.tls.key.is_none()));
    for key in keys.chain(kafka.tls.iter().filter_map(|tls| tls.key.as_ref())) {
        if is_open(key) {
            warnings.push(format!("the private key {} can be read by others: chmod 600 it", key.display()));
        }
    }
    let property = |name: &str| kafka.properties.get(name).map(String::as_str);
    if property("enable.ssl.certificate.verification").is_some_and(|value| ["false", "f", "0"].contains(&value)) {
        warnings.push(
            "kafka.properties.enable.ssl.certificate.verification is off: anybody can impersonate a broker and receive \
             every event; set kafka.tls.root_cert instead"
                .to_owned(),
        );
    }
    if property("ssl.endpoint.identification.algorithm") == Some("none") {
        warnings.push(
            "kafka.properties.ssl.endpoint.identification.algorithm is none: anybody with a certificate of the same \
             authority can impersonate a broker"
                .to_owned(),
        );
    }
    warnings
}

/// Says whether others than the owner can read a file. As in libpq, a file of root may also be readable by its group.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let others = if meta.uid() == 0 { 0o037 } else { 0o077 };
        meta.mode() & others != 0
    })
}
