//! `holdline sim`: runs seeded worlds and tells what happened in them.
//!
//! The exit status is 0 if every world ended well. A world that did not is printed with everything that was drawn for
//! it and the one command that repeats it.

use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use holdline::sim::{self, Parameters, Profile, Totals, World};
use strum::IntoEnumIterator;

use super::Outcome;

/// The flags of `sim`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The seed of one world.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,

    /// Worlds from seed A up to, not including, seed B.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    seeds: Seeds,

    /// Which trouble is drawn: calm, lossy, kills, tight or mixed.
    #[arg(long, value_name = "NAME", default_value_t, value_parser = parse_profile)]
    profile: Profile,

    /// Print every frame, notice and death of the world given by --seed.
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Stop at the first world that fails.
    #[arg(long)]
    first: bool,
}

/// A range of seeds, written `A..B`.
#[derive(Clone, Debug)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let wrong =
            || format!("{text:?} is no range of seeds; write two numbers as in 0..1000, the first the smaller one");
        let (from, until) = text.split_once("..").ok_or_else(wrong)?;
        let from: u64 = from.parse().map_err(|_| wrong())?;
        let until: u64 = until.parse().map_err(|_| wrong())?;
        if from < until { Ok(Seeds(from..until)) } else { Err(wrong()) }
    }
}

fn parse_profile(text: &str) -> Result<Profile, String> {
    text.parse().map_err(|_| {
        let names: Vec<&str> = Profile::iter().map(Into::into).collect();
        format!("there are {}", names.join(", "))
    })
}

/// Runs the worlds. The exit status is that of the worst.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut totals = Totals::default();
    if let Some(seed) = arguments.seed {
        let prepare = |world: World| if arguments.trace { world.spoken() } else { world };
        let report = sim::run_with(Parameters::draw(seed, arguments.profile), prepare);
        write!(io::stdout(), "{report}")?;
        totals.add(&report);
    } else {
        for seed in arguments.seeds.0.clone() {
            let report = sim::run(seed, arguments.profile);
            totals.add(&report);
            if report.breach.is_some() {
                writeln!(io::stdout(), "{report}")?;
                if arguments.first {
                    break;
                }
            }
        }
        write!(io::stdout(), "profile      {}\n{totals}", arguments.profile)?;
    }
    Ok(if totals.failed_seeds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
