//! The practical ceiling: read the stream, hand key and payload to librdkafka, and nothing else. No ledger, no headers,
//! no topic of its own, no confirmation.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;
use walrelay::lsn::Lsn;
use walrelay::relay::decode::frame;
use walrelay::relay::decode::frame::Frame;
use walrelay::relay::decode::frame::Parsed;
use walrelay::relay::decode::pgoutput;
use walrelay::relay::decode::pgoutput::Cell;
use walrelay::relay::decode::pgoutput::Message;
use walrelay::relay::postgres::Config;
use walrelay::relay::postgres::Session;
use walrelay::relay::postgres::Target;

struct Count(Arc<AtomicU32>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// `bare URL SLOT BOOTSTRAP EVENTS`: prints the seconds, then waits for its input to end.
pub(crate) fn main(arguments: &[String]) {
    let events: u32 = arguments[3].parse().unwrap();
    let delivered = Arc::new(AtomicU32::new(0));
    let producer: ThreadedProducer<Count> = ThreadedProducer::from_config_and_context(
        ClientConfig::new()
            .set("bootstrap.servers", &arguments[2])
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("queue.buffering.max.kbytes", "32768")
            .set("queue.buffering.max.messages", "1000000"),
        Count(Arc::clone(&delivered)),
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seconds = runtime.block_on(async {
        let target = Target::resolve(&arguments[0]).unwrap();
        let session = Session::connect(&target, &Config::default(), "bare").await.unwrap();
        let began = Instant::now();
        let mut stream = session.start(&arguments[1], (Lsn::ZERO, Lsn::ZERO), "walrelay", false).await.unwrap();
        let mut sent = 0;
        while sent < events {
            let mut used = 0;
            while let Parsed::Whole(frame, length) = frame::next(&stream.buffer()[used..], stream.max_frame()).unwrap()
            {
                if let Frame::Data { message, .. } = frame
                    && let Message::Insert { row, .. } = pgoutput::decode(message).unwrap()
                {
                    let mut cells = [b"".as_slice(); 8];
                    row.walk(|column, cell| {
                        if let Cell::Text(bytes) = cell {
                            cells[column] = bytes;
                        }
                    })
                    .unwrap();
                    send(&producer, cells[2], cells[4]);
                    sent += 1;
                }
                used += length;
            }
            stream.consume(used);
            if sent < events && stream.exchange(true).await.unwrap() < 32 << 10 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        while delivered.load(Relaxed) < events {
            std::thread::sleep(Duration::from_millis(1));
        }
        began.elapsed().as_secs_f64()
    });
    println!("{seconds}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn send(producer: &ThreadedProducer<Count>, key: &[u8], payload: &[u8]) {
    loop {
        match producer.send(BaseRecord::to("order-events").key(key).payload(payload)) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}
