//! Signals that end a process.

use crate::runtime::StopSignal;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

/// Raises `stop` on SIGINT and SIGTERM, from a thread of its own.
///
/// SIGXFSZ says that a file would grow past the limit on file size. The write fails as well and is answered for there; by default the
/// signal would end the process, so it is taken and ignored.
pub fn stop_on_signals(stop: StopSignal) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGXFSZ])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal != SIGXFSZ {
                tracing::info!("stopping on signal {signal}");
                return stop.stop();
            }
        }
    })?;
    Ok(())
}
