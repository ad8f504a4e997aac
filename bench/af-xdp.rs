//! What does the AF_XDP link cost beside a reflector that is as small as can be?
//!
//! `cargo bench --bench af-xdp -- [ROUNDS] [SECONDS]`, as root. One end of a veth pair has a program that sends back
//! all that it receives, the other a reflector in user memory, so that 128 frames go round for ever: in turns
//! holdline's link with a loop in the place of the stack, which copies each frame as the stack would write one, and
//! bench/bare/reflector.c. Both ends have threaded NAPI on the first core, the reflectors have the second. Printed
//! are packets a second, the median of the rounds, and the median of the ratios of the two in each round.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdline::link::af_xdp::{AfXdp, AfXdpOptions, Interface, Steering};
use holdline::link::{AfXdpError, Link, interface, veth};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;

/// Both are ours, as frames go round with their addresses swapped.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 81, 0, 1), Ipv4Addr::new(10, 81, 0, 2)];

/// Frames that go round.
const FRAMES: usize = 128;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (rounds, seconds) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(2));
    let scratch = tempfile::tempdir()?;
    let bare = scratch.path().join("reflector");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/bare/reflector.c");
    run(Command::new("cc").args(["-O2", "-o"]).arg(&bare).arg(source))?;
    lay_cable()?;
    let mut bounce = Bounce::start(&bare)?;
    pin_drivers()?;
    pin(Pid::from_raw(0), 1)?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let own = reflect(Duration::from_secs(seconds))?;
        let least = reflect_barely(&bare, seconds)?;
        println!("round {round}: holdline {own:.0}, bare {least:.0} packets a second, {:.3}", own / least);
        ours.push(own);
        theirs.push(least);
        ratios.push(own / least);
    }
    println!(
        "medians: holdline {:.0}, bare {:.0} packets a second; of the ratios {:.3}",
        median(ours),
        median(theirs),
        median(ratios)
    );
    bounce.0.kill()?;
    bounce.0.wait()?;
    Ok(())
}

fn lay_cable() -> Result<(), Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing)?;
    veth::make_pair("near", "far")?;
    for name in ["near", "far"] {
        interface::bring_up(name)?;
        // NAPI is there without a program, too, and can be told to be a thread.
        run(Command::new("ethtool").args(["-K", name, "gro", "on"]))?;
        fs::write(format!("/sys/class/net/{name}/threaded"), "1")?;
    }
    Ok(())
}

/// The threads of both ends' drivers.
fn pin_drivers() -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("napi/near") || name.starts_with("napi/far") {
            pin(Pid::from_raw(id), 0)?;
        }
    }
    Ok(())
}

fn pin(process: Pid, core: usize) -> Result<(), Box<dyn Error>> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(process, &cores)?)
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    status.success().then_some(()).ok_or_else(|| format!("{command:?}: {status}").into())
}

/// The far end, as long as its input is open.
struct Bounce(Child);

impl Bounce {
    fn start(bare: &Path) -> Result<Bounce, Box<dyn Error>> {
        let mut command = Command::new(bare);
        let mut child = command.args(["bounce", "far"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("it has an output")?).read_line(&mut line)?;
        (line == "ready\n").then_some(Bounce(child)).ok_or_else(|| "the far end cannot be attached to".into())
    }
}

/// Packets a second that holdline's link reflects.
fn reflect(time: Duration) -> Result<f64, Box<dyn Error>> {
    let mut link: Box<dyn Link> = Box::new(open()?);
    let mac = link.mac();
    let mut frame = [0xff; 60];
    frame[6..12].copy_from_slice(&mac);
    frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 253, 0, 0]);
    frame[26..30].copy_from_slice(&ENDS[0].octets());
    frame[30..34].copy_from_slice(&ENDS[1].octets());
    for _ in 0..FRAMES {
        assert!(link.send(&frame)?, "the ring is empty");
    }
    link.flush()?;
    let (mut gate, mut ends, mut reflected) = (Vec::new(), Vec::new(), 0u64);
    let begun = Instant::now();
    while begun.elapsed() < time {
        gate.clear();
        ends.clear();
        for frame in link.receive()?.iter() {
            let start = gate.len();
            gate.extend_from_slice(&frame[6..12]);
            gate.extend_from_slice(&frame[..6]);
            gate.extend_from_slice(&frame[12..26]);
            gate.extend_from_slice(&frame[30..34]);
            gate.extend_from_slice(&frame[26..30]);
            gate.extend_from_slice(&frame[34..]);
            ends.push((start, gate.len()));
        }
        for &(start, end) in &ends {
            while !link.send(&gate[start..end])? {
                link.flush()?;
            }
        }
        link.flush()?;
        reflected += ends.len() as u64;
        if let (true, Some(descriptor)) = (ends.is_empty(), link.descriptor()) {
            let most_ms = link.pause().map_or(10u8, |_| 1);
            poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::from(most_ms))?;
        }
    }
    assert_eq!(link.frames_lost(), 0, "frames were lost on their way round");
    Ok(reflected as f64 / begun.elapsed().as_secs_f64())
}

/// The queue, which may be busy for a while after its last owner.
fn open() -> Result<AfXdp, AfXdpError> {
    let steering = Steering { addresses: ENDS.map(Into::into).to_vec(), ..Steering::default() };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let interface = Interface::open("near", &steering, AfXdpOptions::default())?;
        match interface.queue(0) {
            Err(AfXdpError::QueueTaken { .. }) if Instant::now() < until => {}
            opened => return opened,
        }
    }
}

/// Packets a second that the bare one reflects.
fn reflect_barely(bare: &Path, seconds: u64) -> Result<f64, Box<dyn Error>> {
    let (seconds, frames) = (seconds.to_string(), FRAMES.to_string());
    let output = Command::new(bare).args(["reflect", "near", &seconds, &frames]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.trim().parse().map_err(|_| format!("the bare reflector has failed: {said}").into())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
