//! Kafka acknowledges nothing, and why.

use std::fmt;

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::internal::Cause;
use walrelay_events::internal::Waiting;

/// Kafka acknowledges nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Stalled {
    /// The reason, if it is known.
    pub waiting: Option<Waiting>,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.waiting {
            Some(waiting) => write!(f, "kafka delivery stalled: {waiting}"),
            None => f.write_str("kafka delivery stalled: no record is acknowledged"),
        }
    }
}

impl Diagnose for Stalled {
    fn code(&self) -> Code {
        match &self.waiting {
            Some(Waiting { cause: Cause::NoTopic, .. }) => Code::new(Exit::Unavailable, 32),
            _ => Code::new(Exit::Unavailable, 33),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Transient
    }

    fn help(&self) -> Option<String> {
        match &self.waiting {
            Some(Waiting { cause: Cause::NoTopic, topic, .. }) => Some(create_topic(topic)),
            _ => None,
        }
    }
}

/// The command that creates a topic.
pub(super) fn create_topic(topic: &str) -> String {
    format!(
        "run `kafka-topics.sh --bootstrap-server BROKER --create --topic {topic} --partitions N --replication-factor \
         3`; walrelay never creates a topic"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_topic_has_its_own_code_and_the_command_that_creates_it() {
        let stalled = |cause| Stalled { waiting: Some(Waiting { topic: "missing".to_owned(), records: 1, cause }) };
        let missing = stalled(Cause::NoTopic);
        assert_eq!(missing.code().to_string(), "WR-6932");
        assert!(missing.help().unwrap().contains("--topic missing"));
        assert!(missing.to_string().contains("topic missing does not exist"), "{missing}");
        assert_eq!(stalled(Cause::BrokersDown).code().to_string(), "WR-6933");
    }
}
