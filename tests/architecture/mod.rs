//! Who imports whom, as a test: the table in `rooms.rs` and the drawing in ARCHITECTURE.md are the same thing.

mod codes;
mod cycles;
mod imports;
mod rooms;
mod sources;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::TokenStream;
use proc_macro2::TokenTree;

use cycles::cycles;
use imports::imports;
use rooms::Rooms;
use sources::Module;
use sources::Source;
use sources::inner;
use sources::sources;

/// A file longer than this, its tests apart, is looking for its second noun.
const MAX_LINES: usize = 400;

/// The only room that may contain unsafe code.
const UNSAFE: &str = "consumer/raw";

const BANNED_IN_PURE: &[&str] = &["async ", "tokio", "rdkafka", "Instant::now", "SystemTime::now", "tracing"];

#[test]
fn no_file_imports_itself_through_others() {
    let files = sources();
    let imports = imports_of(&files);
    let graph = imports.iter().map(|(module, imports)| (module.clone(), imports.keys().cloned().collect())).collect();
    let mut found = String::new();
    for cycle in cycles(&graph) {
        found.push_str("\na cycle of imports:\n");
        for (from, to) in cycle.iter().zip(&cycle[1..]) {
            let path = |module: &Module| files.iter().find(|file| file.module == *module).unwrap().path.display();
            found.push_str(&format!("  {} imports {} ({})\n", path(from), path(to), imports[from][to]));
        }
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn a_room_imports_only_what_the_table_says() {
    let (files, rooms) = (sources(), Rooms::new());
    let imports = imports_of(&files);
    let mut wrong: BTreeSet<String> = BTreeSet::new();
    // A crate's root only declares.
    for file in files.iter().filter(|file| file.module.len() > 1) {
        let Some(room) = rooms.of(&inner(&file.module)) else {
            wrong.insert(format!("{} is in no room", file.path.display()));
            continue;
        };
        for (target, path) in &imports[&file.module] {
            let target = inner(target);
            match rooms.of(&target) {
                Some(target) if target != room && !rooms.allows(room, target) => {
                    wrong.insert(format!("{room} must not import {target} ({}: {path})", file.path.display()));
                }
                Some(_) | None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_import_of_the_table_is_used() {
    let (files, rooms) = (sources(), Rooms::new());
    let mut unused: BTreeSet<(&str, &str)> = rooms.imports().collect();
    let mut empty: BTreeSet<&str> = rooms.names().collect();
    for (module, targets) in &imports_of(&files) {
        let Some(room) = rooms.of(&inner(module)) else { continue };
        empty.remove(room);
        for target in targets.keys().filter_map(|target| rooms.of(&inner(target))) {
            unused.remove(&(room, target));
        }
    }
    assert!(empty.is_empty(), "rooms of the table without a file: {empty:?}");
    let unused: Vec<String> = unused.iter().map(|(room, target)| format!("{room} -> {target}")).collect();
    assert!(unused.is_empty(), "no file imports this: take it out of the table\n{}", unused.join("\n"));
}

#[test]
fn a_room_of_the_table_imports_only_rooms_above_it() {
    let rooms = Rooms::new();
    let mut above = BTreeSet::new();
    let mut wrong = Vec::new();
    for room in rooms.names() {
        wrong.extend(rooms.imports().filter(|(importing, target)| *importing == room && !above.contains(target)));
        above.insert(room);
    }
    assert!(wrong.is_empty(), "these stand below the rooms that import them, or nowhere: {wrong:?}");
}

#[test]
fn a_pure_room_does_not_wait_and_does_not_look_at_the_clock() {
    let (files, rooms) = (sources(), Rooms::new());
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| rooms.of(&inner(&file.module)).is_some_and(|room| rooms.is_pure(room))) {
        for word in BANNED_IN_PURE.iter().filter(|word| file.code.contains(**word)) {
            wrong.push(format!("{} must not say {word:?}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_one_room_and_each_block_says_why_it_is_sound() {
    let (rooms, mut wrong) = (Rooms::new(), Vec::new());
    for Source { path, module, tokens, .. } in sources() {
        let is_allowed = rooms.of(&inner(&module)) == Some(UNSAFE);
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
        let (blocks, reasons) = (unsafe_words(tokens), text.matches("// SAFETY: ").count());
        if !is_allowed && (blocks > 0 || text.contains("unsafe_code")) {
            wrong.push(format!("{} is not in {UNSAFE}", path.display()));
        } else if blocks != reasons {
            wrong.push(format!("{}: {blocks} times unsafe, {reasons} reasons", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Counts the word among the tokens, those of groups included.
fn unsafe_words(tokens: TokenStream) -> usize {
    let count = |token| match token {
        TokenTree::Ident(word) => usize::from(word == "unsafe"),
        TokenTree::Group(group) => unsafe_words(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => 0,
    };
    tokens.into_iter().map(count).sum()
}

#[test]
fn a_use_has_one_path_and_a_file_has_one_noun() {
    let mut wrong = Vec::new();
    for Source { path, code, .. } in sources() {
        if code.contains("use crate::{") || code.contains("use super::{") {
            wrong.push(format!("{}: one `use` per path", path.display()));
        }
        let lines = code.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{} has {lines} lines of code, more than {MAX_LINES}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Gives what each file imports, with a path that does so.
fn imports_of(files: &[Source]) -> BTreeMap<Module, BTreeMap<Module, String>> {
    let modules = files.iter().map(|file| file.module.clone()).collect();
    files.iter().map(|file| (file.module.clone(), imports(&file.module, &file.tokens, &modules))).collect()
}
