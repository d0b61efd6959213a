//! Whether `synchronous_standby_names` includes this relay. Commits of the application would then wait until Kafka has
//! acknowledged everything committed before them.
//!
//! Decided from the setting, which every role may read before the stream starts; `sync_state` in `pg_stat_replication`
//! shows it only afterwards, and only to roles with `pg_read_all_stats`.

/// The server truncates a name to this.
const MAX_NAME_BYTES: usize = 63;

/// Says whether the setting includes a walsender of this `application_name`.
#[must_use]
pub(in crate::relay) fn includes(setting: &str, application_name: &str) -> bool {
    let ours = application_name.get(..MAX_NAME_BYTES).unwrap_or(application_name);
    names(setting).iter().any(|name| name == "*" || name.eq_ignore_ascii_case(ours))
}

/// Reads the names of `a, "B c"`, `2 (a, b)`, `FIRST 2 (a, b)` or `ANY 2 (a, b)`.
fn names(setting: &str) -> Vec<String> {
    let (mut names, mut name, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = setting.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => name.push('"'),
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => name.push(char),
            // Before it is the number of standbys.
            '(' => name.clear(),
            ',' | ')' => names.push(std::mem::take(&mut name)),
            _ if char.is_whitespace() => {}
            _ => name.push(char),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_with_this_name_or_a_star_includes_the_relay() {
        let rows = [
            ("", false),
            ("*", true),
            ("standby1", false),
            ("standby1, WalRelay", true),
            ("FIRST 1 (standby1, walrelay2)", false),
            ("ANY 2 (a, walrelay, b)", true),
            ("2 (a, *)", true),
            ("first 1 (\"walrelay\")", true),
            ("\"a, walrelay\", \"say \"\"walrelay\"\"\"", false),
            ("walrelay (standby1)", false),
        ];
        for (setting, expected) in rows {
            assert_eq!(includes(setting, "walrelay"), expected, "{setting}");
        }
        let long = "x".repeat(70);
        assert!(includes(&long[..63], &long));
    }
}
