//! The arguments of `config init`, and the configuration that they are.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;

use crate::config::Config;
use crate::relay::publish;
use crate::relay::publish::Mechanism;
use crate::secret;
use crate::shell::word;
use crate::units::Secret;
use crate::units::SecretRef;

use super::error::Error;
use super::error::PASSWORD_FILE;

/// The name of the option that the URL becomes.
const URL: &str = "postgres.url";
/// The certificate authorities of this machine.
const SYSTEM: &str = "system";

/// What a person must decide before the first event.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct InitArgs {
    /// Connection URI of the relay's role, without a password [default: libpq's PG* variables and defaults]
    #[arg(long, value_name = "URL", value_parser = secret_url)]
    postgres_url: Option<Secret>,
    /// The file that holds the password of that role
    #[arg(long, value_name = "FILE", group = "postgres_password")]
    postgres_password_file: Option<PathBuf>,
    /// The environment variable that holds it
    #[arg(long, value_name = "NAME", group = "postgres_password")]
    postgres_password_env: Option<String>,
    /// Certificate authorities of PostgreSQL, PEM [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    postgres_ca: Option<PathBuf>,
    /// The outbox table with its schema [default: public.outbox_events]
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
    /// The topic, or a template of columns [default: {aggregate_type:lower}-events]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// The replication slot [default: walrelay]
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// The publication [default: walrelay]
    #[arg(long, value_name = "NAME")]
    publication: Option<String>,
    /// Bootstrap servers, separated by commas [default: localhost:9092]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    brokers: Vec<String>,
    /// TLS also to brokers on this machine; to others it is the default
    #[arg(long)]
    kafka_tls: bool,
    /// Certificate authorities of Kafka, PEM [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    kafka_ca: Option<PathBuf>,
    /// No TLS, also to brokers on other machines
    #[arg(long, conflicts_with_all = ["kafka_tls", "kafka_ca"])]
    kafka_plaintext: bool,
    /// The user for SASL
    #[arg(long, value_name = "NAME", requires = "kafka_password")]
    kafka_user: Option<String>,
    /// SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN [default: SCRAM-SHA-512]
    #[arg(long, value_name = "NAME", requires = "kafka_user", value_parser = mechanism)]
    kafka_mechanism: Option<Mechanism>,
    /// The file that holds the password of that user
    #[arg(long, value_name = "FILE", requires = "kafka_user", group = "kafka_password")]
    kafka_password_file: Option<PathBuf>,
    /// The environment variable that holds it
    #[arg(long, value_name = "NAME", requires = "kafka_user", group = "kafka_password")]
    kafka_password_env: Option<String>,
    /// Print the file instead of writing it
    #[arg(long)]
    pub(super) print: bool,
}

impl InitArgs {
    /// Refuses a URL with a password: the file would hold it.
    pub(super) fn refuse_password(&self) -> Result<(), Error> {
        let Some(url) = &self.postgres_url else { return Ok(()) };
        let shown = secret::without(URL, url.expose());
        if shown == url.expose() {
            return Ok(());
        }
        let bare = shown.replacen(&format!(":{}@", secret::REDACTED), "@", 1);
        let is_uri = bare.contains("://") && !bare.contains(secret::REDACTED);
        let is_given = self.postgres_password_file.is_some() || self.postgres_password_env.is_some();
        let again = is_uri.then(|| {
            let file = if is_given { self.postgres_password_file.clone() } else { Some(PASSWORD_FILE.into()) };
            let args = Self { postgres_url: Some(Secret::new(bare)), postgres_password_file: file, ..self.clone() };
            let print = if self.print { " --print" } else { "" };
            format!("walrelay config init{print}{}", args.words())
        });
        Err(Error::Password { again, is_given })
    }

    /// Says whether the table was named.
    pub(super) const fn names_table(&self) -> bool {
        self.table.is_some()
    }

