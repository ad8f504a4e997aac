//! A line read word by word: numbers, half-open ranges, times, addresses, bytes in hexadecimal.

use std::net::IpAddr;
use std::str::FromStr;

use super::script::CLIENT_PORT;

/// What is left of a line.
pub struct Reader {
    /// The words, the next one last.
    words: Vec<String>,
}

impl Reader {
    /// The words of a line.
    pub fn new(line: &str) -> Reader {
        Reader { words: line.split_whitespace().rev().map(str::to_string).collect() }
    }

    /// The next word, without taking it.
    pub fn peek(&self) -> Option<&str> {
        self.words.last().map(String::as_str)
    }

    /// Takes the next word, if there is one.
    pub fn next_word(&mut self) -> Option<String> {
        self.words.pop()
    }

    /// Takes the next word.
    pub fn word(&mut self) -> Result<String, String> {
        self.next_word().ok_or_else(|| "the line ends too early".into())
    }

    /// Takes a decimal number that fits into its type.
    pub fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is not a number that fits here"))
    }

    /// Takes `name N`, if `name` comes next.
    pub fn named<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        if self.peek() != Some(name) {
            return Ok(None);
        }
        self.word()?;
        self.number().map(Some)
    }

    /// Takes `name`, if it comes next.
    pub fn has(&mut self, name: &str) -> bool {
        let is_next = self.peek() == Some(name);
        if is_next {
            self.words.pop();
        }
        is_next
    }

    /// Takes `port N`, or means the usual client port.
    pub fn client_port(&mut self) -> Result<u16, String> {
        Ok(self.named("port")?.unwrap_or(CLIENT_PORT))
    }

    /// Takes `A` or `A..B`: a sequence number and the length of what follows it, at most 65,535 bytes.
    pub fn range(&mut self) -> Result<(u32, u32), String> {
        let word = self.word()?;
        let wrong = || format!("`{word}` is not a sequence number or a range of them");
        let Some((start, end)) = word.split_once("..") else {
            return Ok((word.parse().map_err(|_| wrong())?, 0));
        };
        let start: u32 = start.parse().map_err(|_| wrong())?;
        let end: u32 = end.parse().map_err(|_| wrong())?;
        match end.wrapping_sub(start) {
            bytes @ 1..=65_535 => Ok((start, bytes)),
            bytes => Err(format!("a range has 1 to 65535 bytes, `{word}` has {bytes}")),
        }
    }

    /// Takes a time with its unit, us, ms or s; in microseconds.
    pub fn time_us(&mut self) -> Result<u64, String> {
        let word = self.word()?;
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale = match &word[digits.len()..] {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            _ => return Err(format!("`{word}` is not a time: say us, ms or s")),
        };
        let count: u64 = digits.parse().map_err(|_| format!("`{word}` is not a time"))?;
        Ok(count * scale)
    }

    /// Takes a time of whole seconds.
    pub fn seconds(&mut self) -> Result<u32, String> {
        let time_us = self.time_us()?;
        u32::try_from(time_us / 1_000_000).map_err(|_| "that many seconds do not fit".into())
    }

    /// Takes an address of either family.
    pub fn address(&mut self) -> Result<IpAddr, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is not an address"))
    }

    /// Takes `ADDRESS/BITS`.
    pub fn network(&mut self) -> Result<(IpAddr, u8), String> {
        let word = self.word()?;
        let network =
            word.split_once('/').and_then(|(address, bits)| Some((address.parse().ok()?, bits.parse().ok()?)));
        network.ok_or_else(|| format!("`{word}` is not an address with a prefix length"))
    }

    /// Takes bytes in hexadecimal.
    pub fn hex(&mut self) -> Result<Vec<u8>, String> {
        let word = self.word()?;
        if !word.len().is_multiple_of(2) || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("`{word}` is not bytes in hexadecimal"));
        }
        let pair = |at: usize| u8::from_str_radix(&word[at..at + 2], 16).expect("two hexadecimal digits");
        Ok((0..word.len()).step_by(2).map(pair).collect())
    }

    /// Fails if words are left.
    pub fn finish(&self) -> Result<(), String> {
        match self.peek() {
            Some(word) => Err(format!("the line goes on with `{word}`")),
            None => Ok(()),
        }
    }
}
