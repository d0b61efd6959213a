mod files;
mod secrets;

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
        ("[kafka.sasl]\nmechanism = \"PLAIN\"\n", "missing option `username`"),
        ("[shutdown\n", "3:10:"),
    ];
    for (text, expected) in rows {
        let message = mistakes(&format!("{WITH_USER}{text}"));
        assert!(message.contains(expected), "{expected:?} in {message}");
    }
}

#[test]
fn a_dotted_property_means_the_same_quoted_or_bare() {
    for text in [
        "[kafka.properties]\nlinger.ms = 3\n",
        "[kafka.properties]\n\"linger.ms\" = \"3\"\n",
        "[kafka]\nproperties = { \"linger.ms\" = 3 }\n",
        "[kafka]\nproperties.linger.ms = 3\n",
    ] {
        let loaded = loaded(&format!("{WITH_USER}{text}"), &[], &[]).unwrap();
        assert_eq!(loaded.config.kafka.properties.get("linger.ms").map(String::as_str), Some("3"));
    }
    for set in ["kafka.properties.linger.ms=3", "kafka.properties.\"linger.ms\"=3", "kafka.properties={linger.ms=3}"] {
        let loaded = loaded(&format!("{WITH_USER}[kafka.properties]\nlinger.ms = 4\n"), &[], &[set]).unwrap();
        assert_eq!(loaded.config.kafka.properties.get("linger.ms").map(String::as_str), Some("3"), "{set}");
    }
}

#[test]
fn a_mistake_is_at_the_line_and_the_key_that_it_is_about() {
    let brokers = "[kafka]\nbrokers = [\"localhost:1\"]\n";
    for (text, expected) in [
        (
            format!("{brokers}[kafka.properties]\n\"compression.type\" = \"lz4\"\n"),
            "6:1: kafka.properties.compression.type: cannot be set here: set kafka.compression\n  \
             6 | \"compression.type\" = \"lz4\"\n    | ^^^^^^^^^^^^^^^^^^\n",
        ),
        (format!("{brokers}[kafka.properties]\ncompression.type = 1\n"), "6:1: kafka.properties.compression.type"),
        (format!("{brokers}properties.compression.type = 1\n"), "5:1: kafka.properties.compression.type"),
        (
            format!("{brokers}properties = {{ linger.ms = 1, compression.type = 1 }}\n"),
            "5:31: kafka.properties.compression.type",
        ),
        ("source = { slot = \"A b\", mode = \"wal\" }\n".to_owned(), "1:12: source.slot: invalid slot name"),
        ("[source.poll]\ninterval = \"0s\"\n".to_owned(), "2:1: source.poll.interval: must be at least 1ms"),
        ("[[outbox]]\ncolumns.id = [\"a\", \"a\"]\n".to_owned(), "2:1: outbox.0.columns.id: needs at least"),
        ("[[outbox]]\n[[outbox]]\n\"topic\" = \"{x}\"\n".to_owned(), "3:1: outbox.1.topic: \"x\" is not one"),
        ("[[outbox]]\nplacements = [\"type:header\"]\n".to_owned(), "2:1: outbox.0.placements: is only for preset"),
        ("[[outbox]]\ntombstone_on_empty_payload = true\n".to_owned(), "2:1: outbox.0.tombstone_on_empty_payload: is"),
        (
            "[source]\nmode = \"poll\"\n[[outbox]]\npreset = \"debezium\"\n".to_owned(),
            "4:1: outbox.0.preset: debezium needs source.mode = \"wal\"",
        ),
        (
            "[[outbox]]\npreset = \"debezium\"\nplacements = [\"type:envelope\"]\n".to_owned(),
            "the placement \"type:envelope\" is not supported",
        ),
        (
            "[[outbox]]\npreset = \"debezium\"\nplacements = [\"p:partition\"]\n".to_owned(),
            "set partition to the name of the column",
        ),
        ("outbox = [{}, { topic = \"{x}\" }]\n".to_owned(), "1:17: outbox.1.topic: \"x\" is not one of"),
    ] {
        let text =
            if text.starts_with("[kafka]") { format!("{WITH_USER}{text}") } else { format!("{text}{WITH_USER}") };
        let text =
            text.replace(&format!("{WITH_USER}[kafka]"), "[postgres]\nurl = \"postgres://a@localhost/b\"\n[kafka]");
        let message = mistakes(&text);
        assert!(message.contains(expected), "{expected:?} in {message}");
    }
}

