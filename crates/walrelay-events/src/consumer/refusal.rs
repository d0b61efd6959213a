//! Errors of librdkafka's client: which of them mean that the group refuses the member, and what to do.

use rdkafka::types::RDKafkaErrorCode as Code;

/// What an error of librdkafka's client means for a consumer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// All brokers are down.
    AllBrokersDown,
    /// A connection failed. The client connects again.
    Connection,
    /// The group refuses the member until somebody does something. The client or the consumer retries.
    Refused { next: String },
    /// Something that lasts and does not end the consumer.
    Lasting { next: Option<&'static str> },
    /// What the poll reports ends the consumer or is corrected by it.
    Handled,
}

/// Returns what an error means for a member of a group.
pub(super) fn meaning(code: Code, group: &str) -> Meaning {
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka has two hundred codes, and gets more")]
    match code {
        Code::AllBrokersDown => Meaning::AllBrokersDown,
        Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::NetworkException => Meaning::Connection,
        Code::AutoOffsetReset
        | Code::Fatal
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication => Meaning::Handled,
        Code::PollExceeded => Meaning::Lasting {
            next: Some(
                "look for what blocks the consumer's thread, such as an Observer, or raise max.poll.interval.ms",
            ),
        },
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Meaning::Lasting {
            next: Some("create the topic (kafka-topics.sh --bootstrap-server BROKER --create --topic TOPIC)"),
        },
        _ => refused(code, group).map_or(Meaning::Lasting { next: None }, |(next, _)| Meaning::Refused { next }),
    }
}

/// Returns what to do about a group that refuses a member, and whether the member may be accepted without a change to
/// its configuration.
pub(super) fn refused(code: Code, group: &str) -> Option<(String, bool)> {
    let members = format!("kafka-consumer-groups.sh --bootstrap-server BROKER --describe --group {group} --members");
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka has two hundred codes, and gets more")]
    let refused = match code {
        Code::InconsistentGroupProtocol => (
            format!(
                "stop the members of group {group} that use another assignor than cooperative-sticky ({members}), or \
                 set Config::group to a group of its own"
            ),
            true,
        ),
        Code::UnreleasedInstanceId | Code::FencedInstanceId => (
            format!(
                "give each member a group.instance.id of its own ({members}); after a crash the group releases the id \
                 at the end of the session timeout"
            ),
            code == Code::UnreleasedInstanceId,
        ),
        Code::GroupMaxSizeReached => {
            (format!("stop members of group {group} ({members}), or raise the brokers' group.max.size"), true)
        }
        Code::InvalidSessionTimeout => (
            "set session.timeout.ms between the brokers' group.min.session.timeout.ms and \
             group.max.session.timeout.ms"
                .to_owned(),
            true,
        ),
        Code::UnsupportedAssignor => (
            "remove group.remote.assignor, or set it to one of the brokers' group.consumer.assignors".to_owned(),
            false,
        ),
        Code::UnsupportedVersion | Code::UnsupportedFeature => (
            "set Config::group_protocol to GroupProtocol::Classic: the brokers do not support Consumer".to_owned(),
            false,
        ),
        Code::GroupIdNotFound => (
            format!("set Config::group to a group of its own: {group} belongs to members of another kind ({members})"),
            true,
        ),
        Code::InvalidRequest => (format!("look at the log of the group's coordinator ({members})"), false),
        _ => return None,
    };
    Some(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_cannot_join_is_refused_and_every_other_error_is_not() {
        for code in [Code::InconsistentGroupProtocol, Code::UnreleasedInstanceId, Code::GroupMaxSizeReached] {
            let Meaning::Refused { next } = meaning(code, "shipping") else { panic!("{code:?}") };
            assert!(next.contains("--group shipping"), "{next}");
            assert_eq!(refused(code, "shipping").map(|(_, can_retry)| can_retry), Some(true), "{code:?}");
        }
        for code in [Code::UnsupportedAssignor, Code::FencedInstanceId, Code::UnsupportedVersion] {
            assert_eq!(refused(code, "shipping").map(|(_, can_retry)| can_retry), Some(false), "{code:?}");
        }
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::Fatal, Code::PollExceeded] {
            assert_eq!(refused(code, "shipping"), None, "{code:?}");
            assert!(!matches!(meaning(code, "shipping"), Meaning::Refused { .. }), "{code:?}");
        }
    }
}
