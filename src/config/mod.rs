//! The configuration: one TOML file, the environment and `--set`, with all mistakes reported at once.
//!
//! ```text
//!   file < WALRELAY_SECTION__KEY < --set section.key=value        (the last one has precedence)
//!        leaves, each with its origin -> each checked alone -> all together -> Config
//! ```
//!
//! Each leaf is checked alone, over the defaults, so that one wrong value does not hide the next. What is wrong is left
//! out, and the rest is checked together. Text is never
//! interpolated: a secret is a reference to a file or a variable, read where it is used.

mod check;
mod file;
mod layers;
mod loaded;
mod mistake;
mod options;
mod origin;
mod references;
mod renamed;
mod starter;
#[cfg(test)]
mod tests;
mod variables;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::relay::postgres;
use crate::units::SecretRef;

use layers::Leaves;
pub use loaded::Loaded;
pub use mistake::Mistake;
pub use mistake::Mistakes;
pub use options::Config;
pub use origin::Origin;
use variables::Variable;

/// The default paths of the file.
const PLACES: [&str; 2] = ["config.toml", "/etc/walrelay/config.toml"];

/// The sources of options.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one is given.
    pub file: Option<PathBuf>,
    /// `section.key=value`, each.
    pub sets: Vec<String>,
    /// The environment.
    pub variables: Vec<(String, String)>,
}

impl Sources {
    /// Takes the environment of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
                .filter(|(name, _)| name.starts_with("WALRELAY_"))
        });
        Self { file, sets, variables: variables.collect() }
    }
}

/// Reads all sources; gives every mistake if there is any. The files that the options name are not read: they may come
/// later, and are read at each connect.
pub fn load(sources: &Sources) -> Result<Loaded, Mistakes> {
    load_with(sources, &|_, _| {})
}

/// Does the same, and checks the files and variables that the options name.
pub fn validate(sources: &Sources) -> Result<Loaded, Mistakes> {
    load_with(sources, &references::check)
}

/// Writes a file with what a new user must decide; every other option must have its default.
#[must_use]
pub fn starter(config: &Config) -> String {
    starter::text(config)
}

/// Checks the text of a file that is yet to be written. Gives the warnings; a file that the options name and that is
/// not there yet is one.
pub fn check_text(path: &Path, text: &str) -> Result<Vec<String>, Mistakes> {
    let loaded = load_text(path, text, &|_, _| {})?;
    let absent = load_text(path, text, &references::check).err();
    let absent = absent.iter().flat_map(Mistakes::iter).map(|mistake| mistake.text().to_owned());
    Ok(absent.chain(loaded.warnings).collect())
}

/// A check of the configuration that reports each mistake with the path of its option.
type Check<'a> = &'a dyn Fn(&Config, &mut dyn FnMut(&str, String));

fn load_with(sources: &Sources, more: Check<'_>) -> Result<Loaded, Mistakes> {
    let mut leaves = Leaves::default();
    let mut mistakes = Vec::new();
    let loaded = load_into(&mut leaves, sources, more, &mut mistakes);
    mistake::sort(&mut mistakes);
    match loaded {
        Some(loaded) if mistakes.is_empty() => Ok(loaded),
        Some(_) | None => Err(Mistakes::new(mistakes, leaves.log())),
    }
}

/// The file is the only source.
fn load_text(path: &Path, text: &str, more: Check<'_>) -> Result<Loaded, Mistakes> {
    let mut leaves = Leaves::default();
    let mut mistakes = Vec::new();
    leaves.add_file(path, text, &mut mistakes);
    let loaded = assemble(&mut leaves, Some(path.to_owned()), more, &mut mistakes);
    mistake::sort(&mut mistakes);
    if mistakes.is_empty() { Ok(loaded) } else { Err(Mistakes::new(mistakes, leaves.log())) }
}

