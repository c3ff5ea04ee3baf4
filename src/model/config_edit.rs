//! Sets keys in a game's own configuration file, as a recipe says, and leaves everything else in it as it was. Pure text
//! in, pure text out.

use super::recipe::{ConfigEdit, ConfigFormat};
use std::collections::BTreeMap;

/// The file with the edit's keys set. A value's `{VARIABLE}` is replaced by the environment's; an unknown one is an error,
/// and nothing else in a value means anything.
///
/// # Errors
/// A sentence that says which key or which part of the file is in the way.
pub fn apply(edit: &ConfigEdit, before: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut set = BTreeMap::new();
    for (key, value) in &edit.set {
        set.insert(key.clone(), filled(value, env).map_err(|why| format!("{key}: {why}"))?);
    }
    match edit.format {
        ConfigFormat::Properties => Ok(keyed_lines(before, &set, "=")),
        ConfigFormat::Ini => Ok(ini(before, &set)),
        ConfigFormat::Lines => Ok(whole_lines(before, &set)),
        ConfigFormat::Json => json(before, &set),
        ConfigFormat::Toml => toml_edit(before, &set),
    }
}

fn filled(value: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, name, after)) = next_name(rest) {
        let known = env.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        // One line each: a value that breaks the line would become a setting of its own.
        let value = known.ok_or_else(|| format!("there is no variable {name}"))?.replace(['\n', '\r'], " ");
        out += before;
        out += &value;
        rest = after;
    }
    Ok(out + rest)
}

/// The names that a value asks the environment for.
pub fn names(value: &str) -> Vec<&str> {
    let mut names = vec![];
    let mut rest = value;
    while let Some((_, name, after)) = next_name(rest) {
        names.push(name);
        rest = after;
    }
    names
}

/// The first `{NAME}` with what stands before and after it. Braces around anything else mean nothing.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    for (open, _) in text.match_indices('{') {
        let Some((name, after)) = text[open + 1..].split_once('}') else { continue };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            return Some((&text[..open], name, after));
        }
    }
    None
}

/// `key=value` lines; comments, order and unknown keys stay.
fn keyed_lines(before: &str, set: &BTreeMap<String, String>, sign: &str) -> String {
    let mut left = set.clone();
    let mut lines: Vec<String> = vec![];
    for line in before.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        let comment = key.starts_with(['#', ';', '!']);
        match (!comment && line.contains('=')).then(|| left.remove(key)).flatten() {
            Some(value) => lines.push(format!("{key}{sign}{value}")),
            None => lines.push(line.to_owned()),
        }
    }
    lines.extend(left.into_iter().map(|(key, value)| format!("{key}{sign}{value}")));
    ended(lines)
}

/// `section.key`; sections that are missing are added at the end.
fn ini(before: &str, set: &BTreeMap<String, String>) -> String {
    let mut left: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, value) in set {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        left.entry(section.to_owned()).or_default().insert(key.to_owned(), value.clone());
    }
    let mut lines: Vec<String> = vec![];
    let mut section = String::new();
    let flush = |lines: &mut Vec<String>, keys: Option<BTreeMap<String, String>>| {
        // New keys go before the blank line that ends a section.
        let at = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
        for (offset, (key, value)) in keys.unwrap_or_default().into_iter().enumerate() {
            lines.insert(at + offset, format!("{key} = {value}"));
        }
    };
    for line in before.lines() {
        let text = line.trim();
        if text.starts_with('[') && text.ends_with(']') {
            flush(&mut lines, left.remove(&section));
            section = text[1..text.len() - 1].to_owned();
            lines.push(line.to_owned());
            continue;
        }
        let key = text.split('=').next().unwrap_or_default().trim();
        let known = text.contains('=') && !key.starts_with(['#', ';']);
        match known.then(|| left.get_mut(&section).and_then(|keys| keys.remove(key))).flatten() {
            Some(value) => lines.push(format!("{key} = {value}")),
            None => lines.push(line.to_owned()),
        }
    }
    flush(&mut lines, left.remove(&section));
    for (section, keys) in left {
        lines.push(format!("[{section}]"));
        lines.extend(keys.into_iter().map(|(key, value)| format!("{key} = {value}")));
    }
    ended(lines)
}

