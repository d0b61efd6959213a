//! Which variables of the environment are options, and warnings about others.
//!
//! Only `WALRELAY_SECTION__KEY` with an existing section is an option, and only there a mistake is an error. Others use
//! the prefix too: Kubernetes sets `WALRELAY_SERVICE_HOST` and more for a Service of that name.

use toml::Table;
use toml::Value;

use super::options::Config;

/// The prefix of options.
const PREFIX: &str = "WALRELAY_";
/// Variables with the prefix that are not options: the configuration file, the administrator's URL of `setup`, and
/// PostgreSQL for temporary servers.
const OTHERS: [&str; 3] = ["WALRELAY_CONFIG", "WALRELAY_ADMIN_URL", "WALRELAY_PG_BIN"];

/// The kind of a variable.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Variable {
    /// An option, by its path.
    Option(Vec<String>),
    /// Of another program, or read elsewhere.
    Foreign,
    /// Possibly a misspelled option, with the warning.
    Unknown(String),
}

/// Classifies one variable.
pub(super) fn classify(name: &str, text: &str) -> Variable {
    let Some(path) = name.strip_prefix(PREFIX).filter(|_| !OTHERS.contains(&name)) else { return Variable::Foreign };
    let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
    let defaults = defaults();
    if keys.len() > 1 && keys.first().is_some_and(|section| defaults.contains_key(section)) {
        return Variable::Option(keys);
    }
    if is_of_kubernetes(path, text) {
        return Variable::Foreign;
    }
    let mut names = Vec::new();
    collect(&defaults, PREFIX, &mut names);
    let nearest = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &name.to_uppercase()), known))
        .filter(|(distance, _)| *distance <= 1 + path.len() / 4)
        .min();
    let advice = match nearest {
        Some((_, known)) => format!("did you mean {known}?"),
        None => format!("options are {PREFIX}SECTION__KEY, such as {PREFIX}LOG__LEVEL"),
    };
    Variable::Unknown(format!("{name} in the environment is not an option and is ignored: {advice}"))
}

/// Kubernetes' variables for a Service whose name begins with `walrelay`.
fn is_of_kubernetes(path: &str, text: &str) -> bool {
    let is_port = |rest: &str| rest.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let path = format!("_{path}");
    path.ends_with("_SERVICE_HOST")
        || path.ends_with("_SERVICE_PORT")
        || path.contains("_SERVICE_PORT_")
        || path.split_once("_PORT_").is_some_and(|(_, rest)| is_port(rest))
        || path.ends_with("_PORT") && text.contains("://")
}

fn defaults() -> Table {
    Value::try_from(Config::default()).ok().and_then(|value| value.as_table().cloned()).unwrap_or_default()
}

fn collect(table: &Table, above: &str, names: &mut Vec<String>) {
    for (key, value) in table {
        let name = format!("{above}{}", key.to_uppercase());
        match value.as_table() {
            Some(inner) => collect(inner, &format!("{name}__"), names),
            None => names.push(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: &str) -> String {
        match classify(name, "1") {
            Variable::Unknown(message) => message,
            other @ (Variable::Option(_) | Variable::Foreign) => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn variables_of_kubernetes_are_ignored() {
        for (name, text) in [
            ("WALRELAY_SERVICE_HOST", "10.0.0.7"),
            ("WALRELAY_SERVICE_PORT", "7430"),
            ("WALRELAY_SERVICE_PORT_METRICS", "7430"),
            ("WALRELAY_PORT", "tcp://10.0.0.7:7430"),
            ("WALRELAY_PORT_7430_TCP", "tcp://10.0.0.7:7430"),
            ("WALRELAY_PORT_7430_TCP_ADDR", "10.0.0.7"),
            ("WALRELAY_PORT_7430_TCP_PORT", "7430"),
            ("WALRELAY_PORT_7430_TCP_PROTO", "tcp"),
            ("WALRELAY_ORDERS_SERVICE_HOST", "10.0.0.8"),
            ("WALRELAY_CONFIG", "x.toml"),
            ("HOME", "/root"),
        ] {
            assert_eq!(classify(name, text), Variable::Foreign, "{name}");
        }
    }

    #[test]
    fn only_an_existing_section_is_an_option_and_the_nearest_name_is_suggested() {
        let keys = |name| classify(name, "1");
        assert_eq!(keys("WALRELAY_LOG__LEVEL"), Variable::Option(vec!["log".into(), "level".into()]));
        assert_eq!(keys("WALRELAY_LOG__LEVLE"), Variable::Option(vec!["log".into(), "levle".into()]));
        for (name, expected) in [
            ("WALRELAY_LOG_LEVEL", "did you mean WALRELAY_LOG__LEVEL?"),
            ("WALRELAY_KAFAK__BROKERS", "did you mean WALRELAY_KAFKA__BROKERS?"),
            ("WALRELAY_POSTGRES_TLS_ROOT_CERT", "did you mean WALRELAY_POSTGRES__TLS__ROOT_CERT?"),
            ("WALRELAY_ENVIRONMENT", "options are WALRELAY_SECTION__KEY"),
        ] {
            assert!(unknown(name).contains(expected), "{}", unknown(name));
        }
    }
}
