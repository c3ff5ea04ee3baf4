//! Who may import whom, checked on the source itself. [`LAYERS`] and [`OUTSIDE`] are the rules; docs/architecture.md
//! shows the same table, and the last test holds the two together. The check reads tokens, not lines: comments,
//! strings and attributes do not count, `use` trees are followed into their braces, `super` is resolved. Code under
//! `#[cfg(test)]` is free, because it is never shipped. What a macro assembles is not seen.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Each module and what it may import of ours; a longer name wins over a shorter one. A module never imports one
/// that stands above it, so there is no circle.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["*"]),
    ("cli::run", &["*"]),
    ("cli::check", &["*"]),
    ("cli::doctor", &["*"]),
    ("cli::trust", &["*"]),
    ("cli::demo", &["*"]),
    ("program", &["*"]),
    ("cli", &["app", "bus", "model", "config"]),
    ("web", &["app", "bus", "model", "config"]),
    ("discord", &["app", "bus", "model", "config"]),
    ("scheduler", &["app", "bus", "model"]),
    ("app", &["store", "engine", "bus", "vault", "recipes", "model"]),
    ("drivers", &["engine", "clients", "vault", "recipes", "model"]),
    ("store", &["engine", "model"]),
    ("engine", &["bus", "model"]),
    ("bus", &["model"]),
    ("recipes", &["model"]),
    ("clients", &[]),
    ("vault", &[]),
    ("config", &[]),
    ("model", &[]),
];

/// What comes from outside and only these modules may touch.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("serenity", &["discord"]),
    ("poise", &["discord"]),
    ("axum", &["web"]),
    ("sqlx", &["store"]),
    ("bollard", &["clients::docker"]),
    ("std::process::Command", &["clients"]),
    ("tokio::process", &["clients"]),
];

/// What `model` may not touch: async, I/O and the clock. Its rest of `std` is data and arithmetic.
const NOT_IN_MODEL: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "async_trait",
    "reqwest",
    "rustix",
    "tempfile",
    "walkdir",
    "tracing",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os",
    "std::time::SystemTime",
    "std::time::Instant",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

#[test]
fn every_module_imports_only_what_its_layer_allows() {
    let mut found = vec![];
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("the source can be read");
        found.extend(check(&path, &text));
    }
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "docs/architecture.md says who may import whom:\n{}", lines.join("\n"));
}

#[test]
fn no_module_may_import_one_that_stands_above_it() {
    for (at, (module, allowed)) in LAYERS.iter().enumerate() {
        for other in allowed.iter().filter(|other| **other != "*") {
            let below = LAYERS.iter().position(|(name, _)| name == other);
            assert!(
                below.is_some_and(|below| below > at),
                "{module} may import {other}, which does not stand below it"
            );
        }
    }
}

