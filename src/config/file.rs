//! The configuration file as leaves, each with its place, and every mistake in its syntax.
//!
//! A place is that of the whole key as it is written: `compression.type = "lz4"` and `"compression.type" = "lz4"` begin
//! where the line does. A table that is written inline has leaves like any other.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::Value;
use toml::de::DeTable;
use toml::de::DeValue;

use super::origin::Origin;

/// A path such as `outbox.0.table`, in its parts.
pub(super) type Keys = Vec<String>;

/// TOML's message about a key or a section that is given twice.
const DUPLICATE: &str = "duplicate key";
/// The beginning of its message about a key without a value.
const ENDING: &str = "key with no value";
/// How many of such keys are passed: each costs a parse of the whole file. A file with more is no configuration.
const MAX_ENDINGS: usize = 20;

/// A value or what is wrong with it, its path, and the place of its key.
type Found = (Keys, Result<Value, String>, Range<usize>);

/// What a file contains.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Each value with its path and the place of its key.
    pub(super) leaves: Vec<(Keys, Value, Range<usize>)>,
    /// Those on a line with an error, without their values.
    pub(super) dropped: Vec<(Keys, Range<usize>)>,
    /// What is not TOML.
    pub(super) errors: Vec<(Range<usize>, String)>,
}

/// Reads a file. A value on a line with an error is left out. After an error that hides where a value or a section
/// ends, nothing is given but that error: what would be reported about the rest would not be true.
pub(super) fn parse(text: &str) -> Parsed {
    let (blanked, mut all) = blank_what_ends_the_parser(text);
    let (table, errors) = DeTable::parse_recoverable(&blanked);
    all.extend(errors.iter().map(read_error));
    let mut parsed = Parsed::default();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at: usize| ends.partition_point(|end| *end < at);
    let mut wrong = BTreeSet::new();
    // What follows the first error on a line is its consequence.
    parsed.errors.extend(all.into_iter().filter(|(span, _)| wrong.insert(line(span.start))));
    parsed.errors.sort_by_key(|(span, _)| span.start);
    let is_header = |number: usize| {
        let begin = number.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| end + 1);
        text.get(begin..).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('['))
    };
    let hides = |message: &str, number: usize| {
        let is_open = ["array", "inline table", "unclosed", "multi-line"].iter().any(|part| message.contains(part));
        is_open || is_header(number) && message != DUPLICATE
    };
    match parsed.errors.iter().position(|(span, message)| hides(message, line(span.start))) {
        Some(hiding) => parsed.errors.truncate(hiding + 1),
        None => {
            let mut found = Vec::new();
            collect(text, table.get_ref(), &mut Vec::new(), &mut found);
            for (keys, value, span) in found {
                match value {
                    _ if wrong.contains(&line(span.start)) => parsed.dropped.push((keys, span)),
                    Ok(value) => parsed.leaves.push((keys, value, span)),
                    Err(message) => {
                        parsed.errors.push((span.clone(), message));
                        parsed.dropped.push((keys, span));
                    }
                }
            }
        }
    }
    parsed
}

/// At a key without a value the parser ends. Each such line becomes spaces, so that the lines below it are read.
fn blank_what_ends_the_parser(text: &str) -> (String, Vec<(Range<usize>, String)>) {
    let (mut blanked, mut errors) = (text.to_owned(), Vec::new());
    for _ in 0..MAX_ENDINGS {
        let (_, found) = DeTable::parse_recoverable(&blanked);
        let Some((span, message)) = found.iter().map(read_error).find(|(_, message)| message.starts_with(ENDING))
        else {
            break;
        };
        let begin = blanked.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let length = blanked.get(begin..).map_or(0, |rest| rest.find('\n').unwrap_or(rest.len()));
        blanked.replace_range(begin..begin + length, &" ".repeat(length));
        errors.push((span, message));
    }
    (blanked, errors)
}

fn read_error(error: &toml::de::Error) -> (Range<usize>, String) {
    (error.span().unwrap_or_default(), error.message().replace('\n', ", "))
}

fn collect(text: &str, table: &DeTable<'_>, above: &mut Keys, found: &mut Vec<Found>) {
    for (key, value) in table {
        above.push(key.get_ref().to_string());
        let value = value.get_ref();
        let list = value.as_array().filter(|list| !list.is_empty());
        if let Some(inner) = value.as_table().filter(|inner| !inner.is_empty()) {
            collect(text, inner, above, found);
        } else if let Some(list) = list.filter(|list| list.iter().all(|element| element.get_ref().is_table())) {
            for (place, element) in list.iter().enumerate() {
                above.push(place.to_string());
                match element.get_ref().as_table() {
                    Some(inner) if !inner.is_empty() => collect(text, inner, above, found),
                    Some(_) | None => {
                        let (keys, value, span) = default_element(above, element.span());
                        found.push((keys, Ok(value), span));
                    }
                }
                above.pop();
            }
        } else {
            found.push((above.clone(), plain(value), written(text, key.span())));
        }
        above.pop();
    }
}

