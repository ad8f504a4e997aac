//! Memory as it is weighed: this process's own, and the kernel's.

use std::fs;
use std::io;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// `VmRSS` and `HugetlbPages` of this process: what it holds of the machine's memory.
    pub process_bytes: u64,
    /// `Slab` of `/proc/meminfo`: what the kernel's own objects take, of the whole machine.
    pub slab_bytes: u64,
}

impl Memory {
    /// Reads both.
    pub fn now() -> io::Result<Memory> {
        let status = fs::read_to_string("/proc/self/status")?;
        let machine = fs::read_to_string("/proc/meminfo")?;
        Ok(Memory {
            process_bytes: field_bytes(&status, "VmRSS:") + field_bytes(&status, "HugetlbPages:"),
            slab_bytes: field_bytes(&machine, "Slab:"),
        })
    }

    /// Growth since `earlier` for each of `count`: of the process, and of the kernel's objects.
    pub fn growth_per(self, earlier: Memory, count: u64) -> (f64, f64) {
        let per = |now: u64, then: u64| (now as f64 - then as f64) / count.max(1) as f64;
        (per(self.process_bytes, earlier.process_bytes), per(self.slab_bytes, earlier.slab_bytes))
    }
}

/// The field `name`, which is given in kB; 0 where there is none.
fn field_bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kilobytes() {
        let text = "VmPeak:\t  100 kB\nVmRSS:\t   12 kB\nHugetlbPages:\t 2048 kB\n";
        assert_eq!(field_bytes(text, "VmRSS:"), 12 * 1024);
        assert_eq!(field_bytes(text, "HugetlbPages:"), 2048 * 1024);
        assert_eq!(field_bytes(text, "VmSwap:"), 0);
    }

    #[test]
    fn this_process_has_a_weight() {
        let memory = Memory::now().expect("Linux has /proc");
        assert!(memory.process_bytes > 0 && memory.slab_bytes > 0);
        let later = Memory { process_bytes: memory.process_bytes + 640, slab_bytes: memory.slab_bytes };
        assert_eq!(later.growth_per(memory, 10), (64.0, 0.0));
    }
}
