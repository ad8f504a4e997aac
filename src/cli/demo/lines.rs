//! What client processes say to the demo: one line of text for each thing, over a pipe.
//!
//! Both ends of the pipe use this file, so that a line is written and read in one place.

use std::fmt;
use std::str::FromStr;

/// One line of a client process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// It is set up and waits for the word to begin.
    Ready,
    /// How far it has come; each line replaces the one before.
    Tally(Tally),
    /// The first thing that went wrong, as a sentence.
    Trouble(String),
}

/// What a client process has seen since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Connections that were established, whether or not they still are.
    pub connected: u32,
    /// Connections that could not be established.
    pub failed: u32,
    /// Connections that were established and have ended.
    pub closed: u32,
    /// Bytes received, right or wrong.
    pub bytes: u64,
    /// Bytes that are not what should be there.
    pub wrong_bytes: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            connected: self.connected + other.connected,
            failed: self.failed + other.failed,
            closed: self.closed + other.closed,
            bytes: self.bytes + other.bytes,
            wrong_bytes: self.wrong_bytes + other.wrong_bytes,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Ready => write!(formatter, "ready"),
            Line::Tally(Tally { connected, failed, closed, bytes, wrong_bytes }) => {
                write!(formatter, "tally {connected} {failed} {closed} {bytes} {wrong_bytes}")
            }
            Line::Trouble(sentence) => write!(formatter, "trouble {}", sentence.replace('\n', " ")),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Line, String> {
        let unknown = || format!("a client process said {text:?}, which is no line of the demo");
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "ready" => Ok(Line::Ready),
            "trouble" => Ok(Line::Trouble(rest.to_owned())),
            "tally" => {
                let numbers: Vec<u64> = rest.split(' ').map_while(|number| number.parse().ok()).collect();
                let &[connected, failed, closed, bytes, wrong_bytes] = numbers.as_slice() else {
                    return Err(unknown());
                };
                let small = |number| u32::try_from(number).map_err(|_| unknown());
                let (connected, failed, closed) = (small(connected)?, small(failed)?, small(closed)?);
                Ok(Line::Tally(Tally { connected, failed, closed, bytes, wrong_bytes }))
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let tally = Tally { connected: 1, failed: 2, closed: 3, bytes: u64::MAX, wrong_bytes: 5 };
        for line in [Line::Ready, Line::Tally(tally), Line::Trouble("it failed: why".to_owned())] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn noise_is_refused() {
        for noise in ["", "tally", "tally 1 2 3 4", "tally 1 2 3 4 5 6", "tally 1 2 3 4 x", "tally 4294967296 0 0 0 0"]
        {
            assert!(noise.parse::<Line>().is_err(), "{noise:?}");
        }
    }
}
