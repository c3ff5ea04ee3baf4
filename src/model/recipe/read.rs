//! Reads TOML by hand instead of by derive, for the sake of people: every fault of a file at once, each with its line,
//! its place and what is allowed there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// So much of a wrong value is repeated.
const SHOWN_MAX_CHARS: usize = 60;

/// One file, and where its faults gather while it is read.
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
    faults: RefCell<Vec<(usize, String)>>,
}

impl<'a> Source<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Source<'a> {
        Source { file, text, faults: RefCell::default() }
    }

    pub fn fault(&self, at: usize, what: impl AsRef<str>) {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        self.faults.borrow_mut().push((line, format!("{}:{line}: {}", self.file, what.as_ref())));
    }

    /// All faults in the order of their lines.
    pub fn faults(self) -> Vec<String> {
        let mut faults = self.faults.into_inner();
        faults.sort();
        faults.dedup();
        faults.into_iter().map(|(_, text)| text).collect()
    }
}

/// One table of the file. A key that nobody asked for by the end is unknown.
pub struct Section<'a> {
    source: &'a Source<'a>,
    /// As people read it: `[ready]`; empty at the top of the file.
    title: String,
    at: usize,
    entries: BTreeMap<&'a str, (usize, &'a Spanned<DeValue<'a>>)>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    pub fn new(source: &'a Source<'a>, title: String, at: usize, table: &'a DeTable<'a>) -> Section<'a> {
        let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), (key.span().start, value))).collect();
        Section { source, title, at, entries, asked: RefCell::default() }
    }

    /// A place in this section as people read it: `[ready] timeout_s`.
    fn place(&self, key: &str) -> String {
        if self.title.is_empty() { key.to_owned() } else { format!("{} {key}", self.title) }
    }

    fn take(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.asked.borrow().iter().any(|asked| asked == key) {
            self.asked.borrow_mut().push(key.to_owned());
        }
        self.entries.get(key).map(|(_, value)| *value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A fault of one key, or of a key that is missing.
    pub fn fault(&self, key: &str, what: impl AsRef<str>) {
        let at = self.entries.get(key).map_or(self.at, |(at, _)| *at);
        self.source.fault(at, format!("{} {}", self.place(key), what.as_ref()));
    }

    /// A fault of the section as a whole.
    pub fn fault_here(&self, what: impl AsRef<str>) {
        self.source.fault(self.at, format!("{} {}", self.title, what.as_ref()));
    }

    /// A fault of one item of a list, which has a line of its own.
    pub fn fault_at(&self, at: usize, key: &str, what: impl AsRef<str>) {
        self.source.fault(at, format!("{} {}", self.place(key), what.as_ref()));
    }

    fn wrong(&self, key: &str, allowed: &str, value: &Spanned<DeValue>) {
        let what = format!("must be {allowed}, not {}", shown(value.get_ref()));
        self.source.fault(value.span().start, format!("{} {what}", self.place(key)));
    }

    /// Says so when a key is missing.
    pub fn needs(&self, key: &str) {
        if !self.has(key) {
            self.fault(key, "is missing");
        }
    }

    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.take(key)?;
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(key, "a text in quotes", value);
        }
        text
    }

    /// A text that must be there, and be neither empty nor too long.
    pub fn needed_text(&self, key: &str, max_chars: usize) -> String {
        self.needs(key);
        let Some(text) = self.text(key) else { return String::new() };
        if text.trim().is_empty() || text.chars().count() > max_chars {
            self.fault(key, format!("must have 1 to {max_chars} characters, not {}", text.chars().count()));
        }
        text
    }

    pub fn whole(&self, key: &str, range: RangeInclusive<i64>, unit: &str) -> Option<i64> {
        let value = self.take(key)?;
        let unit = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
        let number = whole(value.get_ref()).filter(|number| range.contains(number));
        if number.is_none() {
            let allowed = match (range.start(), range.end()) {
                (only, last) if only == last => only.to_string(),
                (first, last) => format!("a whole number{unit} from {first} to {last}"),
            };
            self.wrong(key, &allowed, value);
        }
        number
    }

    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.take(key)?;
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            other => whole(other).map(|number| number as f64),
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong(key, &format!("a number from {} to {}", range.start(), range.end()), value);
        }
        number
    }

    /// Missing is false.
    pub fn switch(&self, key: &str) -> bool {
        let Some(value) = self.take(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong(key, "true or false", value);
            false
        })
    }

    /// One word of a closed set.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.take(key)?;
        let found = value.get_ref().as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(key, &format!("one of {}", words.join(", ")), value);
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A list of texts, each with its place in the file.
    pub fn texts(&self, key: &str) -> Vec<(usize, String)> {
        let Some(value) = self.take(key) else { return vec![] };
        let texts = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|item| Some((item.span().start, item.get_ref().as_str()?.to_owned()))).collect()
        });
        texts.unwrap_or_else(|| {
            self.wrong(key, "a list of texts in quotes", value);
            vec![]
        })
    }

    /// A text, a whole number or a truth value, in the form in which a script gets it.
    pub fn scalar(&self, key: &str) -> Option<String> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Boolean(on) => Some(on.to_string()),
            other => whole(other).map(|number| number.to_string()).or_else(|| {
                self.wrong(key, "a text, a whole number, true or false", value);
                None
            }),
        }
    }

    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        let title = match self.title.trim_matches(['[', ']']) {
            "" => format!("[{key}]"),
            outer => format!("[{outer}.{key}]"),
        };
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(self.source, title, self.entries.get(key)?.0, table)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong(key, &format!("a table, written {title}"), value);
                None
            }
        }
    }

    /// A section that must be there.
    pub fn needed_section(&self, key: &str) -> Option<Section<'a>> {
        if !self.has(key) {
            self.source.fault(self.at, format!("[{key}] is missing"));
        }
        self.section(key)
    }

    /// `[[key]]`, each with its place.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return vec![] };
        let title = format!("[[{key}]]");
        let tables: Option<Vec<Section>> = value.get_ref().as_array().and_then(|array| {
            let table = |item: &'a Spanned<DeValue<'a>>| Some((item.span().start, item.get_ref().as_table()?));
            let all: Option<Vec<_>> = array.iter().map(table).collect();
            Some(all?.into_iter().map(|(at, table)| Section::new(self.source, title.clone(), at, table)).collect())
        });
        tables.unwrap_or_else(|| {
            self.wrong(key, &format!("a list of tables, each written {title}"), value);
            vec![]
        })
    }

    /// The keys in the file's order.
    pub fn keys(&self) -> Vec<&'a str> {
        let mut keys: Vec<(usize, &str)> = self.entries.iter().map(|(key, (at, _))| (*at, *key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Names what nobody asked for: a misspelt limit that is silently ignored costs somebody an evening.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (key, (at, _)) in &self.entries {
            if !asked.iter().any(|asked| asked == key) {
                let place = if self.title.is_empty() { "the top of a recipe" } else { &self.title };
                self.source.fault(*at, format!("`{key}` is no key of {place}; allowed are {}", asked.join(", ")));
            }
        }
    }
}

fn whole(value: &DeValue) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}

/// A value as the file has it, short.
fn shown(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.chars().take(SHOWN_MAX_CHARS).collect::<String>()),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(when) => when.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
