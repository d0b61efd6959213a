//! Lines that fit a terminal. A command in backquotes is never broken: it is copied as it stands.

/// The width without a terminal.
const WIDTH: usize = 80;

/// Gives the width of the terminal, or what `COLUMNS` says.
pub(super) fn width() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let found = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    given.or_else(found).filter(|width| *width > 0).unwrap_or(WIDTH)
}

/// Breaks a text at spaces, and indents each line.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let room = width.saturating_sub(indent).max(1);
    let (mut lines, mut line) = (String::new(), String::new());
    let mut end = |line: &mut String| {
        lines.push_str(&" ".repeat(indent));
        lines.push_str(line);
        lines.push('\n');
        line.clear();
    };
    for word in words(text) {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            end(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    end(&mut line);
    lines
}

/// Makes a text that cannot move the cursor of one by a server, a row or another program.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|each| if each.is_control() { ' ' } else { each }).collect()
}

/// Splits at spaces that are not between backquotes.
fn words(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let words = text.split(|char| {
        is_quoted ^= char == '`';
        char == ' ' && !is_quoted
    });
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_at_spaces_but_never_within_a_command() {
        let text = "next: run `ALTER SYSTEM SET wal_level = 'logical'`, then restart";
        let lines = wrap(text, 24, 2);
        assert_eq!(lines, "  next: run\n  `ALTER SYSTEM SET wal_level = 'logical'`,\n  then restart\n");
        assert_eq!(wrap("", 24, 2), "  \n");
        assert_eq!(wrap("a b", 1, 4), "    a\n    b\n");
    }
}
