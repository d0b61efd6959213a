//! The pages of docs/ for users: their configurations are valid, their commands and statements can be run, their links
//! lead somewhere, and the tests that they cite exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::file;
use super::read;
use crate::support::program;
use crate::support::program::Program;
use crate::support::source::Sql;

/// The pages with configurations of the program. Those of the library are checked where they are compiled.
const PAGES: [&str; 8] = [
    "README.md",
    "docs/authentication.md",
    "docs/concepts.md",
    "docs/guarantees.md",
    "docs/kafka-providers.md",
    "docs/postgresql-providers.md",
    "docs/scaling.md",
    "docs/upgrade.md",
];
/// Where tests are.
const TESTS: [&str; 3] = ["tests", "src", "crates"];
/// Of Amazon RDS and Aurora.
const MANAGED_ROLE: &str = "CREATE ROLE rds_replication NOLOGIN";

/// The blocks of code in this language, each with its page. A block in a list is indented.
fn blocks(language: &str) -> Vec<(&'static str, String)> {
    let mut blocks = Vec::new();
    for name in PAGES {
        let mut open: Option<(String, usize)> = None;
        for line in read(name).lines() {
            let text = line.trim_start();
            if let Some((block, indent)) = &mut open {
                if text != "```" {
                    block.push_str(line.get(*indent..).unwrap_or_default());
                    block.push('\n');
                } else if let Some((block, _)) = open.take() {
                    blocks.push((name, block));
                }
            } else if text == format!("```{language}") {
                open = Some((String::new(), line.len() - text.len()));
            }
        }
    }
    assert!(blocks.len() > 5, "{language}: {blocks:?}");
    blocks
}

/// The commands in the text of a page, as in `walrelay status`; not those with a word that stands for others.
fn inline_commands(page: &str) -> Vec<String> {
    let text: Vec<&str> = page.split("```").step_by(2).collect();
    let text = text.join(" ");
    let spans = text.split('`').skip(1).step_by(2);
    let commands = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    let is_command = |span: &String| {
        let verb = span.strip_prefix("walrelay ").and_then(|rest| rest.chars().next());
        verb.is_some_and(|first| first.is_ascii_lowercase()) && !span.contains('>')
    };
    commands.filter(is_command).collect()
}

#[test]
fn every_configuration_of_a_page_is_valid() {
    let folder = std::env::temp_dir().join(format!("walrelay-pages-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config.toml");
    for (page, block) in blocks("toml") {
        fs::write(&path, &block).unwrap();
        let arguments = ["--config", path.to_str().unwrap(), "config", "validate", "--without-files"];
        let output = program::command(&arguments).output().unwrap();
        assert!(output.status.success(), "{page}: {block}: {output:?}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_command_of_a_page_exists() {
    let mut commands = BTreeSet::new();
    for page in PAGES {
        commands.extend(inline_commands(&read(page)).into_iter().map(|line| (page, line)));
    }
    for (page, block) in blocks("sh") {
        let block = block.replace("\\\n", " ");
        let lines = block.lines().filter(|line| line.starts_with("walrelay "));
        commands.extend(lines.map(|line| (page, line.to_owned())));
    }
    assert!(commands.len() > 30, "{commands:?}");
    for (page, line) in commands {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let is_code = words[0] == "explain" && words.len() > 1;
        let arguments = if is_code { words } else { [&words[..], &["--help"]].concat() };
        let output = program::command(&arguments).output().unwrap();
        assert!(output.status.success(), "{page}: {line}: {output:?}");
    }
}

#[test]
fn every_statement_of_a_page_runs_and_those_for_the_relays_role_are_the_printed_ones() {
    let postgres = Postgres::start(Options::default()).unwrap();
    Sql::connect(&postgres.url()).run("CREATE DATABASE shop");
    let program = Program::new(&postgres.url_of("shop"), "127.0.0.1:1", "");
    let mut printed = String::new();
    for mode in ["poll", "wal"] {
        let mode = format!("source.mode={mode}");
        let ended = program.verb(&["--set", &mode, "setup", "--apply", "--with-outbox"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
        printed += &program.verb(&["--set", &mode, "setup", "--offline", "--role", "walrelay"]).out;
    }
    let sql = Sql::connect(&postgres.url_of("shop"));
    sql.run(MANAGED_ROLE);
    printed += &program.verb(&["setup", "--role", "walrelay"]).out;
    let mut of_the_role = 0;
    for (page, block) in blocks("sql") {
        let statements = block.split(';').map(str::trim).filter(|statement| !statement.is_empty());
        let is_setting = block.contains("ALTER SYSTEM");
        if !is_setting {
            sql.run("BEGIN");
        }
        for statement in statements {
            sql.try_run(statement).unwrap_or_else(|error| panic!("{page}: {statement}: {error:?}"));
            // With a quoted name it is what setup prints.
            if statement.contains("\"walrelay\"") {
                assert!(printed.contains(&format!("{statement};")), "{page}: {statement} is not in {printed}");
                of_the_role += 1;
            }
        }
        if !is_setting {
            sql.run("ROLLBACK");
        }
    }
    assert!(of_the_role > 8, "{of_the_role}");
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for page in PAGES {
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(page).parent().unwrap();
            let path = if path.is_empty() { page.to_owned() } else { folder.join(path).display().to_string() };
            assert!(file(&path).exists(), "{page}: {target}");
            let is_there = heading.is_empty() || headings(&read(&path)).contains(heading);
            assert!(is_there, "{page}: {target}");
            count += 1;
        }
        // As in [text][name]; the address stands below.
        for name in text.split("][").skip(1).filter_map(|rest| rest.split(']').next()) {
            assert!(text.contains(&format!("\n[{name}]: https://")), "{page}: [{name}]");
        }
    }
    assert!(count > 50, "{count}");
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings(page: &str) -> BTreeSet<String> {
    let titles = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    titles.map(|title| title.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_test_that_a_page_cites_exists() {
    let mut sources = String::new();
    let mut open: Vec<_> = TESTS.iter().map(|folder| file(folder)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources += &fs::read_to_string(path).unwrap();
        }
    }
    let mut count = 0;
    for page in PAGES {
        let text = read(page);
        for comment in text.split("<!-- tests: ").skip(1).filter_map(|rest| rest.split("-->").next()) {
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            for name in comment.split(|char| !is_part(char)).filter(|word| word.contains('_')) {
                assert!(sources.contains(&format!("fn {name}(")), "{page}: {name}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_code_and_metric_that_a_page_names_is_documented() {
    let (codes, metrics) = (read("docs/errors.md"), read("docs/metrics.md"));
    let mut count = 0;
    for page in PAGES {
        let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
        for word in read(page).split(|char| !is_part(char)) {
            let is_documented = match word {
                "walrelay_events" => continue,
                _ if word.starts_with("WR-") => codes.contains(&format!("### {word}: ")),
                _ if word.starts_with("walrelay_") => metrics.contains(word),
                _ => continue,
            };
            assert!(is_documented, "{page}: {word}");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
