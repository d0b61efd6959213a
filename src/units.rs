//! Durations, sizes and secrets as the configuration writes them.
//!
//! A duration or a size is a string that carries its unit (`"30s"`, `"32MiB"`); a bare number is refused, since nobody
//! can tell seconds from milliseconds by looking at it. Options leave their room as [`Duration`] or a count of bytes.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Visitor;

/// The two largest units of a duration, for people.
#[must_use]
pub fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |duration| duration.as_secs());
    let (minutes, hours, days) = (whole / 60, whole / 3_600, whole / 86_400);
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{minutes} min {} s", whole % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `#[serde(with = "units::duration")]` for a [`Duration`] written as `"30s"`.
pub mod duration {
    use super::Deserializer;
    use super::Duration;
    use super::Serializer;
    use super::Text;

    /// Reads a duration with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Text {
            what: "a duration with its unit, such as \"30s\" or \"500ms\"",
            parse: |text| humantime::parse_duration(text).ok(),
        })
    }

    /// Writes a duration with its unit.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// `#[serde(with = "units::bytes")]` for a size in bytes written as `"32MiB"`.
pub mod bytes {
    use super::Deserializer;
    use super::Serializer;
    use super::Text;

    /// Reads a size with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(Text {
            what: "a size with its unit, such as \"32MiB\" or \"64kB\"",
            parse: |text| {
                let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
                text.parse::<bytesize::ByteSize>().ok().filter(|_| has_unit).map(|size| size.as_u64())
            },
        })
    }

    /// Writes a size with the largest binary unit that divides it.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)] {
            if *value >= size && value.is_multiple_of(size) {
                return serializer.collect_str(&format_args!("{}{unit}", value / size));
            }
        }
        serializer.collect_str(&format_args!("{value}B"))
    }
}

struct Text<T> {
    what: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("expected {}, found {text:?}", self.what)))
    }
}

/// Where a secret comes from. The value itself is read at each use, never kept in the configuration and never printed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// The environment variable that holds it.
    Env(String),
    /// The file that holds it; one trailing line end is not part of the secret.
    File(PathBuf),
}

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or is not UTF-8.
    #[error("read secret from environment variable {name}")]
    Env {
        /// The name of the variable.
        name: String,
        /// What is wrong with it.
        #[source]
        source: std::env::VarError,
    },
    /// The file cannot be read as text.
    #[error("read secret from file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the secret in {place} is empty")]
    Empty {
        /// The file or the variable.
        place: String,
    },
}

impl SecretError {
    /// Gives the next step for a person.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Env { name, .. } => format!("set the environment variable {name} to the secret, and start again"),
            Self::File { path, .. } => format!("write the secret into {}, readable for this user", path.display()),
            Self::Empty { place } => format!("write the secret into {place}"),
        }
    }
}

impl SecretRef {
    /// Reads the secret as it is now.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let secret = self.read_any()?;
        if !secret.expose().is_empty() {
            return Ok(secret);
        }
        let place = match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => format!("the file {}", path.display()),
        };
        Err(SecretError::Empty { place })
    }

    fn read_any(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map(Secret::new).map_err(|source| SecretError::Env { name: name.clone(), source })
            }
            Self::File(path) => {
                let text =
                    fs::read_to_string(path).map_err(|source| SecretError::File { path: path.clone(), source })?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
            }
        }
    }
}

/// A secret in memory. It does not print, does not serialize and is overwritten when dropped.
pub struct Secret(String);

impl Secret {
    /// Takes a secret into custody.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Shows the secret to the one who must send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // `black_box` keeps the overwriting from being optimised away, without unsafe code.
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Options {
        #[serde(with = "duration")]
        pause: Duration,
        #[serde(with = "bytes")]
        budget: u64,
    }

    #[test]
    fn a_duration_has_two_units() {
        for (seconds, expected) in [
            (0.4, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (7_260.0, "2 h 1 min"),
            (90_000.0, "1 d 1 h"),
            (f64::INFINITY, "213503982334601 d 7 h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn units_are_read_and_written_back() {
        let options: Options = toml::from_str("pause = \"1m 30s\"\nbudget = \"32MiB\"").unwrap();
        assert_eq!(options, Options { pause: Duration::from_secs(90), budget: 32 << 20 });
        assert_eq!(toml::to_string(&options).unwrap(), "pause = \"1m 30s\"\nbudget = \"32MiB\"\n");
    }

    #[test]
    fn a_bare_number_is_refused_with_a_hint() {
        for text in
            ["pause = 30\nbudget = \"1B\"", "pause = \"30\"\nbudget = \"1B\"", "pause = \"1s\"\nbudget = \"32\""]
        {
            let error = toml::from_str::<Options>(text).unwrap_err().to_string();
            assert!(error.contains("with its unit"), "{error}");
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }
}
