//! TLS to a real broker that asks for the client's certificate.

use std::fs;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery::prepared;
use crate::support::certificates::create_pair;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_client_certificate_that_is_replaced_is_read_as_soon_as_brokers_refuse_the_old_one() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let folder = postgres.folder();
    let path = |name: &str| folder.join(name);
    for name in ["broker", "first", "second"] {
        create_pair(folder, name);
    }
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    fs::write(path("broker.pem"), read("broker.key") + &read("broker.crt")).unwrap();
    let trust = |name: &str| fs::copy(path(&format!("{name}.crt")), path("trusted.pem")).unwrap();
    let use_pair = |name: &str| {
        fs::copy(path(&format!("{name}.key")), path("client.key")).unwrap();
        fs::copy(path(&format!("{name}.crt")), path("client.crt")).unwrap();
    };
    trust("first");
    use_pair("first");
    let (mut kafka, door) = Kafka::with_certificates(folder);
    kafka.create_topic("rotated", 1);
    let (_, sql) = prepared(&postgres, &kafka.bootstrap(), "rotated", "");
    let more = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"rotated\"\n\n[kafka.tls]\nroot_cert = \
         \"{folder}/broker.crt\"\ncert = \"{folder}/client.crt\"\nkey = \"{folder}/client.key\"\n",
        folder = folder.display()
    );
    let mut program = Program::new(&postgres.url(), &door, &more);
    program.start_streaming();
    for is_idle in [true, false] {
        sql.run("SELECT emit('k1')");
        sql.await_all_confirmed(LIMIT);
        let (old, new) = if is_idle { ("first", "second") } else { ("second", "first") };
        kafka.kill(0);
        trust(new);
        kafka.resume(0);
        if !is_idle {
            sql.run("SELECT emit('k1')");
        }
        program.await_that("the refusal of the old certificate", |program| {
            program.metric("walrelay_connected{relay=\"walrelay\",peer=\"kafka\"}") == Some(0.0)
        });
        assert_eq!(read("client.crt"), read(&format!("{old}.crt")));
        use_pair(new);
        program.await_that("the new certificate", |program| {
            program.metric("walrelay_connected{relay=\"walrelay\",peer=\"kafka\"}") == Some(1.0)
        });
        sql.await_all_confirmed(LIMIT);
    }
    assert!(program.log().contains("its certificates, keys or passwords have changed"), "{}", program.log());
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "rotated").len(), 3);
}
