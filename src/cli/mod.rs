//! The command line, for trying out the simulation.
pub mod sim;
