//! What every reader meets: lines fit a screen, words are those of the field, and a comment says more than a name.

use std::fs;
use std::path::Path;

const MAX_COLUMNS: usize = 120;

/// Where source lives.
const SOURCES: [&str; 8] = ["src", "crates", "tests", "benches", "examples", "scripts", "sql", ".ci"];
/// Where else there is text for readers.
const PAGES: [&str; 9] = [
    "deploy",
    "docs",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "Makefile",
    "config.toml",
];

/// Words and pairs of words that nobody in the field uses, and what to say instead.
const PRIVATE: [(&str, &str); 17] = [
    ("letter", "dead-letter record"),
    ("letters", "dead-letter records"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("whoever", "the one who acts, by name"),
    ("let go", "disconnect, or close the connection"),
    ("lets go", "disconnects, or closes the connection"),
    ("letting go", "disconnecting, or closing the connection"),
    ("tell of", "report"),
    ("tells of", "reports"),
    ("told", "reported, printed or logged"),
    ("catalogue", "catalog"),
    ("catalogues", "catalogs"),
    ("misspelt", "misspelled"),
    ("colour", "color"),
];

/// Where such a word cannot be avoided, and why.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// Words that say nothing beside a name.
const FILLERS: &str = "a all an and are as at be for gives how in is it its of on one the their to what where which";

struct Text {
    path: String,
    content: String,
}

/// Reads the files below these paths. What is made by another program, or is a license, has no reader here.
fn texts(paths: &[&str]) -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<_> = paths.iter().map(|path| root.join(path)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let is_made = name.ends_with("package-lock.json") || name.starts_with("tests/golden/");
        let is_ours = !is_made && !name.contains("LICENSE") && name != file!();
        if let Ok(content) = fs::read_to_string(&path)
            && is_ours
        {
            found.push(Text { path: name, content });
        }
    }
    assert!(found.len() >= paths.len(), "there is nothing to read");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

#[test]
fn no_line_of_source_is_over_120_columns() {
    let mut long = Vec::new();
    for Text { path, content } in texts(&SOURCES) {
        let lines = content.lines().enumerate().filter(|(_, line)| line.chars().count() > MAX_COLUMNS);
        long.extend(lines.map(|(at, line)| format!("{path}:{}: {} columns", at + 1, line.chars().count())));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_word_is_private() {
    let mut wrong = Vec::new();
    let mut unused = ALLOWED.to_vec();
    for Text { path, content } in texts(&[&SOURCES[..], &PAGES[..]].concat()) {
        let words = words(&content);
        for (place, (line, word)) in words.iter().enumerate() {
            let next = words.get(place + 1).map_or("", |(_, next)| next.as_str());
            let pair = format!("{word} {next}");
            let Some((private, better)) = PRIVATE.iter().find(|(private, _)| private == word || *private == pair)
            else {
                continue;
            };
            if ALLOWED.iter().any(|(file, allowed, _)| *file == path && allowed == private) {
                unused.retain(|(file, allowed, _)| *file != path || allowed != private);
            } else {
                wrong.push(format!("{path}:{line}: \"{private}\": say {better}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unused.is_empty(), "not needed any more: {unused:?}");
}

/// Gives the words of a text in lower case, with their lines. `dead-letter` and `dead_letter` are one word each.
fn words(text: &str) -> Vec<(usize, String)> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '-';
    let lines = text.lines().enumerate();
    let words = lines.flat_map(|(at, line)| line.split(move |char| !is_part(char)).map(move |word| (at + 1, word)));
    words.filter(|(_, word)| !word.is_empty()).map(|(line, word)| (line, word.to_lowercase())).collect()
}

#[test]
fn a_doc_comment_says_more_than_the_name() {
    let mut trivial = Vec::new();
    for Text { path, content } in texts(&["src", "crates"]) {
        let lines: Vec<&str> = content.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let is_comment = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("///"));
            let Some(comment) =
                line.strip_prefix("///").filter(|_| !is_comment(at.wrapping_sub(1)) && !is_comment(at + 1))
            else {
                continue;
            };
            let item = lines.iter().skip(at + 1).find(|line| !line.starts_with("#[")).copied().unwrap_or_default();
            if repeats(comment, item) {
                trivial.push(format!("{path}:{}: \"{}\" of `{item}`", at + 1, comment.trim()));
            }
        }
    }
    assert!(trivial.is_empty(), "{}", trivial.join("\n"));
}

/// Whether a comment has three words at most, and each of them stands in the item or says nothing.
fn repeats(comment: &str, item: &str) -> bool {
    let names = parts(item);
    let fillers = parts(FILLERS);
    let words = parts(comment);
    words.len() <= 3 && words.iter().all(|word| fillers.contains(word) || names.contains(word))
}

/// Gives the words of names and sentences, in lower case and without the plural's s: `readBytes`, `READ_BYTES` and
/// "reads a byte" share two.
fn parts(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    let mut last = ' ';
    for char in text.chars() {
        if char.is_uppercase() && last.is_lowercase() {
            spaced.push(' ');
        }
        spaced.push(char);
        last = char;
    }
    let words = spaced.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).map(|word| word.strip_suffix('s').unwrap_or(&word).to_owned()).collect()
}

#[test]
fn a_comment_that_repeats_a_name_is_found() {
    for (comment, item, expected) in [
        ("The table.", "table: String,", true),
        ("Gives the names.", "pub fn names(&self) -> &[String] {", true),
        ("What it says.", "source: KafkaError,", false),
        ("The name of the relay.", "pub name: String,", false),
        ("Its table's schema.", "schema: String,", false),
        ("Bytes of WAL.", "WalBytes(u64),", true),
    ] {
        assert_eq!(repeats(comment, item), expected, "{comment} {item}");
    }
    assert_eq!(words("the dead-letter of\n/// LETTERS").last(), Some(&(2, "letters".to_owned())));
}