#[test]
fn the_checker_catches_what_it_is_there_for() {
    let cases = [
        ("src/model/job.rs", "use crate::engine::Engine;", "engine"),
        ("src/model/job.rs", "fn f() { std::fs::read(\"x\"); }", "std::fs"),
        ("src/model/job.rs", "use std::{fmt, fs::{self, File}};", "std::fs"),
        ("src/model/job.rs", "use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("src/model/job.rs", "fn f() { let now = jiff::Timestamp::now(); }", "Timestamp::now"),
        ("src/model/job.rs", "use std::time::*;", "std::time"),
        ("src/model/job.rs", "async fn f() {}", "async"),
        ("src/engine/run.rs", "use crate::{bus::Bus, store::{Store, audit}};", "store"),
        ("src/engine/run.rs", "fn f(x: &crate::drivers::Docker) {}", "drivers"),
        ("src/engine/run.rs", "use super::super::vault::Vault;", "vault"),
        ("src/engine/run.rs", "mod inner { fn f() { super::super::super::clients::docker(); } }", "clients"),
        ("src/discord/commands.rs", "use crate::\n    /* aside */ store as x;", "store"),
        ("src/discord/commands.rs", "pub use crate::engine::*;", "engine"),
        ("src/app/mod.rs", "use serenity::all::Http;", "serenity"),
        ("src/app/mod.rs", "use std::process;\nfn f() { process::Command::new(\"x\"); }", "process::Command"),
        ("src/drivers/docker/game.rs", "use std::process::{Command as Spawn, ExitCode};", "std::process::Command"),
        ("src/drivers/docker/game.rs", "use tokio::process::Command;", "tokio::process"),
        ("src/drivers/docker/game.rs", "use bollard::Docker;", "bollard"),
        ("src/clients/ssh.rs", "use crate::model::Ms;", "model"),
        ("src/clients/ssh.rs", "use bollard::Docker;", "bollard"),
        ("src/cli/progress.rs", "use crate::store::Store;", "store"),
        ("src/cli/progress.rs", "use crate::cli::demo;", "cli::demo"),
        ("src/scheduler.rs", "use crate::store::Store;", "store"),
        ("src/news.rs", "fn f() {}", "no layer"),
        ("src/app/mod.rs", "use crate::news::News;", "news"),
        ("src/engine/run.rs", "#[cfg(not(test))]\nuse crate::store::Store;", "store"),
        ("src/engine/run.rs", "#[cfg(test)]\nmod tests { use crate::store::A; }\nuse crate::vault::B;", "vault"),
    ];
    for (path, text, what) in cases {
        let found = check(Path::new(path), text);
        assert!(
            !found.is_empty() && found.iter().all(|one| one.what.contains(what)),
            "{path} with\n{text}\nshould be caught for {what} and nothing else:\n{found:?}"
        );
    }
}

#[test]
fn the_checker_lets_pass_what_is_allowed() {
    let cases = [
        ("src/model/job.rs", "use super::access::Actor;\nuse crate::model::Ms;\nuse std::net::IpAddr;"),
        (
            "src/model/job.rs",
            "//! See crate::engine.\n/// `std::fs` and [`crate::store`]\n/* crate::app /* nested */ */",
        ),
        (
            "src/model/job.rs",
            "const A: &str = \"use crate::engine;\"; const B: &str = r#\"std::fs \" x\"#; const C: char = '\"';",
        ),
        ("src/model/job.rs", "fn f<'a>(x: &'a str) -> &'a str { x } // crate::engine"),
        ("src/model/job.rs", "pub(crate) fn f() {}\npub(in crate::model) fn g() {}"),
        (
            "src/model/job.rs",
            "#[cfg(test)]\nmod tests { use super::*; fn f() { std::fs::read(\"x\"); crate::engine::f(); } }",
        ),
        ("src/model/job.rs", "#[cfg(test)]\nuse crate::engine::Engine;\nuse super::Ms;"),
        ("src/model/job/tests.rs", "use crate::engine::Engine;"),
        (
            "src/drivers/docker/mod.rs",
            "mod games { use super::worlds; use self::inner::x; }\nuse crate::clients::docker;",
        ),
        ("src/clients/docker/mod.rs", "use bollard::Docker;\nuse super::super::clients;"),
        ("src/clients/ssh.rs", "use std::process::Stdio;\nuse tokio::process::Command;"),
        ("src/main.rs", "use spawnpoint::store::Store;\nuse std::process::ExitCode;\nenum Command { A }"),
        ("src/lib.rs", "pub mod engine;\npub mod model;"),
        ("src/config.rs", "use std::fs;"),
    ];
    for (path, text) in cases {
        let found = check(Path::new(path), text);
        assert!(found.is_empty(), "{path} with\n{text}\n{found:?}");
    }
}

#[test]
fn the_architecture_page_shows_this_table() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md can be read");
    let code = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut table = String::from("| module | may import of ours |\n|---|---|\n");
    for (module, allowed) in LAYERS {
        let allowed = match *allowed {
            [] => "nothing".to_owned(),
            ["*"] => "everything".to_owned(),
            names => code(names),
        };
        table += &format!("| `{module}` | {allowed} |\n");
    }
    table += "\n| from outside | only in |\n|---|---|\n";
    for (outside, modules) in OUTSIDE {
        table += &format!("| `{outside}` | {} |\n", code(modules));
    }
    assert!(page.contains(&table), "docs/architecture.md should hold exactly this:\n\n{table}");
}

/// One import that its layer does not allow.
#[derive(Debug)]
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(root().join("src")).sort_by_file_name();
    let paths: Vec<PathBuf> = walk
        .into_iter()
        .map(|entry| entry.expect("the source can be walked").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.strip_prefix(root()).expect("the walk stays below its root").to_owned())
        .collect();
    assert!(paths.len() > 20, "the source was not found: {paths:?}");
    paths.into_iter().map(|path| root().join(path)).collect()
}

/// All that is wrong in one file.
fn check(path: &Path, text: &str) -> Vec<Violation> {
    let file = path.strip_prefix(root()).unwrap_or(path).to_owned();
    let module = module_of(&file);
    if module.is_empty() || module.iter().any(|part| part == "tests") {
        // lib.rs declares modules and does nothing; files of tests are not shipped.
        return vec![];
    }
    let Some((layer, allowed)) = layer_of(&module) else {
        return vec![Violation { file, line: 1, what: format!("`{}` has no layer; give it one", module[0]) }];
    };
    let tokens = shipped(tokens(text));
    let mut found = BTreeSet::new();
    for Import { line, path } in imports(&tokens, &module) {
        found.extend(wrong_inside(layer, allowed, &path).map(|what| (line, what)));
        found.extend(wrong_outside(&module, &path).map(|what| (line, what)));
    }
    if module[0] == "model" {
        for token in tokens.iter().filter(|token| token.text == "async") {
            found.insert((token.line, "`async` in the model, which is pure".to_owned()));
        }
    }
    found.into_iter().map(|(line, what)| Violation { file: file.clone(), line, what }).collect()
}

