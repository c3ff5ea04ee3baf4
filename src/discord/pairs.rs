//! `key=value, key="value, with a comma"`: how settings are given in one option of a command. Pure.

use std::collections::BTreeMap;

/// # Errors
/// A sentence that says how settings are written.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let help = || "Settings are written `key=value, other=value`; put a value with a comma in quotes.".to_owned();
    let mut pairs = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(help)?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) || key.contains(',') {
            return Err(help());
        }
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"').ok_or_else(help)?;
                let next = next.trim_start();
                if !next.is_empty() && !next.starts_with([',', '\n']) {
                    return Err(help());
                }
                (value, next.trim_start_matches([',', '\n']))
            }
            None => match after.find([',', '\n']) {
                Some(end) => (after[..end].trim(), &after[end + 1..]),
                None => (after.trim(), ""),
            },
        };
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("The setting `{}` is given twice.", key.replace('`', "ˋ")));
        }
        rest = next.trim();
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_people_write_them() {
        let read = |text: &str| {
            let pairs = parse(text).unwrap();
            pairs.iter().map(|(key, value)| format!("{key}→{value}")).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(read(""), "");
        assert_eq!(read("a=1"), "a→1");
        assert_eq!(read(" A = 1 ,B=two words,C= "), "A→1 | B→two words | C→");
        assert_eq!(read("motd=\"hello, you = me\", x=y"), "motd→hello, you = me | x→y");
        assert_eq!(read("a=1\nb=2"), "a→1 | b→2");
        assert_eq!(read("url=http://x/?a=b"), "url→http://x/?a=b");
    }

    #[test]
    fn what_is_not_a_setting_is_refused_with_how_to_write_it() {
        for text in ["a", "=1", "a b=1", "a=\"open", "a=\"x\"y", "a=1, b"] {
            assert!(parse(text).unwrap_err().contains("key=value"), "{text}");
        }
        assert!(parse("a=1,a=2").unwrap_err().contains("twice"));
    }
}
