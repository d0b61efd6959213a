//! What the brokers' answers mean for the relay.

use crate::relay::kafka_commands::Commands;
use crate::relay::publish::TopicDescription;
use crate::relay::publish::TopicSettings;

use super::report::Check;
use super::report::Finding;
use super::report::Needed;
use super::report::Outcome;
use super::topic_error::TopicError;

const TOPIC: &str = "records go to it";
const RIGHTS: &str = "a topic that refuses records stops the relay";
const REPLICAS: &str = "a record is acknowledged when the replicas in sync have it";
const SETTINGS: &str = "a topic refuses records that its limits do not allow";
/// Kafka's names of an unknown topic and of a missing right.
const UNKNOWN: i32 = 3;
const DENIED: i32 = 29;
/// An outage is usually shorter.
const LONG_OUTAGE_HOURS: i64 = 7 * 24;

/// What is known about one topic.
#[derive(Clone, Debug)]
pub(super) struct TopicFacts {
    pub(super) name: String,
    pub(super) description: TopicDescription,
    /// None if the brokers did not answer.
    pub(super) settings: Option<TopicSettings>,
}

/// What a topic is compared with.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) commands: Commands,
    pub(super) brokers: usize,
    pub(super) max_record_bytes: usize,
}

/// Gives the checks of one topic.
pub(super) fn checks(name: &str, facts: Needed<&TopicFacts>, expected: &Expected) -> Vec<Check> {
    let existing = facts.and_then(|facts| match facts.description.error {
        None => Ok(facts),
        Some(_) => Err("topic"),
    });
    let checks = [
        ("topic", TOPIC, Outcome::with(facts, |facts| existence(facts, expected))),
        ("topic_rights", RIGHTS, Outcome::with(existing, |facts| rights(facts, expected))),
        ("topic_replicas", REPLICAS, Outcome::with(existing, |facts| replicas(facts, expected))),
        ("topic_settings", SETTINGS, Outcome::with(existing, |facts| limits(facts, expected))),
    ];
    checks.into_iter().map(|(check, why, outcome)| Check::new(check, why, outcome).about(name)).collect()
}

fn existence(facts: &TopicFacts, expected: &Expected) -> Outcome {
    let TopicFacts { name, description, .. } = facts;
    match description.error {
        None => Outcome::Passed(format!("{} partitions", description.partitions.len())),
        Some(code) if code as i32 == UNKNOWN => {
            let command = expected.commands.create(name, expected.brokers);
            Outcome::failed(&TopicError::Missing { topic: name.clone(), command })
        }
        Some(code) if code as i32 == DENIED => denied(name, "describe", expected),
        Some(code) => Outcome::failed(&TopicError::Refused { topic: name.clone(), reason: code.to_string() }),
    }
}

fn rights(facts: &TopicFacts, expected: &Expected) -> Outcome {
    match facts.description.rights {
        None => Outcome::skipped("brokers that say what a principal may do"),
        Some(rights) if rights.can_write => Outcome::Passed("may be written".to_owned()),
        Some(_) => denied(&facts.name, "write to", expected),
    }
}

fn denied(topic: &str, operation: &'static str, expected: &Expected) -> Outcome {
    let (topic, principal) = (topic.to_owned(), expected.commands.principal.clone());
    let command = expected.commands.grant(&topic);
    Outcome::failed(&TopicError::NoRight { principal, operation, topic, command })
}

fn replicas(facts: &TopicFacts, expected: &Expected) -> Outcome {
    let TopicFacts { name: topic, description, .. } = facts;
    let topic = || topic.clone();
    let min = number(facts, "min.insync.replicas").and_then(|min| usize::try_from(min).ok());
    let replicas = description.partitions.iter().map(|partition| partition.replicas).min().unwrap_or_default();
    let mut findings = Vec::new();
    for (partition, found) in description.partitions.iter().enumerate() {
        if !found.has_leader {
            findings.push(Finding::failure(&TopicError::NoLeader { topic: topic(), partition }));
        } else if let Some(min) = min
            && found.in_sync < min
            && min <= replicas
        {
            let in_sync = found.in_sync;
            findings.push(Finding::failure(&TopicError::NotInSync { topic: topic(), partition, min, in_sync }));
        }
    }
    if let Some(min) = min
        && min > replicas
    {
        let command = expected.commands.set(&topic(), &format!("min.insync.replicas={replicas}"));
        findings.push(Finding::failure(&TopicError::TooFewReplicas { topic: topic(), min, replicas, command }));
    }
    if min == Some(1) && replicas >= 3 {
        let command = expected.commands.set(&topic(), "min.insync.replicas=2");
        findings.push(Finding::warning(&TopicError::OneInSync { topic: topic(), replicas, command }));
    }
    if !findings.is_empty() {
        return Outcome::Found(findings);
    }
    let least = min.map_or_else(String::new, |min| format!(", {min} needed in sync"));
    Outcome::Passed(format!("{replicas} for each partition{least}"))
}