fn wrong_inside(layer: &str, allowed: &[&str], path: &[String]) -> Option<String> {
    let inside = path.strip_prefix(&["crate".to_owned()])?;
    if inside.is_empty() || allowed == ["*"] {
        return None;
    }
    match layer_of(inside) {
        Some((other, _)) if other == layer || allowed.contains(&other) => None,
        _ => Some(format!("{layer} may not import {}", inside.join("::"))),
    }
}

fn wrong_outside(module: &[String], path: &[String]) -> Option<String> {
    let shown = path.join("::");
    for (outside, modules) in OUTSIDE {
        // `use std::process;` and then `process::Command` is the same thing in two parts.
        let short = outside.strip_prefix("std::").filter(|short| short.contains("::"));
        let named = touches(path, outside) || short.is_some_and(|short| touches(path, short));
        if named && !modules.iter().any(|allowed| is_in(module, allowed)) {
            return Some(format!("{shown} belongs only into {}", modules.join(", ")));
        }
    }
    let pure = module[0] == "model";
    let ends_so = |rule: &str| format!("::{shown}::").contains(&format!("::{rule}::"));
    let impure = |rule: &&&str| touches(path, rule) || (rule.ends_with("::now") && ends_so(rule));
    match NOT_IN_MODEL.iter().find(impure) {
        Some(_) if pure => Some(format!("{shown} in the model, which is pure")),
        Some(_) | None => None,
    }
}

/// Whether a path names the rule's item, something in it, or everything beside it with a `*`.
fn touches(path: &[String], rule: &str) -> bool {
    let rule: Vec<&str> = rule.split("::").collect();
    let same = path.iter().zip(&rule).take_while(|(part, rule)| part == rule).count();
    same == rule.len() || (same + 1 == path.len() && same > 0 && path[same] == "*")
}

fn is_in(module: &[String], place: &str) -> bool {
    let place: Vec<&str> = place.split("::").collect();
    module.len() >= place.len() && module.iter().zip(&place).all(|(part, place)| part == place)
}

fn layer_of(module: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let fits = LAYERS.iter().filter(|(name, _)| is_in(module, name));
    fits.max_by_key(|(name, _)| name.len()).map(|(name, allowed)| (*name, *allowed))
}

