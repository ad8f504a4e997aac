//! The Linux kernel as the peer, over real links in private network namespaces.
//!
//! What needs root says so on one line and passes when it is not there; `.ci/run` runs it all. Nothing here touches
//! the machine's own network.

mod af_xdp;
mod broadcast;
mod capture;
mod demo;
mod echo;
mod icmp;
mod kill;
mod pair;
mod raw;
mod reference;
mod scripts;
mod serve;
mod shared;
mod steer;
mod support;
mod workers;
