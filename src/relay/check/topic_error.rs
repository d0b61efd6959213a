//! What only a check finds about Kafka, and the command that fixes it.

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error("topic {topic} does not exist")]
    Missing {
        topic: String,
        /// The command that creates it.
        command: String,
    },
    #[error("{principal} has no right to {operation} topic {topic}")]
    NoRight {
        principal: String,
        operation: &'static str,
        topic: String,
        /// The command that grants it.
        command: String,
    },
    #[error("topic {topic} needs {min} replicas in sync, and has {replicas}: Kafka refuses every record")]
    TooFewReplicas {
        topic: String,
        min: usize,
        replicas: usize,
        /// The command that lowers the number.
        command: String,
    },
    #[error("partition {partition} of topic {topic} needs {min} replicas in sync, and {in_sync} are")]
    NotInSync { topic: String, partition: usize, min: usize, in_sync: usize },
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader { topic: String, partition: usize },
    #[error("the brokers do not describe topic {topic}: {reason}")]
    Refused { topic: String, reason: String },
    #[error("topic {topic} has {replicas} replicas and min.insync.replicas = 1: a record can be acknowledged by one")]
    OneInSync {
        topic: String,
        replicas: usize,
        /// The command that raises the number.
        command: String,
    },
    #[error(
        "topic {topic} takes batches of {limit} bytes, and an event may have {wanted}: a larger one stops the relay"
    )]
    Small {
        topic: String,
        limit: usize,
        wanted: usize,
        /// The command that raises the limit.
        command: String,
    },
    #[error("rows of {table} name topics that Kafka cannot have, such as \"{example}\"")]
    Invalid {
        table: String,
        /// One of them, escaped.
        example: String,
    },
    #[error("topic {topic} refuses timestamps older than {hours} h: after a longer outage records get another time")]
    Recent {
        topic: String,
        hours: i64,
        /// The command that lifts the limit.
        command: String,
    },
}

impl Diagnose for TopicError {
    fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::new(Exit::Unavailable, 32),
            Self::NoRight { .. } => Code::new(Exit::Rights, 30),
            Self::TooFewReplicas { .. } => Code::new(Exit::Unavailable, 38),
            Self::NotInSync { .. } => Code::new(Exit::Unavailable, 39),
            Self::NoLeader { .. } => Code::new(Exit::Unavailable, 47),
            Self::Refused { .. } => Code::new(Exit::Unavailable, 48),
            Self::OneInSync { .. } => Code::new(Exit::CheckFailed, 9),
            Self::Small { .. } => Code::new(Exit::CheckFailed, 10),
            Self::Recent { .. } => Code::new(Exit::CheckFailed, 11),
            Self::Invalid { .. } => Code::new(Exit::CheckFailed, 12),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Missing { command, .. } => {
                format!("run `{command}`, with as many partitions as you need; walrelay never creates a topic")
            }
            Self::TooFewReplicas { command, .. } => {
                format!("give the topic more replicas (kafka-reassign-partitions.sh), or run `{command}`")
            }
            Self::NoRight { command, .. }
            | Self::OneInSync { command, .. }
            | Self::Small { command, .. }
            | Self::Recent { command, .. } => format!("run `{command}`"),
            Self::NotInSync { .. } | Self::NoLeader { .. } => "start the brokers that are down".to_owned(),
            Self::Invalid { .. } => "correct topic under [[outbox]], or the program that writes such rows: the relay \
                                     stops at an event that is not published yet"
                .to_owned(),
            Self::Refused { .. } => "see the log of the brokers".to_owned(),
        })
    }
}
