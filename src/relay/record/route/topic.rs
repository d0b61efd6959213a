//! What Kafka accepts as the name of a topic, for a row's topic and for the configuration.

use crate::relay::record::row::Role;

use super::config::Config;
use super::config::Preset;
use super::template::BadTemplate;
use super::template::Template;

/// The length of a name.
const MAX_BYTES: usize = 249;

/// What a name is made of. Kafka keeps the names that begin with `__` for itself.
const ALLOWED: &str = "allowed are 1 to 249 of A-Z a-z 0-9 . _ - without __ at the beginning";

/// Says whether a topic may have this name.
#[must_use]
pub fn is_valid(topic: &str) -> bool {
    (1..=MAX_BYTES).contains(&topic.len()) && topic.bytes().all(is_allowed) && !is_reserved(topic)
}

const fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn is_reserved(topic: &str) -> bool {
    topic == "." || topic == ".." || topic.starts_with("__")
}

/// Gives the mistakes in the options of one table that decide about its records, each with its option.
#[must_use]
pub fn mistakes(config: &Config) -> Vec<(&'static str, String)> {
    let mut mistakes = Vec::new();
    match config.topic.as_deref().map(Template::parse) {
        Some(Err(error)) => mistakes.push(("topic", error.to_string())),
        Some(Ok(template)) => mistakes.extend(of_template(&template, config).map(|text| ("topic", text))),
        None => {}
    }
    if let Some(key) = config.key.as_deref().filter(|key| Role::named_in_routes(key).is_none()) {
        mistakes.push(("key", BadTemplate::unknown_column(key).to_string()));
    }
    if config.preset != Preset::Debezium {
        let needed = "is only for preset = \"debezium\"".to_owned();
        mistakes.extend((!config.placements.is_empty()).then(|| ("placements", needed.clone())));
        mistakes.extend(config.tombstone_on_empty_payload.then_some(("tombstone_on_empty_payload", needed)));
    }
    for topic in config.allowed_topics.iter().filter(|topic| !is_valid(topic)) {
        mistakes.push(("allowed_topics", format!("invalid topic name {topic:?}: {ALLOWED}")));
    }
    mistakes
}

/// Text that no row can turn into the name of a topic.
fn of_template(template: &Template, config: &Config) -> Option<String> {
    let text = template.text();
    if template.has_columns() {
        let is_fit = text.len() <= MAX_BYTES && text.bytes().all(is_allowed);
        let is_reserved = template.fixed_start().starts_with("__");
        return (!is_fit || is_reserved).then(|| format!("invalid text {text:?} in a topic name: {ALLOWED}"));
    }
    if !is_valid(&text) {
        return Some(format!("invalid topic name {text:?}: {ALLOWED}"));
    }
    let is_left_out = !config.allowed_topics.is_empty() && !config.allowed_topics.contains(&text);
    is_left_out.then(|| format!("{text} is not one of allowed_topics"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_kafka_refuses_is_a_mistake_before_a_row_has_it() {
        let wrong = |topic: &str, allowed: &[&str]| {
            let allowed_topics = allowed.iter().map(|topic| (*topic).to_owned()).collect();
            let mistakes = mistakes(&Config { topic: Some(topic.to_owned()), allowed_topics, ..Config::default() });
            mistakes.into_iter().map(|(option, text)| format!("{option}: {text}")).collect::<Vec<_>>()
        };
        for topic in ["orders", "a.b_c-D9", "{aggregate_type}", "{aggregate_type:lower}-events", "_{id}"] {
            assert_eq!(wrong(topic, &[]), [""; 0], "{topic}");
        }
        for topic in ["order events", "", ".", "..", "__orders", "orders/eu", "größe", &"x".repeat(250)] {
            let mistakes = wrong(topic, &[]);
            assert!(mistakes.len() == 1 && mistakes[0].contains("invalid topic name"), "{topic}: {mistakes:?}");
        }
        for topic in ["my {id}", "__{id}", "{id}/x", &format!("{{id}}{}", "x".repeat(250))] {
            let mistakes = wrong(topic, &[]);
            assert!(mistakes.len() == 1 && mistakes[0].contains("in a topic name: allowed are"), "{mistakes:?}");
        }
        assert_eq!(wrong("orders", &["orders"]), [""; 0]);
        assert_eq!(wrong("orders", &["payments"]), ["topic: orders is not one of allowed_topics"]);
        assert!(wrong("{id}", &["a b"])[0].starts_with("allowed_topics: invalid topic name \"a b\""));
    }

    #[test]
    fn the_mistakes_of_topic_and_key_are_reported_together() {
        let config = Config { topic: Some("{kind}".into()), key: Some("kind".into()), ..Config::default() };
        assert_eq!(mistakes(&config).iter().map(|(option, _)| *option).collect::<Vec<_>>(), ["topic", "key"]);
    }
}
