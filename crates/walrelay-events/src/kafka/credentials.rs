//! The certificates, keys and passwords of a client, and whether they have changed since it was created: librdkafka
//! reads them once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Properties of librdkafka.
type Properties = BTreeMap<String, String>;

/// Only a fingerprint of the credentials is kept.
pub struct Credentials {
    properties: Box<dyn Fn() -> Option<Properties> + Send + Sync>,
    known: Option<u64>,
    last: Mutex<Option<u64>>,
}

impl Credentials {
    /// Reads them. `properties` returns the client's properties as a new client would get them, or nothing if they
    /// cannot be read now. Call it before the client is created.
    pub fn new(properties: impl Fn() -> Option<Properties> + Send + Sync + 'static) -> Self {
        let known = properties().as_ref().and_then(fingerprint);
        Self { properties: Box::new(properties), known, last: Mutex::new(known) }
    }

    /// Reads them again, and returns whether they have changed. Two consecutive readings must agree: a key and its
    /// certificate are replaced one after the other.
    pub fn have_changed(&self) -> bool {
        let found = (self.properties)().as_ref().and_then(fingerprint);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_settled = std::mem::replace(&mut *last, found) == found;
        is_settled && found.is_some() && found != self.known
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Hashes values and, of files, the contents. Nothing if a file cannot be read.
fn fingerprint(properties: &Properties) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for (name, value) in properties.iter().filter(|(name, _)| name.starts_with("ssl.") || name.starts_with("sasl.")) {
        (name, value).hash(&mut hasher);
        // The location of CA certificates can also be a folder, or the word that means the system's.
        let path = Path::new(value);
        let is_file = name.ends_with(".location") && value != "probe" && !path.is_dir();
        if is_file {
            fs::read(path).ok()?.hash(&mut hasher);
        }
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_changed_when_two_readings_agree_that_they_differ() {
        let path = std::env::temp_dir().join(format!("walrelay-credentials-{}", std::process::id()));
        fs::write(&path, "first").unwrap();
        let location = path.display().to_string();
        let properties = move || {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            Some(Properties::from([pair("ssl.key.location", &location), pair("ssl.ca.location", "probe")]))
        };
        let credentials = Credentials::new(properties);
        assert!(!credentials.have_changed() && !credentials.have_changed());
        fs::write(&path, "second").unwrap();
        assert!(!credentials.have_changed(), "it may be half replaced");
        fs::write(&path, "third").unwrap();
        assert!(!credentials.have_changed());
        assert!(credentials.have_changed());
        fs::remove_file(&path).unwrap();
        assert!(!credentials.have_changed() && !credentials.have_changed(), "a new client could not read it");
        fs::write(&path, "first").unwrap();
        assert!(!credentials.have_changed() && !credentials.have_changed(), "it is as before");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_password_that_has_changed_counts_and_other_properties_do_not() {
        let value = std::sync::Arc::new(Mutex::new(("sasl.password", "first")));
        let now = std::sync::Arc::clone(&value);
        let credentials = Credentials::new(move || {
            let (name, value) = *now.lock().unwrap();
            Some(Properties::from([(name.to_owned(), value.to_owned())]))
        });
        *value.lock().unwrap() = ("sasl.password", "second");
        assert!(!credentials.have_changed() && credentials.have_changed());
        *value.lock().unwrap() = ("sasl.password", "first");
        assert!(!credentials.have_changed() && !credentials.have_changed());

        let linger = Credentials::new(|| Some(Properties::from([("linger.ms".to_owned(), "5".to_owned())])));
        assert!(!linger.have_changed());
    }
}