fn limits(facts: &TopicFacts, expected: &Expected) -> Outcome {
    match &facts.settings {
        Some(Ok(_)) => {}
        Some(Err(_)) => return Outcome::skipped("the right DescribeConfigs on the topic"),
        None => return Outcome::skipped("an answer of the brokers"),
    }
    let topic = || facts.name.clone();
    let mut findings = Vec::new();
    let limit = number(facts, "max.message.bytes").and_then(|limit| usize::try_from(limit).ok());
    let wanted = expected.max_record_bytes;
    if let Some(limit) = limit
        && limit < wanted
    {
        let command = expected.commands.set(&topic(), &format!("max.message.bytes={wanted}"));
        findings.push(Finding::warning(&TopicError::Small { topic: topic(), limit, wanted, command }));
    }
    let hours = number(facts, "message.timestamp.before.max.ms").map(|millis| millis / 3_600_000);
    let is_of_broker = setting(facts, "message.timestamp.type") == Some("LogAppendTime");
    if let Some(hours) = hours
        && hours < LONG_OUTAGE_HOURS
        && !is_of_broker
    {
        let command = expected.commands.set(&topic(), &format!("message.timestamp.before.max.ms={}", i64::MAX));
        findings.push(Finding::warning(&TopicError::Recent { topic: topic(), hours, command }));
    }
    if !findings.is_empty() {
        return Outcome::Found(findings);
    }
    Outcome::Passed(limit.map_or_else(String::new, |limit| format!("batches up to {limit} bytes")))
}

fn setting<'f>(facts: &'f TopicFacts, name: &str) -> Option<&'f str> {
    facts.settings.as_ref()?.as_ref().ok()?.get(name).map(String::as_str)
}

fn number(facts: &TopicFacts, name: &str) -> Option<i64> {
    setting(facts, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use crate::relay::publish;
    use crate::relay::publish::PartitionDescription;
    use crate::relay::publish::TopicRights;

    fn facts(partition: PartitionDescription, settings: &[(&str, &str)]) -> TopicFacts {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let rights = Some(TopicRights { can_write: true, can_describe_configs: true });
        let description = TopicDescription { name: "t".to_owned(), error: None, partitions: vec![partition], rights };
        TopicFacts { name: "t".to_owned(), description, settings: Some(Ok(settings)) }
    }

    #[test]
    fn replicas_and_limits_that_refuse_records_fail_and_those_that_may_later_warn() {
        let expected =
            Expected { commands: Commands::new(&publish::Config::default()), brokers: 3, max_record_bytes: 1_000 };
        let partition = |replicas, in_sync, has_leader| PartitionDescription { has_leader, replicas, in_sync };
        let min = |min| [("min.insync.replicas", min)];
        let rows = [
            (partition(3, 3, true), &min("2")[..], Status::Passed, Status::Passed, ""),
            (partition(3, 3, true), &min("1"), Status::Warned, Status::Passed, "WR-0109"),
            (partition(1, 1, true), &min("2"), Status::Failed, Status::Passed, "WR-6938"),
            (partition(3, 1, true), &min("2"), Status::Failed, Status::Passed, "WR-6939"),
            (partition(3, 3, false), &min("2"), Status::Failed, Status::Passed, "WR-6947"),
            (partition(1, 1, true), &[("max.message.bytes", "999")], Status::Passed, Status::Warned, "WR-0110"),
            (
                partition(1, 1, true),
                &[("message.timestamp.before.max.ms", "3600000")],
                Status::Passed,
                Status::Warned,
                "WR-0111",
            ),
        ];
        for (partition, settings, replicas, limits, code) in rows {
            let checks = checks("t", Ok(&facts(partition, settings)), &expected);
            let statuses: Vec<Status> = checks.iter().map(Check::status).collect();
            assert_eq!(statuses, [Status::Passed, Status::Passed, replicas, limits], "{partition:?} {settings:?}");
            let found: Vec<String> =
                checks.iter().flat_map(Check::findings).map(|finding| finding.code.to_string()).collect();
            assert_eq!(found.concat(), code, "{partition:?} {settings:?}");
        }
    }
}
