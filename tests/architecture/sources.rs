//! The source files of both packages, without their tests.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use proc_macro2::TokenStream;

/// The packages: the name of each crate, and the folder of its sources.
pub const ROOTS: [(&str, &str); 2] = [("walrelay", "src"), ("walrelay_events", "crates/walrelay-events/src")];

/// A module: the name of its crate, and the names below it.
pub type Module = Vec<String>;

#[derive(Debug)]
pub struct Source {
    /// Below the root of the repository.
    pub path: PathBuf,
    pub module: Module,
    /// Without lines of comments and without `mod tests`.
    pub code: String,
    /// The whole file.
    pub tokens: TokenStream,
}

/// A module without its crate, as the table of rooms names it; the root of a crate is the empty text.
pub fn inner(module: &Module) -> String {
    module[1..].join("/")
}

/// Reads both packages, sorted by path. A program's `main.rs` is left out: nothing can import it.
pub fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for (name, root) in ROOTS {
        read_folder(Path::new(root), &[name.to_owned()], &mut found);
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn read_folder(folder: &Path, module: &[String], found: &mut Vec<Source>) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(repository.join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_root = module.len() == 1;
        let mut module = module.to_vec();
        if name == "tests" || name == "main" && is_root {
            continue;
        }
        if name != "mod" && !(name == "lib" && is_root) {
            module.push(name);
        }
        if repository.join(&path).is_dir() {
            read_folder(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(repository.join(&path)).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            let tokens = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push(Source { path, module, code, tokens });
        }
    }
}
