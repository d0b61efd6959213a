use std::collections::BTreeSet;

use super::*;

const SHIPPED: &str = include_str!("../../config.toml");

fn loaded(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Mistakes> {
    let folder = std::env::temp_dir().join(format!("walrelay-config-{}", uuid::Uuid::now_v7()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("walrelay.toml");
    fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let loaded = load(&sources);
    fs::remove_dir_all(folder).unwrap();
    loaded
}

fn mistakes(text: &str) -> String {
    let message = loaded(text, &[], &[]).unwrap_err().to_string();
    // Without the folder, which is different each time.
    message
        .lines()
        .map(|line| line.split_once("walrelay.toml:").map_or(line, |(_, rest)| rest).to_owned() + "\n")
        .collect()
}

const WITH_USER: &str = "[postgres]\nurl = \"postgres://app@localhost/shop\"\n";

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped: Config = toml::from_str(SHIPPED).unwrap();
    assert_eq!(shipped, Config::default());
}

#[test]
fn every_option_is_in_the_shipped_file() {
    let Ok(toml::Value::Table(defaults)) = toml::Value::try_from(Config::default()) else { panic!("not a table") };
    fn names(table: &toml::Table, found: &mut BTreeSet<String>) {
        for (name, value) in table {
            found.insert(name.clone());
            let inner = value.as_array().into_iter().flatten().chain([value]).filter_map(toml::Value::as_table);
            inner.for_each(|inner| names(inner, found));
        }
    }
    let mut found = BTreeSet::new();
    names(&defaults, &mut found);
    for name in found {
        assert!(SHIPPED.contains(&name), "{name} is not in config.toml");
    }
    // The commented options are valid too.
    let all: String = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let all = all.replace("url = \"postgres:///\"", "url = \"postgres://app@localhost/shop\"");
    // A connection has one mechanism.
    let without = |section: &str| {
        let (before, rest) = all.split_once(&format!("[{section}]\n")).unwrap();
        format!("{before}{}", &rest[rest.find("\n[").unwrap()..])
    };
    let with_sasl = loaded(&without("kafka.oauth"), &[], &[]).unwrap().config;
    assert!(with_sasl.kafka.sasl.is_some() && with_sasl.postgres.tls.cert.is_some());
    let with_oauth = loaded(&without("kafka.sasl"), &[], &[]).unwrap().config;
    assert!(with_oauth.kafka.oauth.is_some() && with_oauth.kafka.sasl.is_none());
}

#[test]
fn the_last_source_has_precedence_and_each_value_its_origin() {
    let text = format!("{WITH_USER}[shutdown]\ndrain = \"1s\"\n[log]\nlevel = \"warn\"\n[relay]\nname = \"file\"\n");
    let variables = [("WALRELAY_SHUTDOWN__DRAIN", "2s"), ("WALRELAY_LOG__LEVEL", "debug"), ("HOME", "/x")];
    let loaded = loaded(&text, &variables, &["shutdown.drain=3s", "outbox.0.topic=orders"]).unwrap();
    assert_eq!(loaded.config.shutdown.drain, std::time::Duration::from_secs(3));
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(loaded.config.outbox[0].topic.as_deref(), Some("orders"));
    let shown = loaded.to_toml();
    assert!(shown.contains("drain = \"3s\"  # --set shutdown.drain"), "{shown}");
    assert!(shown.contains("level = \"debug\"  # WALRELAY_LOG__LEVEL"), "{shown}");
    assert!(shown.contains("walrelay.toml:8:1"), "{shown}");
    assert!(shown.contains("slot = \"walrelay\"  # default"), "{shown}");
}

#[test]
fn a_file_from_windows_is_read_and_its_positions_are_right() {
    let text = format!("\u{feff}{WITH_USER}[shutdown]\ndrian = \"20s\"\n").replace('\n', "\r\n");
    let message = mistakes(&text);
    assert!(message.contains("4:1: shutdown.drian") && message.contains("  4 | drian = \"20s\"\n"), "{message}");
    assert!(loaded(&text.replace("drian", "drain"), &[], &[]).is_ok());
}

#[test]
fn every_mistake_is_reported_at_once_with_its_position() {
    let text = format!(
        "{WITH_USER}[shutdown]\ndrian = \"20s\"\n[source]\ndisconnect_on_stall_after = 30\nslot = \"A b\"\n[kafak]\n"
    );
    let message = mistakes(&text);
    let expected = [
        "4:1: shutdown.drian: unknown option `drian`, did you mean `drain`?",
        "  4 | drian = \"20s\"",
        "    | ^^^^^",
        "6:1: source.disconnect_on_stall_after: invalid type: integer `30`, expected a duration with its unit",
        "7:1: source.slot: invalid slot name: allowed are 1 to 63 of a-z 0-9 _",
        "kafak: unknown option `kafak`, did you mean `kafka`?",
    ];
    for line in expected {
        assert!(message.contains(line), "{line:?} in {message}");
    }
}

#[test]
fn inconsistent_options_are_reported_with_its_position() {
    let rows = [
        ("[log]\nlevel = \"infoo\"\n", "4:1: log.level: expected a log level (off, error, warn, info, debug, trace)"),
        ("[source]\nslot = \"A b\"\n", "4:1: source.slot: invalid slot name: allowed are 1 to 63 of a-z 0-9 _"),
        ("[kafka]\nbrokers = []\n", "4:1: kafka.brokers: needs at least one broker"),
        ("[kafka.properties]\nacks = 1\nlinger.ms = 3\n", "4:1: kafka.properties.acks: cannot be set here"),
        ("[kafka.properties]\nlinger.mx = 3\n", "kafka.properties.linger.mx"),
        ("[[outbox]]\ntopic = \"{kind}\"\n", "4:1: outbox.0.topic: \"kind\" is not one of id,"),
        (
            "[[outbox]]\ntable = \"a\"\n[[outbox]]\ntable = \"public.a\"\n",
            "6:1: outbox.1.table: table public.a is in two",
        ),
        ("[kafka.sasl]\nmechanism = \"PLAIN\"\n", "missing field `username`"),
        ("[shutdown\n", "3:10:"),
    ];
    for (text, expected) in rows {
        let message = mistakes(&format!("{WITH_USER}{text}"));
        assert!(message.contains(expected), "{expected:?} in {message}");
    }
}

#[test]
fn a_dotted_property_means_the_same_quoted_or_bare() {
    for line in ["linger.ms = 3", "\"linger.ms\" = \"3\""] {
        let loaded = loaded(&format!("{WITH_USER}[kafka.properties]\n{line}\n"), &[], &[]).unwrap();
        assert_eq!(loaded.config.kafka.properties.get("linger.ms").map(String::as_str), Some("3"));
    }
}

#[test]
fn the_shown_configuration_can_be_parsed_and_has_no_secret() {
    let text = "[postgres]\nurl = \"postgres://app:hunter2@localhost/shop\"\npassword = { env = \"X\" }\n\
                [kafka]\nbrokers = [\"b:1\"]\n[kafka.tls]\n[kafka.properties]\nssl.keystore.password = \"hunter2\"\n\
                [[outbox]]\ntable = \"a.b\"\n[outbox.columns]\nid = \"event\"\n";
    let first = loaded(text, &[], &[]).unwrap();
    let shown = first.to_toml();
    assert!(!shown.contains("hunter2") && !first.to_json().to_string().contains("hunter2"), "{shown}");
    let second: Config = toml::from_str(&shown).unwrap();
    assert_eq!(second.outbox, first.config.outbox);
    assert_eq!(second.kafka.brokers, first.config.kafka.brokers);
    assert_eq!(second.postgres.password, first.config.postgres.password);
}

#[test]
fn a_mistake_in_a_secret_is_reported_without_it() {
    let texts = [
        "[postgres]\npassword = \"hunter2\"\n",
        "[postgres]\npasswrod = \"hunter2\"\n",
        "[postgres]\npassword = hunter2\n",
        "[postgres]\npassword = { enf = \"hunter2\" }\n",
        "[postgres]\nurl = \"postgres://me:hunter2@db:x/shop\"\n",
        "[postgres]\nurl = [\"postgres://me:hunter2@db/shop\"]\n",
        "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"u\"\npassword = \"hunter2\"\n",
        "[kafka.properties]\nsasl.password = \"hunter2\"\n",
    ];
    for text in texts {
        let message = loaded(text, &[], &[]).unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
    }
    let sets = ["password=hunter2", "postgres.password=hunter2", "kafka.sasl.password=hunter2"];
    let message = loaded(WITH_USER, &[("WALRELAY_POSTGRES__PASSWORD", "hunter2")], &sets).unwrap_err().to_string();
    assert!(!message.contains("hunter2") && message.contains("a password is { env"), "{message}");
}

#[test]
fn an_unknown_variable_of_ours_is_a_mistake() {
    let message = loaded(WITH_USER, &[("WALRELAY_SHUTDOWN__DRIAN", "2s")], &["nonsense"]);
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("WALRELAY_SHUTDOWN__DRIAN: shutdown.drian: unknown option `drian`, did you mean `drain`?"),
        "{message}"
    );
    assert!(message.contains("--set nonsense: not of the form section.key=value"), "{message}");
}

#[test]
fn a_renamed_option_is_refused_with_its_new_name_wherever_it_is_given() {
    for (old, new) in renamed::RENAMED {
        let (section, key) = old.rsplit_once('.').unwrap();
        let variable = |path: &str| format!("WALRELAY_{}", path.replace('.', "__").to_uppercase());
        let renamed = format!("{old}: this option was renamed to `{new}`");
        for text in [format!("[{section}]\n{key} = 1\n"), format!("{section} = {{ {key} = 1 }}\n")] {
            let message = loaded(&format!("{text}{WITH_USER}"), &[], &[]).unwrap_err().to_string();
            assert!(message.contains(&renamed), "{message}");
        }
        let message = loaded(WITH_USER, &[], &[&format!("{old}=1")]).unwrap_err().to_string();
        assert!(message.contains(&format!("--set {old}: {renamed}")), "{message}");
        let message = loaded(WITH_USER, &[(&variable(old), "1")], &[]).unwrap_err().to_string();
        let renamed = format!("{}: {old}: this option was renamed to `{}`", variable(old), variable(new));
        assert!(message.contains(&renamed), "{message}");
        let path = format!("/{}", new.replace('.', "/"));
        let defaults = serde_json::to_value(Config::default()).unwrap();
        assert!(defaults.pointer(&path).is_some(), "{new} is an option");
    }
}

#[test]
fn a_variable_of_another_program_is_a_warning_at_most() {
    let kubernetes = [("WALRELAY_SERVICE_HOST", "10.0.0.7"), ("WALRELAY_PORT", "tcp://10.0.0.7:7430")];
    assert_eq!(loaded(WITH_USER, &kubernetes, &[]).unwrap().warnings, [""; 0]);
    let misspelled = loaded(WITH_USER, &[("WALRELAY_LOG_LEVEL", "debug")], &[]).unwrap().warnings;
    assert!(misspelled.len() == 1 && misspelled[0].contains("did you mean WALRELAY_LOG__LEVEL?"), "{misspelled:?}");
}

#[test]
fn a_password_in_the_file_is_a_warning() {
    let warnings = |url: &str, variables: &[(&str, &str)], sets: &[&str]| {
        loaded(&format!("[postgres]\nurl = \"{url}\"\n"), variables, sets).unwrap().warnings
    };
    for url in ["postgres://app:hunter2@localhost/shop", "host=localhost user=app password=hunter2"] {
        assert!(warnings(url, &[], &[])[0].contains("holds a password and others can read it"), "{url}");
        // Another source overrides the file.
        assert_eq!(warnings(url, &[("WALRELAY_POSTGRES__URL", "postgres://app:x@localhost/shop")], &[]), [""; 0]);
    }
    for url in ["postgres://app:@localhost/shop", "host=localhost user=password dbname=password"] {
        assert_eq!(warnings(url, &[], &[]), [""; 0], "{url}");
    }
    assert_eq!(warnings("postgres://app@localhost/shop", &[], &["postgres.url=postgres://a:b@localhost/x"]), [""; 0]);
}

#[test]
fn a_stall_timeout_above_the_walsenders_is_a_warning() {
    let warnings = |options: &str| loaded(&format!("{WITH_USER}{options}"), &[], &[]).unwrap().warnings;
    assert_eq!(warnings("[source]\ndisconnect_on_stall_after = \"1m\"\n"), [""; 0]);
    for options in ["[source]\ndisconnect_on_stall_after = \"61s\"\n", "wal_sender_timeout = \"10s\"\n"] {
        let message = warnings(options);
        assert!(
            message.len() == 1 && message[0].contains("counts as postgres.wal_sender_timeout"),
            "{options}: {message:?}"
        );
    }
}

#[test]
fn weak_tls_is_a_warning_or_an_error() {
    let text = format!(
        "{WITH_USER}[postgres.tls]\nkey = \"/proc/self/status\"\n[kafka]\nbrokers = \
         [\"b:1\"]\n[kafka.tls]\nkey = \"/proc/self/status\"\n\
         [kafka.properties]\nenable.ssl.certificate.verification = \
         false\nssl.endpoint.identification.algorithm = \"none\"\n"
    );
    let message = loaded(&text, &[], &[]).unwrap().warnings;
    assert_eq!(
        message.iter().filter(|line| line.contains("the private key /proc/self/status")).count(),
        2,
        "{message:?}"
    );
    assert!(message.iter().any(|line| line.contains("anybody can impersonate a broker")), "{message:?}");
    assert!(message.iter().any(|line| line.contains("identification.algorithm is none")), "{message:?}");
    for (query, roots, is_fit) in [
        ("sslmode=verify-ca", "system", false),
        ("sslmode=verify-ca&sslrootcert=system", "system", false),
        ("sslmode=require&sslrootcert=system", "system", false),
        ("sslmode=verify-ca", "/ca.pem", true),
        ("sslmode=verify-ca&sslrootcert=/ca.pem", "system", true),
        ("sslmode=verify-full", "system", true),
        ("sslmode=require", "system", true),
    ] {
        let text =
            format!("[postgres]\nurl = \"postgres://app@db/shop?{query}\"\n[postgres.tls]\nroot_cert = \"{roots}\"\n");
        let message = loaded(&text, &[], &[]);
        assert_eq!(message.is_ok(), is_fit, "{query} {roots}: {message:?}");
    }
}
