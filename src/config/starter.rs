//! The first configuration file of a new user, as text: what a person must decide, and nothing that is a default.

use std::fmt::Write as _;

use toml::Value;

use crate::relay::publish;
use crate::relay::record::route;
use crate::units::SecretRef;

use super::options::Config;

const HEAD: &str = "\
# The configuration of walrelay. All other options have their defaults: `walrelay config show` prints each of them.
";

/// Writes the options of `walrelay config init`. A secret is only ever a reference, and a URL must hold none.
pub(super) fn text(config: &Config) -> String {
    let mut text = HEAD.to_owned();
    postgres(config, &mut text);
    source(config, &mut text);
    config.outbox.iter().for_each(|outbox| table(outbox, &mut text));
    kafka(&config.kafka, &mut text);
    text
}

fn postgres(config: &Config, text: &mut String) {
    let postgres = &config.postgres;
    text.push_str("\n[postgres]\n# A libpq connection URI or key/value string, without a password.\n");
    option("url", &string(&postgres.url), text);
    text.push_str("# Where the password is. It is read at each connect.\n");
    match &postgres.password {
        Some(password) => option("password", &reference(password), text),
        None => text.push_str(
            "# Without this option it is that of PGPASSWORD, or of libpq's password file.\n\
             # password = { file = \"/run/secrets/pg\" }      # or { env = \"PGPASSWORD\" }\n",
        ),
    }
    if postgres.tls.root_cert != Config::default().postgres.tls.root_cert {
        text.push_str("\n[postgres.tls]\n# The certificate authorities of the server, PEM.\n");
        option("root_cert", &string(&postgres.tls.root_cert), text);
    }
}

fn source(config: &Config, text: &mut String) {
    let (source, default) = (&config.source, Config::default().source);
    let names = [
        ("slot", &source.slot, &default.slot, "# The replication slot, which `walrelay setup` creates."),
        ("publication", &source.publication, &default.publication, "# The publication, which it creates too."),
    ];
    let given: Vec<_> = names.into_iter().filter(|(_, name, default, _)| name != default).collect();
    if !given.is_empty() {
        text.push_str("\n[source]\n");
    }
    for (key, name, _, comment) in given {
        let _ = writeln!(text, "{comment}");
        option(key, &string(name), text);
    }
}

fn table(outbox: &route::Config, text: &mut String) {
    text.push_str(
        "\n[[outbox]]\n# The table with its schema. `walrelay setup --with-outbox` creates it if it does not exist.\n",
    );
    option("table", &string(&outbox.table), text);
    text.push_str(
        "# The topic: text with {id}, {aggregate_type}, {aggregate_id} or {event_type}, each optionally with :lower.\n",
    );
    match &outbox.topic {
        Some(topic) => option("topic", &string(topic), text),
        None => text.push_str("# topic = \"{aggregate_type:lower}-events\"\n"),
    }
}

fn kafka(kafka: &publish::Config, text: &mut String) {
    text.push_str("\n[kafka]\n# The bootstrap servers.\n");
    let brokers = kafka.brokers.iter().cloned().map(Value::String).collect();
    option("brokers", &Value::Array(brokers).to_string(), text);
    if kafka.allow_plaintext {
        text.push_str("# Connect without TLS to brokers on other machines.\n");
        option("allow_plaintext", "true", text);
    }
    if let Some(tls) = &kafka.tls {
        text.push_str(
            "\n# TLS to Kafka: \"system\" for the certificate authorities of this machine, or a PEM file with others.\n\
             [kafka.tls]\n",
        );
        option("root_cert", &string(&tls.root_cert), text);
    }
    if let Some(sasl) = &kafka.sasl {
        text.push_str("\n[kafka.sasl]\n# SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN.\n");
        option("mechanism", &string(sasl.mechanism.name()), text);
        option("username", &string(&sasl.username), text);
        option("password", &reference(&sasl.password), text);
    }
}

fn option(key: &str, value: &str, text: &mut String) {
    let _ = writeln!(text, "{key} = {value}");
}

/// Quotes and escapes it.
fn string(value: &str) -> String {
    Value::String(value.to_owned()).to_string()
}

fn reference(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("{{ env = {} }}", string(name)),
        SecretRef::File(file) => format!("{{ file = {} }}", string(&file.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use crate::relay::publish::Mechanism;
    use crate::relay::publish::Sasl;
    use crate::relay::publish::Tls;

    use super::*;

    fn secrets() -> impl Strategy<Value = SecretRef> {
        prop_oneof![
            any::<String>().prop_map(SecretRef::Env),
            any::<String>().prop_map(|path| SecretRef::File(path.into())),
        ]
    }

    fn logins() -> impl Strategy<Value = Sasl> {
        let mechanisms =
            prop_oneof![Just(Mechanism::Plain), Just(Mechanism::ScramSha256), Just(Mechanism::ScramSha512)];
        (mechanisms, any::<String>(), secrets()).prop_map(|(mechanism, username, password)| Sasl {
            mechanism,
            username,
            password,
        })
    }

    fn configs() -> impl Strategy<Value = Config> {
        let postgres = (any::<String>(), of(secrets()), any::<String>());
        let names = (any::<String>(), any::<String>(), any::<String>(), of(any::<String>()));
        let kafka = (prop::collection::vec(any::<String>(), 0..4), any::<bool>(), of(any::<String>()), of(logins()));
        (postgres, names, kafka).prop_map(|(postgres, names, kafka)| {
            let mut config = Config::default();
            (config.postgres.url, config.postgres.password, config.postgres.tls.root_cert) = postgres;
            let outbox = &mut config.outbox[0];
            (config.source.slot, config.source.publication, outbox.table, outbox.topic) = names;
            let (brokers, allow_plaintext, root, sasl) = kafka;
            (config.kafka.brokers, config.kafka.allow_plaintext, config.kafka.sasl) = (brokers, allow_plaintext, sasl);
            config.kafka.tls = root.map(|root_cert| Tls { root_cert, ..Tls::default() });
            config
        })
    }

    proptest! {
        #[test]
        fn whatever_the_options_are_the_file_reads_back_as_these(config in configs()) {
            let text = text(&config);
            prop_assert_eq!(toml::from_str::<Config>(&text).map_err(|error| error.to_string()), Ok(config), "{}", text);
        }
    }

    #[test]
    fn a_file_of_defaults_is_the_defaults_and_only_what_is_to_be_decided() {
        let text = text(&Config::default());
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
        let options: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let expected = [
            "[postgres]",
            "url = \"postgres:///\"",
            "[[outbox]]",
            "table = \"public.outbox_events\"",
            "[kafka]",
            "brokers = [\"localhost:9092\"]",
        ];
        assert_eq!(options, expected);
    }
}
