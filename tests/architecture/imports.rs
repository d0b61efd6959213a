//! What a file imports: its `use` items, and the paths that stand in its code.
//!
//! A path is read where it begins with `crate`, `super`, `self`, the name of one of our crates, a module below the
//! file's own, or a module that the file has imported. It counts for the file whose module is its longest prefix: the
//! file that defines the item, or that shows it to others by a `pub use`, which is an import as well. `mod x;` is none,
//! nor is `pub(in x)`, and a module under `#[cfg(test)]` is not read. Paths inside macros are read, paths inside string
//! literals are not.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proc_macro2::Delimiter;
use proc_macro2::TokenStream;
use proc_macro2::TokenTree;

use super::sources::Module;
use super::sources::ROOTS;

/// Gives the modules of `files` that a file imports, each with a path that does so, as it is written. Its own is not
/// among them.
pub fn imports(module: &Module, tokens: &TokenStream, files: &BTreeSet<Module>) -> BTreeMap<Module, String> {
    let mut paths = Vec::new();
    read(tokens.clone(), module, &mut paths);
    let mut imported = BTreeMap::new();
    // An imported module may itself come by one.
    for _ in 0..2 {
        for path in &paths {
            let (Some(name), Some(target)) = (&path.name, absolute(path, &imported, files)) else { continue };
            if files.contains(&target) {
                imported.insert(name.clone(), target);
            }
        }
    }
    let mut found = BTreeMap::new();
    for path in &paths {
        let Some(mut target) = absolute(path, &imported, files) else { continue };
        while !target.is_empty() && !files.contains(&target) {
            target.pop();
        }
        if !target.is_empty() && target != *module {
            found.entry(target).or_insert_with(|| path.segments.join("::"));
        }
    }
    found
}

#[derive(Debug)]
struct Path {
    /// The module that it stands in; a file may have some of its own.
    module: Module,
    segments: Vec<String>,
    /// The name that a `use` gives to it.
    name: Option<String>,
}

/// Gives a path from its crate's root on, or nothing if it belongs to another crate, to a type or to a function.
fn absolute(path: &Path, imported: &BTreeMap<String, Module>, files: &BTreeSet<Module>) -> Option<Module> {
    let first = path.segments.first()?;
    let mut from = path.module.clone();
    let mut rest = path.segments.as_slice();
    if first == "crate" {
        from.truncate(1);
        rest = rest.get(1..)?;
    } else if first == "self" || first == "super" {
        while let Some(step) = rest.first().filter(|step| *step == "self" || *step == "super") {
            if step == "super" {
                from.pop();
            }
            rest = rest.get(1..)?;
        }
    } else if ROOTS.iter().any(|(name, _)| first == name) {
        from.clear();
    } else if let Some(module) = imported.get(first).filter(|_| path.name.is_none() || rest.len() > 1) {
        from.clone_from(module);
        rest = rest.get(1..)?;
    } else {
        from.push(first.clone());
        if !files.contains(&from) {
            return None;
        }
        rest = rest.get(1..)?;
    }
    from.extend_from_slice(rest);
    Some(from)
}

