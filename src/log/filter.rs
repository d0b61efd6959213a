//! `[log] level`: one level, or levels by target.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::error::Error;

/// The words for a level, from nothing to everything.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Reads a filter such as `info` or `info,walrelay::relay=debug`. A word alone is a level and never a target, so that a
/// misspelled level is an error and not a filter for one target.
pub(super) fn parse(text: &str) -> Result<Targets, Error> {
    let mut targets = Targets::new();
    let mut has_default = false;
    for part in text.split(',').map(str::trim) {
        if let Some((target, word)) = part.split_once('=') {
            let target = target.trim();
            if target.is_empty() || !target.chars().all(is_target) {
                return Err(Error::Target { part: part.to_owned() });
            }
            targets = targets.with_target(target, level(word.trim())?);
        } else {
            targets = targets.with_default(level(part)?);
            has_default = true;
        }
    }
    Ok(if has_default { targets } else { targets.with_default(Level::INFO) })
}

fn level(word: &str) -> Result<LevelFilter, Error> {
    let known = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    known.map(|(_, level)| *level).ok_or_else(|| Error::Level { word: word.to_owned(), nearest: nearest(word) })
}

fn nearest(word: &str) -> Option<&'static str> {
    let distance = |name: &str| strsim::damerau_levenshtein(name, &word.to_ascii_lowercase());
    LEVELS.iter().map(|(name, _)| *name).min_by_key(|name| distance(name)).filter(|name| distance(name) <= 2)
}

const fn is_target(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_says_what_is_let_through() {
        for (filter, target, level, expected) in [
            ("info", "walrelay", Level::INFO, true),
            ("info", "walrelay", Level::DEBUG, false),
            ("WARN", "walrelay", Level::INFO, false),
            ("off", "walrelay", Level::ERROR, false),
            ("info, walrelay::relay=debug", "walrelay::relay::postgres", Level::DEBUG, true),
            ("info,walrelay::relay=debug", "walrelay::admin", Level::DEBUG, false),
            ("walrelay::relay=debug", "walrelay::admin", Level::INFO, true),
            ("info,librdkafka=off", "librdkafka", Level::ERROR, false),
        ] {
            let targets = parse(filter).unwrap();
            assert_eq!(targets.would_enable(target, &level), expected, "{filter} {target} {level}");
        }
    }

    #[test]
    fn a_misspelled_level_is_refused_with_the_nearest_one() {
        for (filter, expected) in [
            ("inof", "expected a log level (off, error, warn, info, debug, trace), found \"inof\""),
            ("", "expected a log level (off, error, warn, info, debug, trace), found \"\""),
            ("info,walrelay=loud", "expected a log level (off, error, warn, info, debug, trace), found \"loud\""),
            ("info,=debug", "expected target=level, found \"=debug\""),
            ("info,[span]=debug", "expected target=level, found \"[span]=debug\""),
        ] {
            assert_eq!(parse(filter).unwrap_err().to_string(), expected, "{filter}");
        }
        assert_eq!(nearest("inof"), Some("info"));
        assert_eq!(nearest("warning"), None);
    }
}
