//! Which of the things in a stream are the world, and where in the backup they belong.

use regex::bytes::Regex;

use super::{
    error::{Error, Result},
    name::WorldPath,
};

/// The world's paths and what to leave out of them. Patterns are rsync's, so that one recipe says the same for
/// both backends: without a slash they fit a name anywhere, with a leading slash they begin at the world's root,
/// with a trailing slash they fit folders only; `*` and `?` stop at slashes, `**` does not; what is below an
/// excluded folder is excluded too.
#[derive(Debug, Clone)]
pub struct Selection {
    paths: Vec<WorldPath>,
    exclude: Vec<Regex>,
}

impl Selection {
    /// No paths means everything.
    pub fn new<P: AsRef<str>, E: AsRef<str>>(paths: &[P], exclude: &[E]) -> Result<Self> {
        Ok(Self {
            paths: paths.iter().map(|p| WorldPath::parse(p.as_ref().as_bytes())).collect::<Result<_>>()?,
            exclude: exclude.iter().map(|e| pattern(e.as_ref())).collect::<Result<_>>()?,
        })
    }

    pub fn everything() -> Self {
        Self { paths: Vec::new(), exclude: Vec::new() }
    }

    /// A folder on the way down to a selected path belongs too: it carries a mode and an owner.
    pub(super) fn takes(&self, path: &WorldPath, is_dir: bool) -> bool {
        let wanted = self.paths.is_empty()
            || self.paths.iter().any(|p| path.inside(p).is_some() || (is_dir && p.inside(path).is_some()));
        let mut text = path.as_bytes().to_vec();
        if is_dir {
            text.push(b'/');
        }
        wanted && !self.exclude.iter().any(|e| e.is_match(&text))
    }
}

/// How names in the stream become names in the backup: `strip` is taken off the front, `under` put before.
///
/// Docker's archive of `/game/data/world` names everything `world/…`; to keep it as `data/world/…`, strip
/// `world` and put it under `data/world`. A name that does not begin with `strip` is refused.
#[derive(Debug, Clone)]
pub struct Shift {
    strip: WorldPath,
    under: WorldPath,
}

impl Shift {
    pub fn new(strip: &str, under: &str) -> Result<Self> {
        Ok(Self { strip: WorldPath::parse(strip.as_bytes())?, under: WorldPath::parse(under.as_bytes())? })
    }

    pub fn none() -> Self {
        Self { strip: WorldPath::root(), under: WorldPath::root() }
    }

    pub(super) fn apply(&self, name: &[u8]) -> Result<WorldPath> {
        let path = WorldPath::parse(name)?;
        let path = path
            .inside(&self.strip)
            .ok_or_else(|| Error::refused(name, format!("the name does not begin with {}", self.strip)))?;
        Ok(path.under(&self.under))
    }
}