/// Collects the paths of a file, or of a group of its tokens.
fn read(tokens: TokenStream, module: &Module, paths: &mut Vec<Path>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1);
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let is_inner = matches!(next, Some(TokenTree::Punct(punct)) if punct.as_char() == '!');
                at += if is_inner { 2 } else { 1 };
                let attribute = tokens.get(at).map(ToString::to_string).unwrap_or_default();
                at += 1;
                let is_module = matches!(tokens.get(at), Some(TokenTree::Ident(word)) if *word == "mod");
                if is_module && attribute.replace(' ', "") == "[cfg(test)]" {
                    at += 3;
                }
            }
            TokenTree::Ident(word) if *word == "pub" => {
                at += if group(next, Delimiter::Parenthesis).is_some() { 2 } else { 1 };
            }
            TokenTree::Ident(word) if *word == "mod" => {
                if let (Some(name), Some(body)) = (next, group(tokens.get(at + 2), Delimiter::Brace)) {
                    let inner = module.iter().cloned().chain([name.to_string()]).collect();
                    read(body, &inner, paths);
                }
                at += 3;
            }
            TokenTree::Ident(word) if *word == "use" && !next.is_some_and(|next| is_punct(next, '<')) => {
                let end =
                    tokens.iter().skip(at).position(|token| is_punct(token, ';')).map_or(tokens.len(), |end| at + end);
                read_use(&tokens[at + 1..end], &[], &mut |segments, name| {
                    paths.push(Path { module: module.clone(), segments, name: Some(name) });
                });
                at = end + 1;
            }
            TokenTree::Ident(word) => {
                let mut segments = vec![word.to_string()];
                at += 1;
                while let Some(TokenTree::Ident(word)) = is_path(&tokens, at).then(|| tokens.get(at + 2)).flatten() {
                    segments.push(word.to_string());
                    at += 3;
                }
                if segments.len() > 1 {
                    paths.push(Path { module: module.clone(), segments, name: None });
                }
            }
            // What follows has begun elsewhere: `<T as Trait>::name`, or in another crate: `::name`.
            TokenTree::Punct(_) if is_path(&tokens, at) => {
                at += 2;
                while matches!(tokens.get(at), Some(TokenTree::Ident(_))) || is_path(&tokens, at) {
                    at += if is_path(&tokens, at) { 2 } else { 1 };
                }
            }
            TokenTree::Group(group) => {
                read(group.stream(), module, paths);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Reads the tree of a `use`: what leads to it, then each of its leaves with the name that it gets.
fn read_use(tokens: &[TokenTree], before: &[String], found: &mut dyn FnMut(Vec<String>, String)) {
    for branch in tokens.split(|token| is_punct(token, ',')) {
        let mut segments = before.to_vec();
        let mut name = None;
        let mut words = branch.iter();
        while let Some(token) = words.next() {
            match token {
                TokenTree::Ident(word) if *word == "as" => name = words.next().map(ToString::to_string),
                TokenTree::Ident(word) if *word == "self" && !segments.is_empty() => {}
                TokenTree::Ident(word) => segments.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => name = Some("*".to_owned()),
                TokenTree::Group(group) => {
                    read_use(&group.stream().into_iter().collect::<Vec<_>>(), &segments, found);
                    segments.clear();
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if let Some(last) = segments.last().cloned() {
            found(segments, name.unwrap_or(last));
        }
    }
}

/// Says whether `::` stands there.
fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    [at, at + 1].iter().all(|at| tokens.get(*at).is_some_and(|token| is_punct(token, ':')))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<TokenStream> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream()),
        _ => None,
    }
}

#[test]
fn every_way_to_write_a_path_is_read() {
    let module = |name: &str| -> Module { name.split('/').map(str::to_owned).collect() };
    let files = ["walrelay", "walrelay/a", "walrelay/a/b", "walrelay/a/c", "walrelay/d", "walrelay_events/e"];
    let files: BTreeSet<Module> = files.into_iter().map(module).collect();
    let check = |code: &str, expected: &[&str]| {
        let found = imports(&module("walrelay/a/b"), &code.parse().unwrap(), &files);
        let expected: Vec<Module> = expected.iter().map(|name| module(name)).collect();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), expected, "{code}");
    };
    check("use crate::d::Item;", &["walrelay/d"]);
    check("use crate::{d, a::c::{self, Item as Other}};", &["walrelay/a/c", "walrelay/d"]);
    check("use super::Item;", &["walrelay/a"]);
    check("use super::c;", &["walrelay/a/c"]);
    check("use super::super::d::Item;", &["walrelay/d"]);
    check("use super::*;", &["walrelay/a"]);
    check("pub use super::c::Item;", &["walrelay/a/c"]);
    check("use walrelay_events::e::Item;", &["walrelay_events/e"]);
    check("use crate::a; fn f() { a::c::g() }", &["walrelay/a", "walrelay/a/c"]);
    check("use crate::a; use a::c;", &["walrelay/a", "walrelay/a/c"]);
    check(
        "fn f(x: &crate::d::Item) -> super::Item { print!(\"{}\", super::c::X) }",
        &["walrelay/a", "walrelay/a/c", "walrelay/d"],
    );
    check("mod inner { use super::super::c::Item; }", &["walrelay/a/c"]);
    check("#[cfg(test)] mod tests { use crate::d::Item; }", &[]);
    check("mod x; pub(in crate::a) fn f() { std::mem::take(x); <T as d::T>::crate_name(); x.a::<T>() }", &[]);
    check("use self::Item; use crate::a::b::Own; // use crate::d::Item;", &[]);
}
