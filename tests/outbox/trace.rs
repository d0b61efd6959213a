//! The way of a trace: the writer's span, the row, the record, and the consumer's span that is linked to it.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use tracing::dispatcher;
use tracing::info_span;
use uuid::Uuid;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::event;
use walrelay_events::event::Envelope;
use walrelay_events::event::TraceContext;
use walrelay_events::event::trace;
use walrelay_events::outbox;

use crate::consumer::stage::Member;
use crate::support::kafka::Kafka;
use crate::support::otlp::Collector;

use super::Application;
use super::assert_is;
use super::created;

#[test]
fn the_writers_span_stands_in_the_row_and_in_the_record_and_the_consumers_span_is_linked_to_it() {
    let mut app = Application::start("writer-trace");
    let collector = Collector::start();
    let subscriber = collector.subscriber();
    let outside = Envelope::new("Order", "o-1", created(1));
    assert_eq!(outside.trace, None, "there is no span here");
    let traced = dispatcher::with_default(&subscriber, || {
        let span = info_span!("take order");
        let _inside = span.enter();
        Envelope::new("Order", "o-1", created(2))
    });
    app.runtime.block_on(async {
        let tx = app.client.transaction().await.unwrap();
        outbox::append_many(&tx, &[outside, traced.clone()]).await.unwrap();
        tx.commit().await.unwrap();
    });
    let writer = collector.span("take order");
    let traceparent = format!("00-{}-{}-01", writer.trace_id, writer.span_id);
    let row = format!("SELECT headers->>'traceparent' FROM outbox_events WHERE id = '{}'", traced.event_id);
    assert_eq!(app.sql.text(&row), traceparent);

    let records = app.records();
    assert_eq!(records[0].header(event::TRACEPARENT), None);
    assert_eq!(records[1].header(event::TRACEPARENT), Some(traceparent.as_str()));
    assert_is(&records[1], &traced);

    let config = Config::new(&Kafka::shared().bootstrap(), "shipping", &["writer-trace"]);
    Kafka::shared().create_topic("writer-trace.dlq", 1);
    let (told, heard) = mpsc::channel();
    let handler = move |delivery: Delivery| {
        let told = told.clone();
        async move {
            let _inside = info_span!("ship order").entered();
            told.send((delivery.record.header(event::EVENT_ID).unwrap().parse().unwrap(), trace::current())).unwrap();
        }
    };
    let member = Member::start_traced(config, handler, subscriber);
    let mut contexts: HashMap<Uuid, Option<TraceContext>> =
        (0..2).map(|_| heard.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
    member.stop().unwrap();
    let inner = contexts.remove(&traced.event_id).unwrap().unwrap();

    let handlers = collector.spans("process writer-trace");
    let (handler, other) = match handlers.as_slice() {
        [first, second] if first.trace_id == inner.trace_id() => (first, second),
        [first, second] => (second, first),
        other => panic!("{other:?}"),
    };
    assert_eq!(handler.links, [(writer.trace_id.clone(), writer.span_id)], "it is linked to the writer");
    assert_eq!((handler.kind, handler.parent_span_id.as_str()), (5, ""));
    assert_eq!(handler.trace_id, inner.trace_id(), "what the handler writes belongs to the handler's trace");
    assert_ne!(handler.trace_id, writer.trace_id, "a handler has a trace of its own");
    assert_eq!(other.links, [], "an event without a trace has no link");
    assert!(collector.spans("ship order").iter().any(|span| span.parent_span_id == handler.span_id));
}
