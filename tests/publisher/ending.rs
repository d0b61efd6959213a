//! The end of a publisher reports what is not known to be delivered.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use walrelay_events::publisher::Error;
use walrelay_events::publisher::Publisher;

use super::block_on;
use super::config;
use super::enqueue;
use super::read;
use crate::support::kafka::Kafka;

#[test]
fn close_reports_what_is_not_acknowledged_and_ends_all_handles() {
    let mut kafka = Kafka::start(1);
    kafka.create_topic("closed", 1);
    let mut config = config(&kafka);
    config.shutdown_timeout = Duration::from_secs(1);
    block_on(async {
        let publisher = Publisher::new(config).unwrap();
        publisher.publish("closed", "k", &read(0)).await.unwrap();
        kafka.kill(0);
        let pending = enqueue(&publisher, "closed", 1..4, 1).await;
        let Err(Error::Undelivered { count, events }) = publisher.close().await else { panic!("nothing is reported") };
        assert_eq!((count, events.len()), (3, 3));
        assert!(events.iter().all(|event| event.may_be_delivered && event.topic == "closed"), "{events:?}");
        for pending in pending {
            let error = pending.await.unwrap_err();
            assert!(matches!(error, Error::Ended { .. }) && error.may_be_delivered(), "{error}");
        }
        assert!(matches!(publisher.publish("closed", "k", &read(9)).await, Err(Error::Closed)));
        publisher.close().await.unwrap();
    });
}

#[test]
fn flush_reports_an_event_whose_handle_was_dropped_once() {
    let kafka = Kafka::shared();
    kafka.create_topic_with("unheard", 1, &[("max.message.bytes", "2000")]);
    block_on(async {
        let publisher = Publisher::new(config(kafka)).unwrap();
        drop(publisher.enqueue("unheard", "k", &super::padded(1, 5_000)).await.unwrap());
        drop(publisher.enqueue("unheard", "k", &read(2)).await.unwrap());
        let Err(Error::Undelivered { count: 1, events }) = publisher.flush().await else {
            panic!("it is not reported")
        };
        assert!(!events[0].may_be_delivered && events[0].reason.contains("Kafka refused event"), "{events:?}");
        publisher.flush().await.unwrap();
        publisher.close().await.unwrap();
    });
    assert_eq!(super::numbers(&kafka.bootstrap(), "unheard"), [2]);
}

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn a_publisher_that_is_dropped_with_undelivered_events_logs_them() {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt().with_writer(logged.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut config = config(Kafka::shared());
            config.brokers = "127.0.0.1:1".to_owned();
            let publisher = Publisher::new(config).unwrap();
            drop(publisher.enqueue("nowhere", "k", &read(1)).await.unwrap());
        });
    });
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("publisher dropped before its events were acknowledged"), "{text}");
    assert!(text.contains("1 events are not known to be delivered, first "), "{text}");
}
