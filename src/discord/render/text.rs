//! Small pieces that every text is made of: foreign text made harmless, lengths, times, sizes. Pure.

use crate::model::Ms;
use crate::model::lease;

/// The longest message that Discord takes, counted as UTF-16 does, which is never less than Discord counts.
pub const MESSAGE_MAX: usize = 2000;
/// A name of somebody or something else is cut here: it is shown, not archived.
pub const NAME_SHOWN: usize = 60;
/// An error or a note within a line is cut here.
pub const REMARK_SHOWN: usize = 300;
/// One line of output is cut here.
pub const OUTPUT_LINE_SHOWN: usize = 160;

/// How long a text is to Discord, at most.
pub fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// At most `max` long; what is cut off is marked.
pub fn clip(text: &str, max: usize) -> String {
    if length(text) <= max {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.len_utf16();
        if used > max {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Without what changes how the text around it is read: control characters, line breaks, directions of writing.
fn flat(text: &str) -> String {
    let mut flat = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => flat.push(' '),
            c if c.is_control() || overrides_direction(c) => {}
            c => flat.push(c),
        }
    }
    flat
}

fn overrides_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Foreign text within a line: shown as it is, never as markup, a mention or a link.
pub fn plain(text: &str, max: usize) -> String {
    let text = clip(flat(text).trim(), max);
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' | '*' | '_' | '~' | '|' | '`' | '>' | '<' | '#' | '[' | ']' | '(' | ')' => {
                safe.push('\\');
                safe.push(c);
            }
            // A backslash does not stop @everyone or a bare link; an invisible space does.
            '@' => safe.push_str("@\u{200b}"),
            c => safe.push(c),
        }
    }
    let safe = safe.replace("://", ":\u{200b}//");
    // Only at a line's beginning do these mean something, and foreign text may stand there.
    match safe.chars().next() {
        Some('-' | '+') => format!("\\{safe}"),
        Some('0'..='9') if safe.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(". ") => {
            safe.replacen('.', "\\.", 1)
        }
        Some(_) | None => safe,
    }
}

/// Foreign text in a code span, for what people copy: names, addresses, ids.
pub fn code(text: &str) -> String {
    let text = clip(flat(text).trim(), NAME_SHOWN);
    match text.is_empty() {
        true => "` `".to_owned(),
        false => format!("`{}`", text.replace('`', "ˋ")),
    }
}

/// A block of output: no colours, no control characters, and no way out of the block.
pub fn fence<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut block = "```\n".to_owned();
    for line in lines {
        block += &unfenced(&clip(&clean_line(line), OUTPUT_LINE_SHOWN));
        block.push('\n');
    }
    block + "```"
}

/// Two backticks in a row are already parted, so that three never come together.
fn unfenced(line: &str) -> String {
    line.replace("``", "`\u{200b}`\u{200b}")
}

/// A line of a program's output without its colours and control characters.
pub fn clean_line(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => clean.push_str("    "),
            // A progress bar rewrites its line: only what stands there last counts.
            '\r' if chars.peek().is_some() => clean.clear(),
            c if c.is_control() || overrides_direction(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        // Control sequences end with a letter or one of its neighbours.
        Some('[') => {
            chars.next();
            for c in chars.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        // A title or a link ends with a bell or with an escape.
        Some(']') => {
            for c in chars.by_ref() {
                if c == '\u{7}' || c == '\u{1b}' {
                    break;
                }
            }
            if chars.peek() == Some(&'\\') {
                chars.next();
            }
        }
        Some(_) => {
            chars.next();
        }
        None => {}
    }
}

/// A length of time as people say it; what is shorter than a second is said so.
pub fn took(time: Ms) -> String {
    match time {
        ..1000 => "under 1 s".to_owned(),
        _ => lease::spoken(time),
    }
}

/// A moment, shown in the reader's own time and language: "in 2 hours".
pub fn relative(at: Ms) -> String {
    format!("<t:{}:R>", at.div_euclid(1000))
}

/// A moment, shown in the reader's own time and language: date and time.
pub fn moment(at: Ms) -> String {
    format!("<t:{}:f>", at.div_euclid(1000))
}

/// The same with the day of the week.
pub fn day_and_time(at: Ms) -> String {
    format!("<t:{}:F>", at.div_euclid(1000))
}

/// Bytes as people say them: `18 MB`, `1.2 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1000.0;
    for unit in UNITS {
        if value < 999.5 || unit == "PB" {
            return if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") };
        }
        value /= 1000.0;
    }
    unreachable!("the last unit always returns")
}

