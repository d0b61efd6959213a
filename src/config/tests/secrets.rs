//! What a mistake shows of a configuration.

use super::*;

const SECRET: &str = "hunter2";

#[test]
fn no_mistake_shows_a_secret_however_it_is_written() {
    for text in [
        "[kafka.sasl]\npsw = hunter2\n",
        "[kafka.sasl]\npassword =\n\"hunter2\"\n",
        "[kafka.properties]\n\"ssl.key.pem\" = \"-----BEGIN\nhunter2==\n-----END\"\n",
        "[source]\nslot = \"\"\"\nhunter2 \\q\n\"\"\"\n",
        "[postgres]\nurl =\n\"postgres://me:hunter2@db/shop?sslmode=require\"\n",
        "[postgres]\npostgres://me:hunter2@db/shop?sslmode=require\n",
        "postgres = \"postgres://me:hunter2@db/shop\"\n",
        "[kafka]\nbrokers = \"SASL://me:hunter2@k:9092\"\n",
        "[kafka]\ntls = \"hunter2\"\n",
        "[kafka]\npsw = \"hunter2\"\n",
        "[http]\nbasic_auth = \"admin:hunter2\"\n",
        "MIIhunter2==\n",
    ] {
        let message = loaded(text, &[], &[]).unwrap_err().to_string();
        assert!(!message.contains(SECRET), "{message}");
    }
    for set in [
        "postgres://a:hunter2@h/x?sslmode=require",
        "postgres.url:postgres://a:hunter2@h/x",
        "kafka.tls=hunter2",
        "postgres.tls=hunter2",
    ] {
        let message = loaded(WITH_USER, &[], &[set]).unwrap_err().to_string();
        assert!(!message.contains(SECRET), "{message}");
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    let shown = mistakes("[source]\nslot = walrelay\n[kafka.properties]\n\"compression.type\" = \"lz4\"\n");
    assert!(shown.contains("2 | slot = walrelay") && shown.contains("4 | \"compression.type\" = \"lz4\""), "{shown}");
}
