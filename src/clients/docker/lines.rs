//! Turns chunks of output into lines, one buffer per output, none of them without a bound.

use bollard::container::LogOutput;
use bytes::Bytes;

/// A longer line is cut into several of at most this many bytes.
const LINE_MAX_BYTES: usize = 64 * 1024;

/// Which of a process's outputs something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

pub(super) fn split(chunk: LogOutput) -> (Output, Bytes) {
    match chunk {
        LogOutput::StdErr { message } => (Output::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (Output::Stdout, message)
        }
    }
}

/// The unfinished lines of a process.
#[derive(Default)]
pub(super) struct Unfinished {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Unfinished {
    /// Adds a chunk and returns the lines that it ended, without their line ends.
    pub(super) fn add(&mut self, output: Output, chunk: &[u8]) -> Vec<String> {
        let buffer = self.buffer(output);
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            buffer.extend_from_slice(part);
            if buffer.ends_with(b"\n") || buffer.len() >= LINE_MAX_BYTES {
                lines.push(text(&std::mem::take(buffer)));
            }
        }
        lines
    }

    /// What was left when the output ended without a line end.
    pub(super) fn rest(&mut self, output: Output) -> Option<String> {
        let buffer = std::mem::take(self.buffer(output));
        (!buffer.is_empty()).then(|| text(&buffer))
    }

    fn buffer(&mut self, output: Output) -> &mut Vec<u8> {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_across_chunks_and_outputs() {
        let mut lines = Unfinished::default();
        assert_eq!(lines.add(Output::Stdout, b"one\r\ntw"), ["one"]);
        assert!(lines.add(Output::Stderr, b"bad").is_empty());
        assert_eq!(lines.add(Output::Stdout, b"o\n\nrest"), ["two", ""]);
        assert_eq!(lines.rest(Output::Stdout).as_deref(), Some("rest"));
        assert_eq!(lines.rest(Output::Stderr).as_deref(), Some("bad"));
        assert_eq!(lines.rest(Output::Stderr), None);
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_without_bound() {
        let mut lines = Unfinished::default();
        let cut: Vec<_> = (0..100).flat_map(|_| lines.add(Output::Stdout, &[b'x'; 4096])).collect();
        assert_eq!(cut.len(), 6);
        assert!(cut.iter().all(|line| line.len() == LINE_MAX_BYTES));
    }
}
