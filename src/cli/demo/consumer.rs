//! A consumer without walrelay's library: it reads a topic from its beginning.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

/// A record, as a consumer sees it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) value: Option<String>,
}

pub(super) struct Consumer(BaseConsumer);

impl Consumer {
    pub(super) fn subscribe(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "demo")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "20")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        Ok(Self(consumer))
    }

    pub(super) fn poll(&mut self, wait: Duration) -> Result<Option<Record>, KafkaError> {
        let Some(message) = self.0.poll(wait).transpose()? else { return Ok(None) };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())).collect()
        });
        Ok(Some(Record {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(text),
            headers: headers.unwrap_or_default(),
            value: message.payload().map(text),
        }))
    }
}
