//! The runbooks: one for each alert, and what they print can be run.

use std::collections::BTreeSet;
use std::fs;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::file;
use super::read;
use super::rules;
use super::text;
use crate::support::program;
use crate::support::program::Program;
use crate::support::source::Sql;

const FOLDER: &str = "docs/runbooks";

/// The blocks of code of all pages in this language, each with its page.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(file(FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let page = read(&format!("{FOLDER}/{name}"));
        for part in page.split(&format!("```{language}\n")).skip(1) {
            blocks.push((name.clone(), part.split("```").next().unwrap().to_owned()));
        }
    }
    assert!(!blocks.is_empty());
    blocks
}

#[test]
fn every_alert_names_a_page_and_every_page_is_named() {
    let overview = read(&format!("{FOLDER}/README.md"));
    let mut used = BTreeSet::from(["README.md".to_owned()]);
    for rule in rules() {
        let (name, page) = (text(&rule, "alert"), text(&rule["annotations"], "runbook"));
        let severity = text(&rule["labels"], "severity");
        assert!(matches!(severity.as_str(), "critical" | "warning"), "{name}: {severity}");
        let content = read(&page);
        for part in [name.as_str(), "**Meaning.**", "**Look.**", "**Do.**", "**You can wait**"] {
            assert!(content.contains(part), "{page} lacks {part}");
        }
        assert!(overview.contains(&name), "{name} is not in {FOLDER}/README.md");
        used.insert(page.rsplit('/').next().unwrap().to_owned());
    }
    let pages = fs::read_dir(file(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(pages.collect::<BTreeSet<_>>(), used);
}

#[test]
fn every_command_of_a_runbook_exists() {
    let mut count = 0;
    for (page, block) in blocks("sh") {
        for line in block.lines().filter(|line| line.starts_with("walrelay ")) {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            let is_code = words[0] == "explain";
            let arguments = if is_code { words } else { [&words[..], &["--help"]].concat() };
            let output = program::command(&arguments).output().unwrap();
            assert!(output.status.success(), "{page}: {line}: {output:?}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_statement_of_a_runbook_runs() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = Program::new(&postgres.url(), "127.0.0.1:1", "");
    for mode in ["poll", "wal"] {
        let ended = program.verb(&["--set", &format!("source.mode={mode}"), "setup", "--apply", "--with-outbox"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
    }
    let sql = Sql::connect(&postgres.url());
    for (page, block) in blocks("sql") {
        let block: Vec<&str> = block.lines().map(|line| line.split("  --").next().unwrap()).collect();
        for statement in block.join("\n").split(';').filter(|statement| !statement.trim().is_empty()) {
            sql.try_run(statement).unwrap_or_else(|error| panic!("{page}: {statement}: {error:?}"));
        }
    }
}