/// Extends the last part of a key to the key as it is written, with the dots before it.
fn written(text: &str, last: Range<usize>) -> Range<usize> {
    let before = text.get(..last.start).unwrap_or_default();
    let begin = before.rfind(['\n', '{', ',', '[']).map_or(0, |at| at + 1);
    let rest = before.get(begin..).unwrap_or_default();
    begin + rest.len() - rest.trim_start_matches([' ', '\t', '\u{feff}']).len()..last.end
}

/// The options of an empty element are all defaults; the element itself must stay.
pub(super) fn default_element(above: &[String], span: Range<usize>) -> (Keys, Value, Range<usize>) {
    ([above, &["preset".to_owned()]].concat(), Value::String("walrelay".to_owned()), span)
}

/// Gives what TOML's syntax allows and its values do not: a number that is too large.
fn plain(value: &DeValue<'_>) -> Result<Value, String> {
    let value = toml::de::ValueDeserializer::from(Spanned::new(0..0, value.clone()));
    Value::deserialize(value).map_err(|_| "the value is out of range".to_owned())
}

/// Gives the first part of the header of the section in which a place is, if it is certain that it is in one.
pub(super) fn header_before(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?;
    // A text of several lines may be a key or a certificate.
    if ["\"\"\"", "'''"].iter().any(|quotes| before.matches(quotes).count() % 2 == 1) {
        return None;
    }
    let header = before.lines().rev().find(|line| line.trim_start().starts_with('['))?;
    header.trim_start().trim_start_matches('[').split([']', '.']).next().map(str::trim)
}

/// Gives the place of a span, with the line that contains it.
pub(super) fn place(path: &str, text: &str, span: Range<usize>) -> Origin {
    let before = text.get(..span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let excerpt = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    let width = text.get(span).unwrap_or_default().lines().next().unwrap_or_default().chars().count();
    Origin::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column,
        excerpt: excerpt.to_owned(),
        width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read<'a> = (Vec<(String, &'a str)>, Vec<(usize, String)>);

    fn read(text: &str) -> Read<'_> {
        let Parsed { leaves, errors, .. } = parse(text);
        let leaves = leaves.into_iter().map(|(keys, _, span)| (keys.join("/"), &text[span]));
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        (leaves.collect(), errors.into_iter().map(|(span, message)| (line(span.start), message)).collect())
    }

    #[test]
    fn a_leaf_is_placed_at_its_key_as_it_is_written() {
        let text = "\u{feff}[a]\n  b.c = 1\n\"d.e\" = 2\nf = { g = 1, h.i = 2 }\n[x.y]\nz = 1\n[[o]]\nt = 1\n[[o]]\n\
                    [o.columns]\nid = \"x\"\n[[o]]\n[e.e]\n";
        let expected = [
            ("a/b/c", "b.c"),
            ("a/d.e", "\"d.e\""),
            ("a/f/g", "g"),
            ("a/f/h/i", "h.i"),
            ("x/y/z", "z"),
            ("o/0/t", "t"),
            ("o/1/columns/id", "id"),
            ("o/2/preset", "[[o]]"),
            ("e/e", "e.e"),
        ];
        assert_eq!(read(text), (expected.map(|(path, at)| (path.to_owned(), at)).to_vec(), vec![]));
        let (leaves, _) = read("o = [{ a = 1 }, {}]\np = {}\n");
        assert_eq!(leaves.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["o/0/a", "o/1/preset", "p"]);
    }

    #[test]
    fn every_error_of_syntax_is_found_and_the_other_lines_are_read() {
        let (leaves, errors) = read("[a]\nb = 20s\nc = 1\nd =\ne = \"x\nb = 1\n[a]\nf g = 1\nj\n[h]\ni = 1\n");
        assert_eq!(leaves, [("a/c".to_owned(), "c"), ("h/i".to_owned(), "i")]);
        assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6, 7, 8, 9], "{errors:?}");
    }

    #[test]
    fn a_number_out_of_range_is_an_error_and_no_other_value() {
        let parsed = parse("[a]\nb = 99999999999999999999\nc = 0x1FFFFFFFFFFFFFFFFFF\nd = [1, 99999999999999999999]\n");
        assert_eq!((parsed.leaves.len(), parsed.errors.len(), parsed.dropped.len()), (0, 3, 3), "{parsed:?}");
    }

    #[test]
    fn each_line_of_a_file_that_is_not_toml_is_an_error() {
        let parsed = parse(&"words without an end\n".repeat(2_000));
        assert_eq!((parsed.leaves.len(), parsed.errors.len()), (0, 2_000));
    }

    #[test]
    fn the_section_of_a_place_is_known_outside_of_texts_of_several_lines() {
        let text = "a = 1\n[b.c]\nd = 1\n[[e]]\nf = '''\n[g]\n";
        let at = |part: &str| header_before(text, text.find(part).unwrap());
        assert_eq!([at("a ="), at("d ="), at("f ="), at("[g]")], [None, Some("b"), Some("e"), None]);
    }

    #[test]
    fn nothing_is_read_behind_an_error_that_hides_where_something_ends() {
        for text in ["[a\nb = 1\n[c]\nd = 1 1\n", "[a]\nb = [\"x\"\nc = 1\n[d]\ne = 1\n"] {
            let (leaves, errors) = read(text);
            assert_eq!((leaves, errors.len()), (vec![], 1), "{errors:?}");
        }
    }
}
