//! SASL OAUTHBEARER for the relay: a command prints the tokens.

use std::fs;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::token::printing_command;

#[test]
fn the_relay_logs_in_with_tokens_of_a_command_and_renews_them_before_they_expire() {
    let (postgres, (kafka, door)) = (Postgres::start(Options::default()).unwrap(), Kafka::with_tokens());
    kafka.create_topic("tokens", 1);
    let (_, sql) = prepared(&postgres, &door, "tokens", "");
    let (script, runs) = (postgres.folder().join("token.sh"), postgres.folder().join("runs"));
    let more = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"tokens\"\n\n[kafka.oauth]\ntoken_command = [\"sh\", \
         \"{}\"]\n",
        script.display()
    );
    fs::write(&script, "echo secret-output; echo no such role >&2; exit 1").unwrap();
    let mut program = Program::new(&postgres.url(), &door, &more);
    program.start();
    program.await_log("WR-6935");
    let log = program.log();
    assert!(log.contains("sh failed with exit status: 1: no such role") && !log.contains("secret-output"), "{log}");

    fs::write(&script, printing_command("relay", 6, &runs.display().to_string())).unwrap();
    program.await_state("streaming");
    let mut events = 0;
    let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    // Several lifetimes: the broker ends a connection whose token is expired.
    while count() < 5 {
        sql.run("SELECT emit('k1')");
        sql.await_all_confirmed(Duration::from_secs(30));
        events += 1;
    }
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "tokens").len(), events);
    let log = program.log();
    assert!(!log.contains("eyJ"), "no token is logged: {log}");
}
