//! The bytes of a push: an argument, a file, or standard input.

use std::error::Error;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;

/// Where they come from.
#[derive(Args, Debug)]
pub struct Payload {
    /// The bytes, as text. Without it and without --file they are read from standard input.
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    text: Option<String>,
    /// A file that has the bytes; - is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Payload {
    /// All of them.
    pub fn read(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        if let Some(text) = &self.text {
            return Ok(text.as_bytes().to_vec());
        }
        if let Some(file) = self.file.as_deref().filter(|file| *file != "-") {
            return std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()).into());
        }
        let mut input = std::io::stdin().lock();
        if input.is_terminal() {
            eprintln!("reading the bytes from the terminal; end them with Ctrl-D");
        }
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(|error| format!("cannot read standard input: {error}"))?;
        Ok(bytes)
    }
}