/// `src/drivers/docker/mod.rs` is `drivers::docker`; the library's root is nothing.
fn module_of(file: &Path) -> Vec<String> {
    let below = file.strip_prefix("src").expect("sources are below src").with_extension("");
    let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

/// Words and single marks, with `::` as one; comments and what is inside of quotes left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i, mut line) = (vec![], 0, 1);
    while i < chars.len() {
        let begin = i;
        let mut word = None;
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => i = after_comment(&chars, i),
            ('"', _) => i = after_quote(&chars, i + 1),
            // A lifetime is `'a` without a closing quote; a character has one right after it.
            ('\'', '\\') => i = 1 + (i + 3..chars.len()).find(|j| at(*j) == '\'').unwrap_or(chars.len()),
            ('\'', _) => i += if at(i + 2) == '\'' { 3 } else { 1 },
            (':', ':') => (word, i) = (Some("::".to_owned()), i + 2),
            (c, _) if c.is_alphabetic() || c == '_' => {
                let text: String = chars[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                i += text.chars().count();
                match (text.as_str(), at(i)) {
                    ("b" | "c", '"') => i = after_quote(&chars, i + 1),
                    ("r" | "br" | "cr", '"' | '#') => match after_raw(&chars, i) {
                        Some(end) => i = end,
                        // `r#type` is a word in disguise.
                        None => i += 1,
                    },
                    _ => word = Some(text),
                }
            }
            (c, _) if c.is_whitespace() => i += 1,
            (c, _) => (word, i) = (Some(c.to_string()), i + 1),
        }
        tokens.extend(word.map(|text| Token { line, text }));
        line += chars[begin..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn after_quote(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
    if chars.get(from + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let begin = from + hashes + 1;
    let found = chars[begin..].windows(end.len()).position(|window| window == end)?;
    Some(begin + found + end.len())
}

/// Leaves out attributes, and whatever stands under `#[cfg(test)]` or `#[test]`.
fn shipped(tokens: Vec<Token>) -> Vec<Token> {
    let (mut kept, mut i) = (vec![], 0);
    while i < tokens.len() {
        let inner = usize::from(text_at(&tokens, i + 1) == "!");
        if text_at(&tokens, i) != "#" || text_at(&tokens, i + 1 + inner) != "[" {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let end = after_group(&tokens, i + 1 + inner);
        let words: String = tokens[i + 1 + inner..end].iter().map(|token| token.text.as_str()).collect();
        i = end;
        if words.starts_with("[cfg(test") || words.starts_with("[cfg(all(test") || words == "[test]" {
            i = after_item(&tokens, i);
        }
    }
    kept
}

/// Past the `;` or the closing brace that ends an item, other attributes on it included.
fn after_item(tokens: &[Token], from: usize) -> usize {
    let mut i = from;
    let is_use = |i: usize| matches!(text_at(tokens, i), "use" | "pub");
    let imports = is_use(i);
    while i < tokens.len() {
        match text_at(tokens, i) {
            ";" => return i + 1,
            "(" | "[" => i = after_group(tokens, i),
            "{" if imports && tokens[from..i].iter().any(|token| token.text == "use") => i = after_group(tokens, i),
            "{" => return after_group(tokens, i),
            _ => i += 1,
        }
    }
    i
}

/// Past the bracket that closes the one at `from`.
fn after_group(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

fn text_at(tokens: &[Token], i: usize) -> &str {
    tokens.get(i).map_or("", |token| &token.text)
}

struct Import {
    line: usize,
    /// Begins with `crate` for what is ours.
    path: Vec<String>,
}

/// Every path with `::` in it, and every leaf of every `use`, made absolute.
fn imports(tokens: &[Token], module: &[String]) -> Vec<Import> {
    let mut found = vec![];
    // The inline modules that are open, each with the depth of its brace.
    let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (vec![], 0);
    let mut i = 0;
    while i < tokens.len() {
        let here: Vec<String> = module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
        match text_at(tokens, i) {
            "{" => {
                if i >= 2 && text_at(tokens, i - 2) == "mod" {
                    inline.push((tokens[i - 1].text.clone(), depth));
                }
                depth += 1;
                i += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(_, opened)| *opened < depth);
                i += 1;
            }
            "use" => i = use_tree(tokens, i + 1, &[], &here, &mut found),
            word if is_word(word) && text_at(tokens, i + 1) == "::" => {
                let (line, mut path) = (tokens[i].line, vec![word.to_owned()]);
                while text_at(tokens, i + 1) == "::" && is_word(text_at(tokens, i + 2)) {
                    path.push(tokens[i + 2].text.clone());
                    i += 2;
                }
                found.push(Import { line, path: absolute(&path, &here) });
                i += 1;
            }
            _ => i += 1,
        }
    }
    found
}

/// One branch of a `use`, up to the `,`, `}` or `;` after it. Returns where that stands.
fn use_tree(tokens: &[Token], from: usize, above: &[String], here: &[String], found: &mut Vec<Import>) -> usize {
    let (mut path, mut i, mut leaf) = (above.to_vec(), from, true);
    let line = tokens.get(from).map_or(0, |token| token.line);
    loop {
        match text_at(tokens, i) {
            "" | "," | "}" | ";" => break,
            "{" => {
                leaf = false;
                i += 1;
                while !matches!(text_at(tokens, i), "}" | "") {
                    i = use_tree(tokens, i, &path, here, found);
                    i += usize::from(text_at(tokens, i) == ",");
                }
                i += 1;
            }
            // The new name is nobody's path.
            "as" => i += 2,
            "::" => i += 1,
            "self" if !path.is_empty() => i += 1,
            word => {
                path.push(word.to_owned());
                i += 1;
            }
        }
    }
    if leaf && !path.is_empty() {
        found.push(Import { line, path: absolute(&path, here) });
    }
    i
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Follows `crate`, `self` and `super`; the binary calls the library by its name.
fn absolute(path: &[String], here: &[String]) -> Vec<String> {
    let supers = path.iter().skip(usize::from(path[0] == "self")).take_while(|part| *part == "super").count();
    match path[0].as_str() {
        "crate" | "spawnpoint" => std::iter::once("crate".to_owned()).chain(path[1..].iter().cloned()).collect(),
        "self" | "super" => {
            let skip = supers + usize::from(path[0] == "self");
            let kept = here[..here.len().saturating_sub(supers)].iter().cloned();
            std::iter::once("crate".to_owned()).chain(kept).chain(path[skip..].iter().cloned()).collect()
        }
        _ => path.to_vec(),
    }
}
