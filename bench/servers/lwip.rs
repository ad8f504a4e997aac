//! The server on lwIP: a program of its own, made of `lwip.c` and the system's liblwip, at the end of two pipes.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::Server;
use super::frames::Frames;

/// See the module.
pub struct Lwip {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Lwip {
    /// Compiles and starts it. Errors say in one line what is missing.
    pub fn start() -> Result<Lwip, String> {
        let flags = Command::new("pkg-config").args(["--cflags", "--libs", "lwip"]).output();
        let flags = flags.map_err(|error| format!("no pkg-config: {error}"))?;
        if !flags.status.success() {
            return Err("not here: apt-get install liblwip-dev".to_owned());
        }
        let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/servers/lwip.c");
        let program = std::env::temp_dir().join(format!("holdline-lwip-{}", std::process::id()));
        let compiled = Command::new("cc")
            .arg("-O2")
            .arg("-o")
            .args([&program, &source])
            .args(flags.split_whitespace())
            .status()
            .map_err(|error| format!("no C compiler: {error}"))?;
        if !compiled.success() {
            return Err("bench/servers/lwip.c does not compile with this liblwip".to_owned());
        }
        let child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        // It is open by now, and needs its name no more.
        let _ = std::fs::remove_file(&program);
        let mut child = child.map_err(|error| format!("it does not start: {error}"))?;
        let input = BufWriter::new(child.stdin.take().expect("a pipe"));
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok(Lwip { child, input, output })
    }

    fn say(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.input.write_all(&number.to_ne_bytes()).expect("lwIP reads");
        }
    }

    fn hear<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        self.output.read_exact(&mut bytes).expect("lwIP answers");
        bytes
    }

    fn hear_all(&mut self, sent: &mut Frames) -> Duration {
        self.input.flush().expect("lwIP reads");
        let took = Duration::from_nanos(u64::from_ne_bytes(self.hear()));
        for _ in 0..u32::from_ne_bytes(self.hear()) {
            let length = u32::from_ne_bytes(self.hear());
            let output = &mut self.output;
            sent.add(|out| {
                let start = out.len();
                out.resize(start + length as usize, 0);
                output.read_exact(&mut out[start..]).expect("lwIP answers");
            });
        }
        took
    }
}

impl Server for Lwip {
    fn receive(&mut self, frames: &Frames, sent: &mut Frames) -> Duration {
        self.say(&[0, frames.len() as u32]);
        for frame in frames.iter() {
            self.say(&[frame.len() as u32]);
            self.input.write_all(frame).expect("lwIP reads");
        }
        self.hear_all(sent)
    }

    fn push(&mut self, connections: &[u32], sent: &mut Frames) -> Duration {
        self.say(&[1, connections.len() as u32]);
        self.say(connections);
        self.hear_all(sent)
    }

    fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Lwip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