#[test]
fn every_mistake_of_every_kind_is_reported_in_one_round_in_the_order_of_the_file() {
    let text = "[postgres]\nurl = \"postgres://app@db/shop?sslmode=on\"\nconnect_timeout = 10s\n\
                [shutdown]\ndrian = \"1s\"\n\
                [[outbox]]\ntopic = \"{kind}\"\nkey = \"kind\"\n\
                [[outbox]]\ntable = 5\n\
                [[outbox]]\ntable = \"c\"\ntopic = \"order events\"\n\
                [kafka]\nbrokers = [\"kafka\"]\ncompression = \"brotli\"\n\
                [kafka.tls]\nroot = \"x\"\n\
                [kafka.sasl]\nmechanism = \"SCRAM\"\n\
                [kafka.properties]\nacks = 1\n\
                [log]\nlevel = \"infoo\"\n\
                [kafak]\na = 1\nb = 2\n";
    let message = loaded(text, &[("WALRELAY_SHUTDOWN__DRAIN", "5")], &["source.slot=A", "outbox.table=x"]);
    let message = message.unwrap_err();
    let brief: Vec<String> = message.iter().map(Mistake::brief).collect();
    let expected = [
        ":2:1: postgres.url: invalid sslmode value: \"on\"; allowed: disable, prefer, require, verify-ca or",
        ":3:19: string values must be quoted",
        ":5:1: shutdown.drian: unknown option `drian`, did you mean `drain`?",
        ":7:1: outbox.0.topic: \"kind\" is not one of id, aggregate_type, aggregate_id, event_type",
        ":8:1: outbox.0.key: \"kind\" is not one of",
        ":10:1: outbox.1.table: invalid type: integer `5`, expected a string",
        ":13:1: outbox.2.topic: invalid topic name \"order events\": allowed are 1 to 249 of A-Z a-z 0-9 . _ -",
        ":15:1: kafka.brokers: \"kafka\" is not of the form host:port",
        ":16:1: kafka.compression: unknown value `brotli`; allowed are none, gzip, snappy, lz4, zstd",
        ":18:1: kafka.tls.root: unknown option `root`; known are root_cert, cert, key, key_password",
        ":20:1: kafka.sasl.mechanism: unknown value `SCRAM`; allowed are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ":20:1: kafka.sasl: missing option `username`",
        ":20:1: kafka.sasl: missing option `password`",
        ":22:1: kafka.properties.acks: cannot be set here",
        ":24:1: log.level: expected a log level",
        ":26:1: kafak: unknown option `kafak`, did you mean `kafka`?",
        "WALRELAY_SHUTDOWN__DRAIN: shutdown.drain: invalid type: integer `5`, expected a duration with its unit",
        "--set outbox.table: outbox.table: outbox is a list of tables: write --set outbox.0.table=... for the",
        "--set source.slot: source.slot: invalid slot name",
    ];
    assert_eq!(brief.len(), expected.len(), "{brief:#?}");
    for (brief, expected) in brief.iter().zip(expected) {
        assert!(brief.contains(expected), "{expected:?} in {brief:?}");
    }
}

#[test]
fn an_option_without_a_default_has_a_stand_in_while_it_is_missing() {
    let message = loaded(&format!("{WITH_USER}[kafka.sasl]\n"), &[], &[]).unwrap_err();
    let other = loaded(&format!("{WITH_USER}[kafka.oauth]\n"), &[], &[]).unwrap_err();
    let mut missing: Vec<String> = message.iter().chain(other.iter()).map(Mistake::brief).collect();
    missing.sort_by_key(|brief| brief.split_once("kafka.").unwrap().1.to_owned());
    let mut expected: Vec<String> = layers::REQUIRED
        .iter()
        .map(|(path, _)| path.rsplit_once('.').unwrap())
        .map(|(section, field)| format!("{section}: missing option `{field}`"))
        .collect();
    expected.sort();
    assert_eq!(missing.len(), expected.len(), "{missing:?}");
    for (missing, expected) in missing.iter().zip(expected) {
        assert!(missing.ends_with(&expected), "{missing}");
    }
    // A wrong name or value is one mistake, not two.
    let one = format!("{WITH_USER}[kafka.sasl]\nmechansim = \"PLAIN\"\nusername = \"a\"\npassword = {{ file = 5 }}\n");
    let message = loaded(&one, &[], &[]).unwrap_err();
    assert_eq!(message.iter().count(), 2, "{message}");
}

#[test]
fn a_list_that_is_given_like_a_table_is_refused_with_how_to_write_it() {
    for (text, variables, sets, expected) in [
        ("[outbox]\ntable = \"a\"\n", [].as_slice(), [].as_slice(), "write [[outbox]] with two brackets"),
        ("", &[("WALRELAY_OUTBOX__TABLE", "a")], &[], "write WALRELAY_OUTBOX__0__TABLE"),
        ("", &[], &["outbox.columns.id=a"], "write --set outbox.0.columns.id=..."),
        ("", &[], &["outbox.1.table=a"], "outbox.1.table: tables are numbered from 0 without a gap"),
    ] {
        let message = loaded(&format!("{WITH_USER}{text}"), variables, sets).unwrap_err();
        assert_eq!(message.iter().count(), 1, "{message}");
        assert!(message.to_string().contains(expected), "{expected:?} in {message}");
    }
    let two = loaded(&format!("{WITH_USER}[[outbox]]\n"), &[], &["outbox.1.table=a"]).unwrap();
    assert_eq!(two.config.outbox[1].table, "a");
}

