//! The arguments of this process, so that every command it prints can be pasted.
//!
//! A command in a text for people is written \`walrelay ...\`, in backquotes. The log, standard error and `/status`
//! pass such texts through here, which adds `--config` and every `--set`. A secret in a `--set` is redacted.

use std::path::Path;
use std::sync::OnceLock;

use crate::secret;
use crate::shell;

static CALLED: OnceLock<String> = OnceLock::new();

/// Remembers `--config` and every `--set`.
pub(super) fn remember(file: Option<&Path>, sets: &[String]) {
    let _ = CALLED.set(words(file, sets));
}

/// Adds the remembered arguments to the commands of a text.
pub(super) fn complete(text: &str) -> String {
    completed(text, CALLED.get().map_or("", String::as_str))
}

fn completed(text: &str, called: &str) -> String {
    text.replace("`walrelay ", &format!("`walrelay {called}"))
}

fn words(file: Option<&Path>, sets: &[String]) -> String {
    let file = file.map(|file| format!("--config {} ", shell::word(&file.display().to_string())));
    let sets = sets.iter().map(|set| format!("--set {} ", shell::word(&secret::without_in_set(set))));
    file.into_iter().chain(sets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_file_and_every_option_that_was_given_but_no_secret() {
        let hint = "run `walrelay setup --apply`, then `walrelay run`; see walrelay setup";
        let called = |file: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            completed(hint, &words(Some(Path::new(file)), &sets))
        };
        assert_eq!(
            called("/etc/w/a.toml", &["source.slot=b"]),
            "run `walrelay --config /etc/w/a.toml --set source.slot=b setup --apply`, then `walrelay --config \
             /etc/w/a.toml --set source.slot=b run`; see walrelay setup"
        );
        assert!(called("it's mine.toml", &[]).contains(r"--config 'it'\''s mine.toml' setup"));
        let secrets =
            called("a", &["postgres.url=postgres://app:hunter2@db/x", "kafka.properties.sasl.password=hunter2"]);
        assert!(
            !secrets.contains("hunter2") && secrets.contains("--set 'postgres.url=postgres://app:[redacted]@db/x'"),
            "{secrets}"
        );
        assert_eq!(completed(hint, &words(None, &[])), hint);
    }
}