/// Gives nothing if the file cannot be read, which is a mistake.
fn load_into(leaves: &mut Leaves, sources: &Sources, more: Check<'_>, mistakes: &mut Vec<Mistake>) -> Option<Loaded> {
    let file = find(sources).and_then(|file| {
        let text = file.as_deref().map(read).transpose()?;
        Ok((file, text))
    });
    if let Ok((Some(path), Some(text))) = &file {
        leaves.add_file(path, text, mistakes);
    }
    // Also if the file cannot be read: they may set how that is logged.
    let mut warnings = leaves.add_variables(&sources.variables);
    leaves.add_sets(&sources.sets, mistakes);
    let file = match file {
        Ok((file, _)) => file,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let loaded = assemble(leaves, file, more, mistakes);
    warnings.extend(loaded.warnings);
    Some(Loaded { warnings, ..loaded })
}

/// Checks the leaves of all sources alone and together. What is wrong is left out.
fn assemble(leaves: &mut Leaves, file: Option<PathBuf>, more: Check<'_>, mistakes: &mut Vec<Mistake>) -> Loaded {
    leaves.check_each(mistakes);
    let mut config = leaves.config(mistakes);
    if let Some(folder) = file.as_deref().and_then(Path::parent) {
        anchor(&mut config, folder);
    }
    let layers = (leaves.layer("postgres.url"), leaves.layer("postgres.password"));
    if has_precedence(layers.0, layers.1) && postgres::has_password(&config.postgres.url) {
        config.postgres.password = None;
    }
    let mut wrong = |path: &str, text: String| {
        if !leaves.is_wrong(path) {
            mistakes.push(Mistake::at(leaves.origin_near(path), format!("{path}: {text}")));
        }
    };
    check::check(&config, &mut wrong);
    more(&config, &mut wrong);
    let holds_password = file.as_deref().filter(|_| leaves.has_password_of_file());
    let warnings = check::warnings(holds_password, &config);
    Loaded { config, file, warnings, origins: leaves.origins() }
}

/// Says whether a password in `postgres.url` has precedence over `postgres.password`: if the URL is from a later layer.
/// Within a layer the option that only a password can be meant by has precedence.
const fn has_precedence(url: Option<u8>, password: Option<u8>) -> bool {
    match (url, password) {
        (Some(url), Some(password)) => url > password,
        (Some(_) | None, _) => false,
    }
}

fn find(sources: &Sources) -> Result<Option<PathBuf>, Mistake> {
    if let Some(path) = &sources.file {
        return Ok(Some(path.clone()));
    }
    if let Some((_, path)) = sources.variables.iter().find(|(name, _)| name == "WALRELAY_CONFIG") {
        return Ok(Some(PathBuf::from(path)));
    }
    if let Some(path) = PLACES.into_iter().map(PathBuf::from).find(|path| path.exists()) {
        return Ok(Some(path));
    }
    let is_option = |(name, text): &(String, String)| matches!(variables::classify(name, text), Variable::Option(_));
    if sources.sets.is_empty() && !sources.variables.iter().any(is_option) {
        let text = format!(
            "no configuration file: neither {} nor {} exists; write one with `walrelay config init`, or use --config \
             FILE",
            PLACES[0], PLACES[1]
        );
        return Err(Mistake::plain(text));
    }
    Ok(None)
}

fn read(path: &Path) -> Result<String, Mistake> {
    fs::read_to_string(path).map_err(|error| Mistake::plain(format!("cannot read {}: {error}", path.display())))
}

/// Makes paths relative to the folder of the configuration file.
fn anchor(config: &mut Config, folder: &Path) {
    let path = |path: &mut PathBuf| *path = folder.join(&*path);
    let root = |root: &mut String| {
        if root != "system" {
            *root = folder.join(&*root).display().to_string();
        }
    };
    let secret = |secret: &mut SecretRef| {
        if let SecretRef::File(file) = secret {
            *file = folder.join(&*file);
        }
    };
    let postgres = &mut config.postgres;
    postgres.password.iter_mut().for_each(secret);
    root(&mut postgres.tls.root_cert);
    postgres.tls.cert.iter_mut().chain(&mut postgres.tls.key).for_each(path);
    if let Some(tls) = &mut config.kafka.tls {
        root(&mut tls.root_cert);
        tls.cert.iter_mut().chain(&mut tls.key).for_each(path);
        tls.key_password.iter_mut().for_each(secret);
    }
    if let Some(sasl) = &mut config.kafka.sasl {
        secret(&mut sasl.password);
    }
}
