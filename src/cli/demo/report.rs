//! What the demo has found: a table for people, JSON for programs, and the verdict.

use std::fmt;

use serde::Serialize;

use super::super::progress::grouped;
use super::crew::Plan;
use super::drive::Figures;

/// The JSON of `--json`. Its fields and their order are a promise.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    clients: u32,
    connected: u32,
    failed: u32,
    pushes: u64,
    delivered: u64,
    wrong_bytes: u64,
    server_bytes_per_connection: f64,
    setup_per_s: f64,
    push_per_s: f64,
    latency_us: Quantiles,
    #[serde(skip)]
    beside: Beside,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

/// What only the table shows.
#[derive(Clone, Copy, Debug)]
struct Beside {
    rounds: u32,
    payload_bytes: u64,
    bytes: u64,
    rest_s: u32,
    server_bytes_after: f64,
    kernel_bytes: f64,
}

impl Report {
    /// From what was planned and what was measured; `rest_s`: how long after the pushes memory was read last.
    pub fn new(plan: Plan, rest_s: u32, figures: &Figures) -> Report {
        let [before, idle, after] = figures.memory;
        let (server_idle, kernel_bytes) = idle.growth_per(before, figures.connected.into());
        let (server_bytes_after, _) = after.growth_per(before, figures.connected.into());
        let us = |share| figures.latencies.quantile(share).map_or(0.0, |latency| latency.as_micros() as f64);
        let per_s = |count: u64, seconds: f64| if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 };
        Report {
            clients: plan.clients,
            connected: figures.connected,
            failed: figures.failed,
            pushes: figures.pushes,
            delivered: figures.delivered,
            wrong_bytes: figures.wrong_bytes,
            server_bytes_per_connection: (server_idle * 10.0).round() / 10.0,
            setup_per_s: per_s(figures.connected.into(), figures.setup.as_secs_f64()),
            push_per_s: per_s(figures.delivered, figures.pushing.as_secs_f64()),
            latency_us: Quantiles { p50: us(0.5), p99: us(0.99) },
            beside: Beside {
                rounds: plan.rounds,
                payload_bytes: plan.payload_bytes as u64,
                bytes: figures.bytes,
                rest_s,
                server_bytes_after,
                kernel_bytes,
            },
        }
    }

    /// What is missing or wrong, if anything is.
    pub fn verdict(&self) -> Option<String> {
        let planned = u64::from(self.clients) * u64::from(self.beside.rounds);
        let bytes = planned * self.beside.payload_bytes;
        let is_well = self.connected == self.clients
            && self.failed == 0
            && self.pushes == planned
            && self.delivered == planned
            && self.wrong_bytes == 0
            && self.beside.bytes == bytes;
        (!is_well).then(|| {
            format!(
                "not all is well: {} of {} connections, {} of {planned} pushes acknowledged, {} of {bytes} bytes \
                 received, {} wrong",
                self.connected, self.clients, self.delivered, self.beside.bytes, self.wrong_bytes
            )
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Beside { rounds, payload_bytes, rest_s, server_bytes_after, kernel_bytes, .. } = self.beside;
        let after = if rest_s > 0 { format!("{rest_s} s after") } else { "right after".to_owned() };
        let whole = |figure: f64| grouped(figure.max(0.0) as u64);
        let rows = [
            ("connections", format!("{} of {}", grouped(self.connected.into()), grouped(self.clients.into()))),
            ("failures", grouped(self.failed.into())),
            (
                "pushes",
                format!(
                    "{} of {payload_bytes} bytes in {rounds} rounds, {} acknowledged, {} wrong bytes",
                    grouped(self.pushes),
                    grouped(self.delivered),
                    grouped(self.wrong_bytes)
                ),
            ),
            (
                "server memory",
                format!(
                    "{:.1} bytes a connection when idle, {server_bytes_after:.1} {after} the pushes (1)",
                    self.server_bytes_per_connection
                ),
            ),
            ("kernel memory", format!("{kernel_bytes:.0} bytes a connection for the clients' own sockets (2)")),
            ("set-up rate", format!("{} connections/s", whole(self.setup_per_s))),
            ("push rate", format!("{} pushes/s", whole(self.push_per_s))),
            (
                "push to receipt",
                format!("p50 {} us, p99 {} us", whole(self.latency_us.p50), whole(self.latency_us.p99)),
            ),
        ];
        for (name, figure) in rows {
            writeln!(formatter, "{name:<17}{figure}")?;
        }
        writeln!(formatter, "(1) growth of VmRSS + HugetlbPages of this process; the demo's own table of connections")?;
        writeln!(formatter, "    and the queues between its threads are allocated before, and no part of it")?;
        writeln!(formatter, "(2) growth of Slab in /proc/meminfo over the same time, of the whole machine: socket,")?;
        write!(formatter, "    inode, file, dentry and epoll entry of each client socket")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdline::server::Histogram;

    use super::super::super::memory::Memory;
    use super::*;

    fn report(change: impl FnOnce(&mut Figures)) -> Report {
        let memory = |process_bytes| Memory { process_bytes, slab_bytes: process_bytes * 40 };
        let mut latencies = Histogram::default();
        latencies.record(Duration::from_micros(50));
        let mut figures = Figures {
            memory: [memory(1_000), memory(8_250), memory(9_000)],
            connected: 100,
            failed: 0,
            pushes: 300,
            delivered: 300,
            bytes: 300 * 64,
            wrong_bytes: 0,
            setup: Duration::from_millis(100),
            pushing: Duration::from_millis(600),
            latencies,
        };
        change(&mut figures);
        Report::new(Plan::new(100, 3, 64, 1024), 0, &figures)
    }

    #[test]
    fn the_json_is_as_promised() {
        let json = serde_json::to_string(&report(|_| {})).expect("plain data");
        assert_eq!(
            json,
            "{\"clients\":100,\"connected\":100,\"failed\":0,\"pushes\":300,\"delivered\":300,\"wrong_bytes\":0,\
             \"server_bytes_per_connection\":72.5,\"setup_per_s\":1000.0,\"push_per_s\":500.0,\
             \"latency_us\":{\"p50\":50.0,\"p99\":50.0}}"
        );
    }

    #[test]
    fn anything_missing_or_wrong_is_told() {
        assert_eq!(report(|_| {}).verdict(), None);
        let wrongs: [fn(&mut Figures); 6] = [
            |figures| figures.connected -= 1,
            |figures| figures.failed += 1,
            |figures| figures.pushes -= 1,
            |figures| figures.delivered -= 1,
            |figures| figures.bytes += 1,
            |figures| figures.wrong_bytes += 1,
        ];
        for wrong in wrongs {
            assert!(report(wrong).verdict().is_some());
        }
    }

    #[test]
    fn the_table_has_every_figure() {
        let table = report(|_| {}).to_string();
        for part in ["100 of 100", "300 acknowledged", "72.5 bytes", "2900 bytes", "1,000 connections/s", "p99 50 us"] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
    }
}
