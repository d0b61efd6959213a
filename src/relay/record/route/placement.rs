//! A column whose value becomes a header, in the words of Debezium: `column:header` or `column:header:name`.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// A column and the name of its header.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Placement {
    /// The possible names of the column, of which the table has one at a time.
    pub columns: Vec<String>,
    pub header: String,
}

/// The text is not a placement that is supported.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPlacement {
    #[error("invalid placement {0:?}: the form is \"column:header\" or \"column:header:name\"")]
    Form(String),
    /// Without a name the header would be renamed with the column.
    #[error("the placement {0:?} has several columns: name the header, as in \"old|new:header:name\"")]
    NoName(String),
    /// The option `partition` does it.
    #[error("the placement {0:?} is not supported: set partition to the name of the column")]
    Partition(String),
    /// Only headers are supported.
    #[error("the placement {0:?} is not supported: a column can only become a header, the value is the payload alone")]
    Envelope(String),
}

impl TryFrom<String> for Placement {
    type Error = BadPlacement;

    fn try_from(text: String) -> Result<Self, BadPlacement> {
        let mut parts = text.split(':').map(str::trim);
        let (columns, place, alias, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        let columns: Vec<String> =
            columns.into_iter().flat_map(|columns| columns.split('|')).map(|column| column.trim().to_owned()).collect();
        let is_repeated = columns.iter().enumerate().any(|(at, name)| columns.iter().take(at).any(|it| it == name));
        let header = alias.map(str::to_owned).or_else(|| columns.first().cloned()).unwrap_or_default();
        let is_fit = rest.is_none() && !header.is_empty() && !is_repeated && !columns.iter().any(String::is_empty);
        match place.map(str::to_ascii_lowercase).as_deref() {
            Some("header") if is_fit && columns.len() > 1 && alias.is_none() => Err(BadPlacement::NoName(text)),
            Some("header") if is_fit => Ok(Self { columns, header }),
            Some("partition") => Err(BadPlacement::Partition(text)),
            Some("envelope") => Err(BadPlacement::Envelope(text)),
            Some(_) | None => Err(BadPlacement::Form(text)),
        }
    }
}

impl From<Placement> for String {
    fn from(placement: Placement) -> Self {
        placement.to_string()
    }
}

/// As it is configured.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:header:{}", self.columns.join("|"), self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_is_read_as_debezium_reads_it_and_what_is_not_supported_is_named() {
        for (text, columns, header) in [
            ("type:header", &["type"][..], "type"),
            ("type:header:eventType", &["type"], "eventType"),
            (" type : HEADER : event type ", &["type"], "event type"),
            ("kind|type:header:x", &["kind", "type"], "x"),
        ] {
            let parsed = Placement::try_from(text.to_owned()).unwrap();
            assert!(parsed.columns == columns && parsed.header == header, "{text}: {parsed:?}");
            assert_eq!(Placement::try_from(parsed.to_string()), Ok(parsed), "{text}");
        }
        let wrong = ["", "type", "type:", ":header", "type:nowhere", "type:header:", "a|a:header", "|a:header"];
        for text in wrong.into_iter().chain(["a:header:b:c"]) {
            assert_eq!(Placement::try_from(text.to_owned()), Err(BadPlacement::Form(text.to_owned())));
        }
        let error = |text: &str| Placement::try_from(text.to_owned()).unwrap_err().to_string();
        assert!(error("kind|type:header").contains("name the header"));
        assert!(error("p:partition").ends_with("set partition to the name of the column"));
        assert!(error("type:Envelope:x").contains("\"type:Envelope:x\" is not supported"));
    }
}
