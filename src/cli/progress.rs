//! Progress on standard error: one line that is rewritten on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where progress is shown.
pub struct Progress {
    is_terminal: bool,
    shown_at: Instant,
    shown: String,
}

impl Progress {
    /// On this process's standard error.
    pub fn new() -> Progress {
        Progress { is_terminal: io::stderr().is_terminal(), shown_at: Instant::now(), shown: String::new() }
    }

    /// Shows the line, unless one was shown a moment ago.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let pause = if self.is_terminal { Duration::from_millis(100) } else { Duration::from_secs(1) };
        if self.shown_at.elapsed() >= pause {
            self.write(line());
        }
    }

    /// Shows the line for good; the next one stands below it.
    pub fn finish(&mut self, line: String) {
        self.write(line);
        if self.is_terminal {
            eprintln!();
        }
        self.shown.clear();
    }

    fn write(&mut self, line: String) {
        self.shown_at = Instant::now();
        if line == self.shown {
            return;
        }
        let mut output = io::stderr().lock();
        // A demo whose standard error is closed goes on without it.
        let _ = if self.is_terminal { write!(output, "\r\x1b[K{line}") } else { writeln!(output, "{line}") };
        let _ = output.flush();
        self.shown = line;
    }
}

/// The number with a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