fn pattern(text: &str) -> Result<Regex> {
    let bad = |why: String| Error::BadPattern { pattern: text.into(), why };
    let (body, front) = match text.strip_prefix('/') {
        Some(rest) => (rest, ""),
        None => (text, "(?:.*/)?"),
    };
    let (body, back) = match body.strip_suffix('/') {
        Some(rest) => (rest, "/.*"),
        None => (body, "(?:/.*)?"),
    };
    if body.is_empty() {
        return Err(bad("it is empty".into()));
    }
    // Anchored at both ends: regex 1.13.1 does not find `(?s-u)(?:^|/)a/[^/]*/c(?:/|$)` in `a/b/c`.
    // Bytes, not characters, for names need not be UTF-8; `?` still takes a whole character where there is one.
    let mut regex = format!("(?s-u)^{front}");
    let mut rest = body;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        match next {
            '*' if rest.starts_with("**") => {
                taken = rest.len() - rest.trim_start_matches('*').len();
                regex.push_str(".*");
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("(?:(?u:[^/])|[^/])"),
            '[' => {
                let end = rest[1..].find(']').ok_or_else(|| bad("a [ is never closed".into()))? + 1;
                let (not, set) = match rest[1..end].strip_prefix(['!', '^']) {
                    Some(set) => ("^/", set),
                    None => ("", &rest[1..end]),
                };
                if set.is_empty() || !set.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b)) {
                    return Err(bad("a [] may hold letters, digits, '-', '_', '.' and spaces".into()));
                }
                regex.push_str(&format!("[{not}{set}]"));
                taken = end + 1;
            }
            '\\' => {
                let escaped = rest[1..].chars().next().ok_or_else(|| bad("it ends with a \\".into()))?;
                regex.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                taken += escaped.len_utf8();
            }
            plain => regex.push_str(&regex::escape(plain.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[taken..];
    }
    regex.push_str(back);
    regex.push('$');
    Regex::new(&regex).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_rsync() {
        let table: &[(&str, &str, bool)] = &[
            ("*.log", "a.log", true),
            ("*.log", "deep/down/a.log", true),
            ("*.log", "a.log.gz", false),
            ("/*.log", "deep/a.log", false),
            ("/logs/", "logs/", true),
            ("/logs/", "logs/x/y", true),
            ("/logs/", "logs", false),
            ("logs/", "deep/logs/x", true),
            ("cache", "cache", true),
            ("cache", "mycache", false),
            ("a/b", "x/a/b", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("a/**/c", "a/b/b/c", true),
            ("save?.dat", "save1.dat", true),
            ("save?.dat", "saveé.dat", true),
            ("save[0-9].dat", "savex.dat", false),
            ("save[!0-9].dat", "savex.dat", true),
            ("a+b(1)", "a+b(1)", true),
            ("\\*", "x", false),
            ("\\*", "*", true),
            ("wörld", "wörld", true),
        ];
        for (glob, path, fits) in table {
            assert_eq!(pattern(glob).unwrap().is_match(path.as_bytes()), *fits, "{glob} {path}");
        }
        assert!(pattern("*.tmp").unwrap().is_match(b"\xff\xfe.tmp"));
        for glob in ["", "/", "[", "[]", "a\\"] {
            assert!(pattern(glob).is_err(), "{glob:?}");
        }
    }

    #[test]
    fn a_selection_takes_paths_their_contents_and_the_way_down() {
        let s = Selection::new(&["data/world", "server.ini"], &["*.tmp"]).unwrap();
        let takes = |path: &str, dir| s.takes(&WorldPath::parse(path.as_bytes()).unwrap(), dir);
        assert!(takes("data", true) && takes("data/world/x", false) && takes("server.ini", false));
        assert!(!takes("data/worlds", true) && !takes("data/other", false) && !takes("data/world/a.tmp", false));
    }

    #[test]
    fn names_are_moved_from_the_streams_root_to_the_worlds() {
        let shift = Shift::new("world", "data/world").unwrap();
        assert_eq!(shift.apply(b"world/a/b").unwrap().as_bytes(), b"data/world/a/b");
        assert_eq!(shift.apply(b"./world/").unwrap().as_bytes(), b"data/world");
        assert!(shift.apply(b"worlds/a").is_err());
    }

    /// The same rules, slowly and without an engine.
    fn fits_here(glob: &[u8], path: &[u8]) -> bool {
        match (glob, path) {
            ([], []) | ([], [b'/', ..]) => true,
            ([b'*', rest @ ..], _) => {
                fits_here(rest, path) || path.first().is_some_and(|b| *b != b'/') && fits_here(glob, &path[1..])
            }
            ([g, rest @ ..], [p, more @ ..]) => g == p && fits_here(rest, more),
            ([], _) | (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_what_a_plain_reading_of_them_fits(glob in "[ab*][ab/*]{0,5}[ab]", path in "[ab/]{1,8}") {
            prop_assume!(!glob.contains("**"));
            let starts = (0..path.len()).filter(|at| *at == 0 || path.as_bytes()[at - 1] == b'/');
            let plain = starts.into_iter().any(|at| fits_here(glob.as_bytes(), &path.as_bytes()[at..]));
            prop_assert_eq!(pattern(&glob).unwrap().is_match(path.as_bytes()), plain);
        }
    }
}
