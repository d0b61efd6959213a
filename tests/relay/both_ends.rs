//! A start looks at PostgreSQL and at Kafka.

use walrelay::testing::Options;
use walrelay::testing::Postgres;

use super::delivery;
use crate::support::kafka::Kafka;

#[test]
fn the_probe_of_the_brokers_asks_for_no_topic_and_creates_none() {
    let (kafka, proxy) = Kafka::behind_proxy();
    // About 30 bytes of metadata for each partition.
    kafka.create_topic("wide", 1_000);
    kafka.create_topic("narrow", 1);
    let postgres = Postgres::start(Options::default()).unwrap();
    let (mut program, sql) = delivery::prepared(&postgres, &proxy.address(), "narrow", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    program.await_that("the event", |program| program.metric("walrelay_events_published_total") == Some(1.0));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let received = proxy.received();
    assert!((100..20_000).contains(&received), "{received} bytes");
    assert!(program.log().contains("\"cluster\":\""), "{}", program.log());
    assert_eq!(kafka.topics(), ["narrow", "wide"]);
}
