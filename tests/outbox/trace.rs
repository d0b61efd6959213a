//! The way of a trace: the writer's span, the row, the record, and a span that is linked to it.

use tracing::dispatcher;
use tracing::info_span;
use walrelay::event;
use walrelay::event::Envelope;
use walrelay::event::TraceContext;
use walrelay::event::trace::Handled;
use walrelay::event::trace::handler_span;
use walrelay::event::trace::link_to;
use walrelay::outbox;

use crate::support::otlp::Collector;

use super::Application;
use super::assert_is;
use super::created;

#[test]
fn the_writers_span_stands_in_the_row_and_in_the_record_and_a_handlers_span_is_linked_to_it() {
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

    let arrived = TraceContext::from_headers(|name| records[1].header(name)).unwrap();
    dispatcher::with_default(&subscriber, || {
        let span = info_span!("ship order");
        link_to(&span, &arrived);
        let _inside = span.enter();
        let event_id = records[1].event_id();
        let handled = Handled {
            group: "shipping",
            topic: "writer-trace",
            partition: records[1].partition,
            offset: records[1].offset,
            event_id: &event_id,
            event_type: "OrderCreated",
        };
        handler_span(&handled, Some(&arrived)).in_scope(|| {
            let inner = event::trace::current().unwrap();
            assert_ne!(inner.trace_id(), arrived.trace_id(), "a handler has a trace of its own");
        });
    });
    let link = vec![(writer.trace_id.clone(), writer.span_id)];
    assert_eq!(collector.span("ship order").links, link);
    let handler = collector.span("process writer-trace");
    assert_eq!((&handler.links, handler.kind, handler.parent_span_id.as_str()), (&link, 5, ""));
    assert_ne!(handler.trace_id, writer.trace_id);
}