#[test]
fn a_password_of_a_later_layer_has_precedence_and_within_a_layer_the_option_that_is_only_a_password() {
    let url = "postgres://app:secret@localhost/shop";
    for url_layer in 0..3 {
        for password_layer in 0..3 {
            let mut text = "[postgres]\n".to_owned();
            let (mut variables, mut sets) = (Vec::new(), Vec::new());
            let set = format!("postgres.url={url}");
            match url_layer {
                0 => text += &format!("url = \"{url}\"\n"),
                1 => variables.push(("WALRELAY_POSTGRES__URL", url)),
                _ => sets.push(set.as_str()),
            }
            match password_layer {
                0 => text += "password = { env = \"X\" }\n",
                1 => variables.push(("WALRELAY_POSTGRES__PASSWORD__ENV", "X")),
                _ => sets.push("postgres.password.env=X"),
            }
            let password = loaded(&text, &variables, &sets).unwrap().config.postgres.password;
            assert_eq!(password.is_none(), url_layer > password_layer, "{url_layer} {password_layer}");
        }
    }
    // Another server, and the same password.
    let text = "[postgres]\npassword = { env = \"X\" }\n";
    let other = loaded(text, &[], &["postgres.url=postgres://app@localhost/other"]).unwrap();
    assert!(other.config.postgres.password.is_some());
    // A reference replaces a reference of another kind.
    let other = loaded(&format!("{WITH_USER}password = {{ env = \"X\" }}\n"), &[], &["postgres.password.file=/x"]);
    assert_eq!(other.unwrap().config.postgres.password, Some(SecretRef::File("/x".into())));
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
        "[kafka.sasl]\npsw = \"hunter2\"\n",
        "[kafka.sals]\npsw = \"hunter2\"\n",
        "[kafak.sasl]\npsw = \"hunter2\"\n",
        "[postgres]\npsw = \"hunter2\"\n",
        "[kafka]\nsasl = { mechanism = \"SCRAM\", username = \"a\", psw = \"hunter2\" }\n",
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
fn a_wrong_mechanism_is_no_secret() {
    let text = "[kafka.sasl]\nmechanism = \"SCRAM-SHA256\"\nusername = \"u\"\npassword = { env = \"X\" }\n";
    let message = mistakes(&format!("{WITH_USER}{text}"));
    let expected = "unknown value `SCRAM-SHA256`, did you mean `SCRAM-SHA-256`? allowed are PLAIN, SCRAM-SHA-256, \
                    SCRAM-SHA-512\n  4 | mechanism = \"SCRAM-SHA256\"\n";
    assert!(message.contains(expected), "{message}");
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

#[test]
fn more_than_ten_tables_keep_their_options() {
    let text: String = (0..12).map(|number| format!("[[outbox]]\ntable = \"t{number}\"\n")).collect();
    let text = format!("{WITH_USER}{text}").replace("\"t11\"\n", "\"t11\"\ntopic = \"last\"\n");
    let loaded = loaded(&text, &[], &["outbox.10.topic=tenth"]).unwrap();
    let tables: Vec<&str> = loaded.config.outbox.iter().map(|outbox| outbox.table.as_str()).collect();
    assert_eq!(tables, (0..12).map(|number| format!("t{number}")).collect::<Vec<_>>());
    let topics: Vec<Option<&str>> = loaded.config.outbox.iter().map(|outbox| outbox.topic.as_deref()).collect();
    assert_eq!(topics[9..], [None, Some("tenth"), Some("last")]);
}

#[test]
fn the_same_mistake_in_several_lines_is_reported_for_each() {
    let text = "[postgres]\nconnect_timeout = 10s\n[shutdown]\ndrain = 20s\n[source]\nslot = walrelay\n";
    let message = loaded(text, &[], &["a", "b"]).unwrap_err();
    assert_eq!(message.iter().count(), 5, "{message}");
}

#[test]
fn a_line_that_cannot_be_read_causes_no_mistake_elsewhere() {
    for text in [
        "[[outbox]]\ntable = orders\n[[outbox]]\ntable = \"b\"\n",
        "[[outbox]]\ntable = orders\n[[outbox]]\ntable = items\n",
        "[kafka.sasl]\nmechanism = SCRAM-SHA-512\nusername = \"a\"\npassword = { env = \"A\" }\n",
        "[kafka]\nbrokers = [\"kafka:9092\"]\n[kafka.tls]\nroot_cert = system\n",
    ] {
        let message = loaded(&format!("{WITH_USER}{text}"), &[], &[]).unwrap_err();
        let strangers = message
            .iter()
            .filter(|mistake| mistake.brief().contains(": kafka") || mistake.brief().contains(": outbox"));
        assert_eq!(strangers.count(), 0, "{message}");
    }
}
