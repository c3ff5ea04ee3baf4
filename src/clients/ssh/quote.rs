//! Words for a POSIX shell. This is the one place where text becomes part of a remote command line.

use super::error::SshError;

/// The command line that makes a shell see exactly these words. Single quotes keep everything, line breaks included;
/// only NUL cannot be part of an argument at all.
pub fn quoted(argv: &[impl AsRef<str>]) -> Result<String, SshError> {
    let mut line = String::new();
    for word in argv {
        let word = word.as_ref();
        if word.contains('\0') {
            return Err(SshError::Refused("a command's argument holds a NUL, which no command can be given".into()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push('\'');
        line.push_str(&word.replace('\'', r"'\''"));
        line.push('\'');
    }
    Ok(line)
}

/// One line of shell that exports these variables. It is read from stdin and not put on a command line, because
/// everybody on the host can read those. Line breaks are spelled `$break_name`, so that `read` takes it all at once.
pub(super) fn exports(env: &[(String, String)], break_name: &str) -> Result<String, SshError> {
    let mut line = String::from("export");
    for (name, value) in env {
        let first = name.chars().next();
        if !first.is_some_and(|one| one.is_ascii_alphabetic() || one == '_')
            || !name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
        {
            return Err(SshError::Refused(format!(
                "{name:?} cannot be the name of an environment variable: letters, digits and _ only"
            )));
        }
        line.push_str(&format!(" {name}="));
        line.push_str(&quoted(&[value])?.replace('\n', &format!("'\"${break_name}\"'")));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What `sh` hands to the program, read back through a separator that no argument can hold.
    fn through_a_shell(argv: &[String]) -> Vec<String> {
        let line = format!("printf '%s\\0' {}", quoted(argv).unwrap());
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(String::from).collect()
    }

    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~\n\t\r'\"\\\\$`!*?~#;&|<>(){}\\[\\]]{0,40}",
            "\\PC{0,20}",
            Just("$(touch /tmp/never)".to_string()),
            Just("-n".to_string()),
            Just("'".to_string()),
            Just("\n".to_string()),
            Just(String::new()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn a_shell_gives_back_every_word_as_it_was(argv in proptest::collection::vec(nasty(), 1..5)) {
            let argv: Vec<String> = argv.into_iter().map(|one| one.replace('\0', "")).collect();
            prop_assert_eq!(through_a_shell(&argv), argv);
        }

        #[test]
        fn an_export_line_is_one_line_and_sets_exactly_its_values(value in nasty()) {
            let value = value.replace('\0', "");
            let line = exports(&[("WORD".into(), value.clone())], "nl").unwrap();
            prop_assert!(!line.contains('\n'));
            let script = "nl='\n'\nIFS= read -r line; eval \"$line\"; printf %s \"$WORD\"";
            let mut child = Command::new("sh").args(["-c", script])
                .stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
            let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            prop_assert_eq!(said, value);
        }
    }

    #[test]
    fn what_no_shell_can_carry_is_refused() {
        assert!(quoted(&["a\0b"]).is_err());
        for name in ["", "1A", "A B", "A=B", "a;rm", "Ä"] {
            assert!(exports(&[(name.to_string(), String::new())], "nl").is_err(), "{name:?}");
        }
    }
}
