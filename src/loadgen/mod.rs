//! Load generators, and the floor to compare a server with.
//!
//! A generator must cost far less than what it measures: requests are copied from templates, replies are read where the kernel
//! put them, everything that one receive made possible leaves in one send, and the clock is read once per wake-up.
//! All figures are closed loop: they show capacity and CPU, not the latency that an open arrival process would see.

mod bare_responder;
mod closed_loop;
mod cpu;
mod read_write_ratio;
mod recorder;
mod report;
mod requests;

pub use bare_responder::{BareResponderConfig, serve_bare};
pub use cpu::{CpuReading, CpuUse};
pub use read_write_ratio::{LoadError, RatioConfig, run_ratio};
pub use report::{BenchReport, Latency, RatioReport, ServerCpu};

#[cfg(test)]
mod tests;