    /// Gives the configuration. A path is relative to the current folder here, and to its own folder in the file.
    pub(super) fn config(&self, file: &Path) -> Config {
        let path = |path: &PathBuf| from_file(path, file);
        let password = |file: &Option<PathBuf>, name: &Option<String>| {
            file.as_ref().map(path).map(SecretRef::File).or_else(|| name.clone().map(SecretRef::Env))
        };
        let root = |given: &PathBuf| {
            if given == Path::new(SYSTEM) { SYSTEM.to_owned() } else { path(given).display().to_string() }
        };
        let mut config = Config::default();
        let set = |option: &mut String, given: Option<&str>| {
            if let Some(given) = given {
                given.clone_into(option);
            }
        };
        set(&mut config.postgres.url, self.postgres_url.as_ref().map(Secret::expose));
        config.postgres.password = password(&self.postgres_password_file, &self.postgres_password_env);
        set(&mut config.postgres.tls.root_cert, self.postgres_ca.as_ref().map(root).as_deref());
        set(&mut config.source.slot, self.slot.as_deref());
        set(&mut config.source.publication, self.publication.as_deref());
        for outbox in &mut config.outbox {
            set(&mut outbox.table, self.table.as_deref());
            outbox.topic.clone_from(&self.topic);
        }
        let kafka = &mut config.kafka;
        if !self.brokers.is_empty() {
            kafka.brokers = self.brokers.iter().map(|broker| broker.trim().to_owned()).collect();
        }
        kafka.allow_plaintext = self.kafka_plaintext;
        let login = password(&self.kafka_password_file, &self.kafka_password_env);
        kafka.sasl = self.kafka_user.clone().zip(login).map(|(username, password)| publish::Sasl {
            mechanism: self.kafka_mechanism.unwrap_or(Mechanism::ScramSha512),
            username,
            password,
        });
        if self.has_tls(kafka) {
            kafka.tls = Some(publish::Tls {
                root_cert: self.kafka_ca.as_ref().map_or_else(|| SYSTEM.to_owned(), root),
                ..publish::Tls::default()
            });
        }
        config
    }

    /// TLS is the default where it protects something: to other machines, and a password in clear text.
    fn has_tls(&self, kafka: &publish::Config) -> bool {
        let is_clear = kafka.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain);
        let is_needed = is_clear || publish::plaintext_error(kafka).is_some();
        self.kafka_tls || self.kafka_ca.is_some() || is_needed && !self.kafka_plaintext
    }

    /// Gives the words of the same call, without `--print`. The URL holds no password.
    pub(super) fn words(&self) -> String {
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        let brokers = (!self.brokers.is_empty()).then(|| self.brokers.join(","));
        let options = [
            ("postgres-url", self.postgres_url.as_ref().map(|url| secret::without(URL, url.expose()))),
            ("postgres-password-file", file(&self.postgres_password_file)),
            ("postgres-password-env", self.postgres_password_env.clone()),
            ("postgres-ca", file(&self.postgres_ca)),
            ("table", self.table.clone()),
            ("topic", self.topic.clone()),
            ("slot", self.slot.clone()),
            ("publication", self.publication.clone()),
            ("brokers", brokers),
            ("kafka-ca", file(&self.kafka_ca)),
            ("kafka-user", self.kafka_user.clone()),
            ("kafka-mechanism", self.kafka_mechanism.map(|mechanism| mechanism.name().to_owned())),
            ("kafka-password-file", file(&self.kafka_password_file)),
            ("kafka-password-env", self.kafka_password_env.clone()),
        ];
        let flags = [("kafka-tls", self.kafka_tls), ("kafka-plaintext", self.kafka_plaintext)];
        let flags = flags.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| format!(" --{name}"));
        let options = options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", word(&value?))));
        options.chain(flags).collect()
    }
}

/// Gives a path as the file must name it.
fn from_file(path: &Path, file: &Path) -> PathBuf {
    let is_beside = file.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder == Path::new("."));
    if is_beside { path.to_owned() } else { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
}

