//! Which series and labels an expression of PromQL names. Its syntax is Prometheus' own business.

/// A series that an expression selects.
#[derive(Debug, Eq, PartialEq)]
pub struct Selector {
    pub name: String,
    /// Each label with the text that it is compared with.
    pub matchers: Vec<(String, String)>,
}

/// What an expression names.
#[derive(Debug, Default)]
pub struct Names {
    pub selectors: Vec<Selector>,
    /// The labels by which it groups or joins.
    pub groupings: Vec<String>,
}

const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];

/// Reads an expression.
pub fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expression;
    while let Some(begin) = rest.find(|char: char| !char.is_whitespace()) {
        rest = &rest[begin..];
        let length = rest.find(|char: char| !is_part(char)).unwrap_or(rest.len());
        if length == 0 {
            rest = &rest[1..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        rest = after;
        let next = rest.trim_start();
        if GROUPINGS.contains(&word) {
            let (labels, after) = inner(next, '(', ')').unwrap_or_default();
            let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
            names.groupings.extend(labels.map(str::to_owned));
            rest = if after.is_empty() { rest } else { after };
        } else if word.starts_with(|char: char| char.is_ascii_digit()) || OPERATORS.contains(&word) {
            // A number, a duration or an operator.
        } else if !["(", "by ", "without "].iter().any(|begin| next.starts_with(begin)) {
            let (matchers, after) = inner(next, '{', '}').unwrap_or(("", rest));
            names.selectors.push(Selector { name: word.to_owned(), matchers: matchers_of(matchers) });
            rest = after;
        }
    }
    names
}

fn is_part(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

/// What stands between the first brackets of a text that begins with one, and what follows them.
fn inner(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_prefix(open)?.split_once(close)
}

fn matchers_of(text: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = text.split('"').collect();
    let pairs = parts.chunks_exact(2);
    pairs.map(|pair| (pair[0].trim_matches(|char| !is_part(char)).to_owned(), pair[1].to_owned())).collect()
}

#[test]
fn series_and_labels_of_an_expression_are_found() {
    let names = names("sum by (le, a) (rate(x_total{b=~\"1|2\", c!=\"3\"}[5m])) > 2 * 1e3\n unless on (d) y == 0");
    let selector = |name: &str, matchers: &[(&str, &str)]| Selector {
        name: name.to_owned(),
        matchers: matchers.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
    };
    assert_eq!(names.selectors, [selector("x_total", &[("b", "1|2"), ("c", "3")]), selector("y", &[])]);
    assert_eq!(names.groupings, ["le", "a", "d"]);
}