/// "1 file", "2 files".
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_shown_and_never_obeyed() {
        let hostile = [
            "@everyone",
            "<@123> <#4> <@&5>",
            "**bold** _it_ ~~no~~ ||spoiler||",
            "`code` ```block```",
            "a\nb\r\nc",
            "# heading",
            "- list",
            "1. list",
            "> quote",
            "[click](https://example.org)",
            "https://example.org/_x_",
            "\u{202e}gnp.exe",
            "back\\slash",
            "日本語 🎮 é",
            "   ",
        ];
        let shown: String = hostile
            .iter()
            .map(|text| format!("{} | {}\n", plain(text, NAME_SHOWN), code(text)).replace('\u{200b}', "␣"))
            .collect();
        insta::assert_snapshot!(shown, @r"
        @␣everyone | `@everyone`
        \<@␣123\> \<\#4\> \<@␣&5\> | `<@123> <#4> <@&5>`
        \*\*bold\*\* \_it\_ \~\~no\~\~ \|\|spoiler\|\| | `**bold** _it_ ~~no~~ ||spoiler||`
        \`code\` \`\`\`block\`\`\` | `ˋcodeˋ ˋˋˋblockˋˋˋ`
        a b  c | `a b  c`
        \# heading | `# heading`
        \- list | `- list`
        1\. list | `1. list`
        \> quote | `> quote`
        \[click\]\(https:␣//example.org\) | `[click](https://example.org)`
        https:␣//example.org/\_x\_ | `https://example.org/_x_`
        gnp.exe | `gnp.exe`
        back\\slash | `back\slash`
        日本語 🎮 é | `日本語 🎮 é`
         | ` `
        ");
    }

    #[test]
    fn nothing_gets_out_of_a_block() {
        let lines = [
            "fine",
            "```",
            "a````````b",
            "\u{1b}[31mred\u{1b}[0m",
            "10%\r50%\r100%",
            "tab\there",
            "\u{1b}]0;title\u{7}x",
        ];
        let block = fence(lines);
        assert_eq!(block.matches("```").count(), 2, "{block}");
        insta::assert_snapshot!(block.replace('\u{200b}', "␣"), @r"
        ```
        fine
        `␣`␣`
        a`␣`␣`␣`␣`␣`␣`␣`␣b
        red
        100%
        tab    here
        x
        ```
        ");
    }

    #[test]
    fn what_is_cut_stays_within_the_limit_in_every_script() {
        for text in ["a".repeat(5000), "é".repeat(5000), "🎮".repeat(5000), "日本".repeat(5000)] {
            for max in [1, 2, 10, MESSAGE_MAX] {
                let cut = clip(&text, max);
                assert!(length(&cut) <= max && cut.ends_with('…'), "{max}: {}", length(&cut));
            }
        }
        assert_eq!(clip("short", 5), "short");
    }

    #[test]
    fn sizes_read_like_sizes() {
        let sizes = [0, 999, 1000, 18_400_000, 999_499_999, 999_600_000, 1_200_000_000, u64::MAX];
        assert_eq!(sizes.map(bytes).join(", "), "0 bytes, 999 bytes, 1.0 KB, 18 MB, 999 MB, 1.0 GB, 1.2 GB, 18447 PB");
    }
}
