//! Between people's text and data: the line of a slash command, and what of a channel is the same in every run.

use std::sync::LazyLock;

use regex::Regex;

use super::Refused;

/// A command and its options, by name.
type Typed = (Vec<String>, Vec<(String, String)>);

/// Reads `/server start server:world note:"two words"` as Discord's client would: words are the command's path until the
/// first option, a value goes on to the next option, quotes hold everything (`\"`, `\\` and `\n` inside).
pub fn parse_slash(line: &str) -> Result<Typed, Refused> {
    static OPTION: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?:^|\s)([\w-]{1,32}):").expect("a valid pattern"));
    let line = line.strip_prefix('/').ok_or_else(|| Refused(format!("{line:?} does not begin with /")))?;
    let first = OPTION.find(line).map_or(line.len(), |found| found.start());
    let path: Vec<String> = line[..first].split_whitespace().map(str::to_owned).collect();
    let mut options = Vec::new();
    let mut rest = &line[first..];
    while let Some(found) = OPTION.captures(rest) {
        let name = found[1].to_owned();
        let value = &rest[found.get(0).map_or(0, |all| all.end())..];
        if let Some(quoted) = value.strip_prefix('"') {
            let (text, length) = unquote(quoted).ok_or_else(|| Refused(format!("an open quote in {line:?}")))?;
            options.push((name, text));
            rest = &quoted[length..];
        } else {
            let end = OPTION.find(value).map_or(value.len(), |next| next.start());
            options.push((name, value[..end].trim().to_owned()));
            rest = &value[end..];
        }
    }
    if path.is_empty() || !rest.trim().is_empty() {
        return Err(Refused(format!("cannot read {line:?}")));
    }
    Ok((path, options))
}

/// The text up to the closing quote, and how long it was with that quote.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

/// Replaces what differs from run to run: ids, Discord's timestamps, and times of seconds or less precision than that.
/// Whole minutes and hours stay: they are what a person has asked for.
pub fn redact(text: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"<t:[^>]+>", "<t:…>"),
            (r"\b\d{17,20}\b", "<id>"),
            (r"\b(\d+ ?h(ours?)? )?(\d+ ?m(in(utes?)?)? )?\d+([.,]\d+)? ?(ms|s|sec|seconds?)\b", "<time>"),
            (r"\b\d+:\d\d(:\d\d)?\b", "<time>"),
        ]
        .map(|(pattern, with)| (Regex::new(pattern).expect("a valid pattern"), with))
        .into()
    });
    RULES.iter().fold(text.to_owned(), |text, (rule, with)| rule.replace_all(&text, *with).into_owned())
}
