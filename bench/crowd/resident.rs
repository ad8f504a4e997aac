//! What the memory of a process is: VmRSS and HugetlbPages together, as everywhere.

/// VmRSS + HugetlbPages of this process in bytes.
pub fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let kilobytes: f64 = status
        .lines()
        .filter(|line| line.starts_with("VmRSS:") || line.starts_with("HugetlbPages:"))
        .map(|line| {
            line.split_whitespace().nth(1).and_then(|figure| figure.parse::<f64>().ok()).expect("a number of kB")
        })
        .sum();
    kilobytes * 1_024.0
}