/// Takes the URL as a secret: no error prints it.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a parser of arguments")]
fn secret_url(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn mechanism(text: &str) -> Result<Mechanism, String> {
    let name = text.to_ascii_uppercase();
    Mechanism::deserialize(name.as_str().into_deserializer())
        .map_err(|_: ValueError| "expected SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use crate::cli::args::Args;
    use crate::cli::args::ConfigVerb;
    use crate::cli::args::Verb;
    use crate::config;

    use super::*;

    /// Of each line at most one is given.
    const CHOICES: [&[&str]; 10] = [
        &[
            "--postgres-url=postgres://relay@db.example,db2.example:6432/shop?sslmode=verify-full",
            "--postgres-url=host=/run/postgresql dbname='my shop' user=\"relay\"",
            "--postgres-url=postgresql:///",
        ],
        &["--postgres-password-file=my \"pass\\word\".txt", "--postgres-password-env=PG_PASSWORD"],
        &["--postgres-ca=/etc/ssl/postgres.pem", "--postgres-ca=system"],
        &["--table=public.\"Outbox\"", "--table=events"],
        &["--topic=orders", "--topic={aggregate_type}.{event_type:lower}"],
        &["--slot=other"],
        &["--publication=it's \"mine\"\u{7}"],
        &["--brokers=a.example:9092,b.example:9093", "--brokers=localhost:1, [::1]:2", "--brokers=[2001:db8::1]:9092"],
        &["--kafka-tls", "--kafka-ca=ca.pem", "--kafka-plaintext"],
        &[
            "--kafka-user=relay\u{1}--kafka-password-file=k",
            "--kafka-user=é\"\u{1}--kafka-password-env=K\u{1}--kafka-mechanism=scram-sha-256",
            "--kafka-user=relay\u{1}--kafka-password-env=K\u{1}--kafka-mechanism=PLAIN",
        ],
    ];

    fn init_args(words: &[&str]) -> InitArgs {
        let args = Args::try_parse_from([&["walrelay", "config", "init"], words].concat()).unwrap();
        let Verb::Config { verb: ConfigVerb::Init(init) } = args.verb else { panic!("{words:?}") };
        *init
    }

    proptest! {
        #[test]
        fn every_combination_of_valid_options_is_a_valid_configuration(
            chosen in CHOICES.map(|choices| of(select(choices))).to_vec()
        ) {
            let words: Vec<&str> = chosen.into_iter().flatten().flat_map(|word| word.split('\u{1}')).collect();
            let args = init_args(&words);
            let written = args.config(Path::new("config.toml"));
            let text = config::starter(&written);
            let checked = config::check_text(Path::new("config.toml"), &text);
            // The one contradiction: a password in clear text.
            let is_clear = words.contains(&"--kafka-mechanism=PLAIN") && words.contains(&"--kafka-plaintext");
            prop_assert_eq!(checked.is_err(), is_clear, "{}\n{:?}", text, checked);
            prop_assert_eq!(toml::from_str::<Config>(&text).map_err(|error| error.to_string()), Ok(written));
        }
    }

    #[test]
    fn a_path_is_relative_to_the_current_folder_and_in_the_file_to_that_of_the_file() {
        let args = init_args(&["--postgres-password-file=pg", "--kafka-ca=/etc/ca.pem", "--postgres-ca=system"]);
        let file = |file: &str| match args.config(Path::new(file)).postgres.password {
            Some(SecretRef::File(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!((file("config.toml"), file("./config.toml")), ("pg".into(), "pg".into()));
        assert_eq!(file("etc/config.toml"), std::env::current_dir().unwrap().join("pg"));
        let config = args.config(Path::new("etc/config.toml"));
        assert_eq!(config.kafka.tls.map(|tls| tls.root_cert), Some("/etc/ca.pem".to_owned()));
        assert_eq!(config.postgres.tls.root_cert, "system");
    }

    #[test]
    fn a_password_in_the_url_is_refused_with_a_call_that_has_none() {
        let again = |words: &[&str]| match init_args(words).refuse_password() {
            Err(Error::Password { again, .. }) => again,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            again(&["--postgres-url=postgres://relay:hunter2@db/shop", "--topic=my orders", "--print"]).unwrap(),
            "walrelay config init --print --postgres-url postgres://relay@db/shop --postgres-password-file \
             postgres-password --topic 'my orders'"
        );
        assert_eq!(
            again(&["--postgres-url=postgres://relay:hunter2@db/shop", "--postgres-password-file=/run/secrets/pg"]),
            Some(
                "walrelay config init --postgres-url postgres://relay@db/shop --postgres-password-file /run/secrets/pg"
                    .to_owned()
            )
        );
        for url in [
            "host=db password=hunter2",
            "postgres://db/shop?user=relay&password=hunt@er2",
            "postgres://db/shop?user=relay&password=hunter2",
            "postgres://relay:hunt@er2@db/shop?password=hunter2",
        ] {
            assert_eq!(again(&["--postgres-url", url]), None, "{url}");
        }
        assert!(init_args(&["--postgres-url=postgres://relay@db/shop"]).refuse_password().is_ok());
    }
}
