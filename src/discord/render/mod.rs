//! Every text that a person sees in Discord, as pure functions from views. No I/O, no clock, no Discord library: the
//! rest of this front only carries what is written here. `text` makes foreign text harmless, `job` draws a job's
//! message, `server` a panel and notices, `cost` money, `orphans` what a sweep found, `schedules` timed rules, `lists` everything that is a list, `answers` what the asker alone
//! reads.

pub mod answers;
pub mod cost;
pub mod job;
pub mod lists;
pub mod orphans;
pub mod schedules;
pub mod server;
pub mod text;

pub use cost::{cost, start_price};
pub use job::job;
pub use server::{billing, notice, panel};

use super::ids::Press;
use crate::model::{MINUTE_MS, Ms};
use text::{MESSAGE_MAX, clip, length, relative};

/// A notice that is told this long after it fell due says so: "in 10 min" is counted from then.
const LATE_MS: Ms = MINUTE_MS;
/// The largest file that goes along with an answer: every guild takes at least this.
pub const FILE_MAX_BYTES: usize = 8_000_000;
/// Output up to this long stands in the message, longer output goes along as a file.
pub const BLOCK_MAX: usize = 1800;

/// One message: its text, its buttons, and a file where the text would be too long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub text: String,
    pub buttons: Vec<Button>,
    pub file: Option<File>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub name: String,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    pub press: Press,
    pub label: String,
    pub look: Look,
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What most people want next.
    Main,
    Plain,
    /// Something is lost.
    Danger,
}

impl Said {
    pub fn new(text: impl Into<String>) -> Said {
        Said { text: clip(&text.into(), MESSAGE_MAX), ..Said::default() }
    }

    pub fn button(mut self, press: Press, label: impl Into<String>, look: Look) -> Said {
        self.buttons.push(Button { press, label: clip(&label.into(), 80), look, enabled: true });
        self
    }

    pub fn button_if(mut self, enabled: bool, press: Press, label: &str, look: Look) -> Said {
        self.buttons.push(Button { press, label: label.to_owned(), look, enabled });
        self
    }

    /// The same, with how long ago it fell due where that is not just now.
    pub fn due(mut self, since: Ms, now: Ms) -> Said {
        if now - since >= LATE_MS {
            let late = format!("\n-# From {}: it could not be told here then.", relative(since));
            self.text = clip(&self.text, MESSAGE_MAX - length(&late)) + &late;
        }
        self
    }

    /// What the message is to a reader, for telling whether it must be edited.
    pub fn fingerprint(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        for button in &self.buttons {
            (button.press.id(), &button.label, button.enabled).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

/// A line before output, and the output itself: in a block when it is short, as a file when it is long.
pub fn output(before: &str, output: &str, file_name: &str) -> Said {
    let clean: Vec<String> = output.lines().map(text::clean_line).collect();
    let joined = clean.join("\n");
    if joined.trim().is_empty() {
        return Said::new(format!("{before}\nIt answered nothing."));
    }
    let widest = clean.iter().map(|line| length(line)).max().unwrap_or_default();
    let block = text::fence(clean.iter().map(String::as_str));
    if widest <= text::OUTPUT_LINE_SHOWN && length(before) + 1 + length(&block) <= BLOCK_MAX {
        return Said::new(format!("{before}\n{block}"));
    }
    let lines = text::counted(clean.len() as u64, "line", "lines");
    let (content, cut) = tail(&joined, FILE_MAX_BYTES);
    let note = if cut { "the end of it is in the file" } else { "all of it is in the file" };
    let mut said = Said::new(format!("{before}\n{lines}, {}: {note}.", text::bytes(joined.len() as u64)));
    said.file = Some(File { name: file_name.to_owned(), content: content.to_owned() });
    said
}

/// The same beside the conversation: megabytes take long enough to miss the three seconds that Discord waits.
pub async fn output_apart(before: String, answer: String, file_name: &'static str) -> anyhow::Result<Said> {
    Ok(tokio::task::spawn_blocking(move || output(&before, &answer, file_name)).await?)
}

/// The last `max` bytes, from the beginning of a character on, and whether something was cut.
fn tail(text: &str, max: usize) -> (&str, bool) {
    if text.len() <= max {
        return (text, false);
    }
    let mut from = text.len() - max;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    (&text[from..], true)
}

/// A message as a person reads it, for snapshots.
#[cfg(test)]
pub fn shown(said: &Said) -> String {
    assert!(length(&said.text) <= MESSAGE_MAX, "{} characters", length(&said.text));
    assert!(said.buttons.len() <= 25);
    assert!(said.buttons.iter().all(|button| button.press.id().len() <= super::ids::ID_MAX_CHARS));
    let mut text = said.text.replace('\u{200b}', "␣");
    let buttons: Vec<String> = said
        .buttons
        .iter()
        .map(|button| format!("[{}{}]", button.label, if button.enabled { "" } else { " (off)" }))
        .collect();
    if !buttons.is_empty() {
        text += &format!("\n{}", buttons.join(" "));
    }
    if let Some(file) = &said.file {
        text += &format!("\n<{}: {} bytes>", file.name, file.content.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_is_told_late_says_when_it_fell_due() {
        let now = 1_795_000_000_000;
        let said = |ago: Ms, text: &str| shown(&Said::new(text).due(now - ago, now));
        let soon = "`world` stops in 10 min.";
        assert_eq!(said(LATE_MS - 1, soon), soon);
        insta::assert_snapshot!(said(2 * LATE_MS, soon), @r"
        `world` stops in 10 min.
        -# From <t:1794999880:R>: it could not be told here then.
        ");
        let long = said(2 * LATE_MS, &"x".repeat(MESSAGE_MAX));
        assert!(length(&long) <= MESSAGE_MAX && long.ends_with("here then."), "{long}");
    }

    #[test]
    fn a_short_answer_is_a_block_and_a_long_one_a_file() {
        let short = output("`world` answered:", "2 players\n\u{1b}[32malice\u{1b}[0m, @everyone ```", "console.txt");
        insta::assert_snapshot!(shown(&short), @r"
        `world` answered:
        ```
        2 players
        alice, @everyone `␣`␣`
        ```
        ");
        let megabyte = "x".repeat(99) + "\n";
        let long = output("`world` answered:", &megabyte.repeat(10_486), "console.txt");
        insta::assert_snapshot!(shown(&long), @r"
        `world` answered:
        10486 lines, 1.0 MB: all of it is in the file.
        <console.txt: 1048599 bytes>
        ");
        let one_line = output("`world` answered:", &"é".repeat(600_000), "console.txt");
        insta::assert_snapshot!(shown(&one_line), @r"
        `world` answered:
        1 line, 1.2 MB: all of it is in the file.
        <console.txt: 1200000 bytes>
        ");
        let huge = output("`world` answered:", &"é".repeat(5_000_000), "console.txt");
        assert_eq!(huge.file.as_ref().unwrap().content.len(), FILE_MAX_BYTES);
        assert!(huge.text.contains("the end of it"));
        insta::assert_snapshot!(shown(&output("`world` answered:", " \n", "console.txt")), @r"
        `world` answered:
        It answered nothing.
        ");
    }
}