fn whole_lines(before: &str, set: &BTreeMap<String, String>) -> String {
    let mut left = set.clone();
    let mut lines: Vec<String> = vec![];
    for line in before.lines() {
        let prefix = set.keys().find(|prefix| line.trim_start().starts_with(prefix.as_str()));
        match prefix {
            Some(prefix) => {
                lines.push(set[prefix].clone());
                left.remove(prefix);
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines.extend(left.into_values());
    ended(lines)
}

fn ended(lines: Vec<String>) -> String {
    if lines.is_empty() { String::new() } else { lines.join("\n") + "\n" }
}

/// A number or truth value stays one; everything else is text.
fn json_value(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => serde_json::Value::String(text.to_owned()),
    }
}

fn json(before: &str, set: &BTreeMap<String, String>) -> Result<String, String> {
    let mut root: serde_json::Value = match before.trim() {
        "" => serde_json::json!({}),
        text => serde_json::from_str(text).map_err(|error| format!("the file is no JSON: {error}"))?,
    };
    for (path, value) in set {
        let mut at = &mut root;
        for part in path.split('.') {
            let object =
                at.as_object_mut().ok_or_else(|| format!("{path} goes through something that is no object"))?;
            at = object.entry(part).or_insert_with(|| serde_json::json!({}));
        }
        // What stood there says whether it is text, so that a numeric password stays one.
        *at = match at {
            serde_json::Value::String(_) => serde_json::Value::String(value.clone()),
            _ => json_value(value),
        };
    }
    let text = serde_json::to_string_pretty(&root).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

fn toml_edit(before: &str, set: &BTreeMap<String, String>) -> Result<String, String> {
    let mut root: toml::Table =
        before.parse().map_err(|error: toml::de::Error| format!("the file is no TOML: {}", error.message()))?;
    for (path, value) in set {
        let mut parts: Vec<&str> = path.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut table = &mut root;
        for part in parts {
            let next = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = next.as_table_mut().ok_or_else(|| format!("{path} goes through something that is no table"))?;
        }
        let decimal = value.parse::<f64>().ok().filter(|number| number.is_finite());
        let value = match (table.get(last), value.parse::<i64>(), value.parse::<bool>(), decimal) {
            (Some(toml::Value::String(_)), _, _, _) => toml::Value::String(value.clone()),
            (Some(toml::Value::Float(_)), _, _, Some(number)) => toml::Value::Float(number),
            (_, Ok(number), _, _) => toml::Value::Integer(number),
            (_, _, Ok(flag), _) => toml::Value::Boolean(flag),
            (Some(toml::Value::Integer(_)), _, _, Some(number)) => toml::Value::Float(number),
            _ => toml::Value::String(value.clone()),
        };
        table.insert(last.to_owned(), value);
    }
    toml::to_string(&root).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(format: ConfigFormat, before: &str, set: &[(&str, &str)]) -> Result<String, String> {
        let set = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let env = [("PORT_GAME", "27015"), ("SERVER_NAME", "a \"b\"\nrcon=hacked"), ("MOTD", "{MOTD} $(id)")];
        let env: Vec<_> = env.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        apply(&ConfigEdit { file: "x".into(), format, set }, before, &env)
    }

    #[test]
    fn properties_keep_comments_order_and_unknown_keys() {
        let before = "# server-port=1\nmotd=old\nserver-port=25565\npvp=true\n";
        let after = edited(
            ConfigFormat::Properties,
            before,
            &[("server-port", "{PORT_GAME}"), ("motd", "{SERVER_NAME}"), ("new", "1")],
        );
        assert_eq!(after.unwrap(), "# server-port=1\nmotd=a \"b\" rcon=hacked\nserver-port=27015\npvp=true\nnew=1\n");
    }

    #[test]
    fn ini_sets_keys_in_their_section_and_adds_what_is_missing() {
        let before = "[version]\nini_version = 2\n\n[network]\nserver_port = 1\n; server_port = 3\n";
        let set = [
            ("network.server_port", "{PORT_GAME}"),
            ("network.name", "x"),
            ("gui.autosave", "monthly"),
            ("version.more", "1"),
        ];
        let after = edited(ConfigFormat::Ini, before, &set).unwrap();
        assert_eq!(
            after,
            "[version]\nini_version = 2\nmore = 1\n\n[network]\nserver_port = 27015\n; server_port = 3\nname = x\n[gui]\nautosave = monthly\n"
        );
        assert_eq!(edited(ConfigFormat::Ini, &after, &set).unwrap(), after, "twice is once");
    }

    #[test]
    fn json_and_toml_keep_the_type_that_stood_there() {
        let json = edited(
            ConfigFormat::Json,
            r#"{"password": "1", "port": 1}"#,
            &[("password", "42"), ("port", "{PORT_GAME}"), ("a.b", "true")],
        )
        .unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap(),
            serde_json::json!({"password": "42", "port": 27015, "a": {"b": true}})
        );
        let toml = edited(ConfigFormat::Toml, "[a]\nb = \"x\"\n", &[("a.b", "7"), ("a.c", "7")]).unwrap();
        assert_eq!(toml, "[a]\nb = \"7\"\nc = 7\n");
        let set = [("rate", "1.5"), ("whole", "2"), ("count", "0.5")];
        let toml = edited(ConfigFormat::Toml, "rate = 1.0\nwhole = 1.0\ncount = 3\n", &set).unwrap();
        assert_eq!(toml, "count = 0.5\nrate = 1.5\nwhole = 2.0\n");
        assert!(edited(ConfigFormat::Json, "not json", &[("a", "1")]).unwrap_err().contains("no JSON"));
        assert!(edited(ConfigFormat::Json, r#"{"a": 1}"#, &[("a.b", "1")]).unwrap_err().contains("no object"));
    }

    #[test]
    fn a_value_is_filled_once_and_never_run() {
        let after = edited(ConfigFormat::Lines, "motd old\n", &[("motd", "motd {MOTD} {} {lower}")]).unwrap();
        assert_eq!(after, "motd {MOTD} $(id) {} {lower}\n");
        assert!(edited(ConfigFormat::Lines, "", &[("x", "{NOBODY}")]).unwrap_err().contains("NOBODY"));
    }
}
