//! The transaction log: whatever crashes, cuts and damage leave, recovery gives back a prefix of what was appended, in order,
//! with all that was acknowledged; or it refuses, or nothing is left on the disk that could tell it better. It never invents a
//! record, and a log that nobody damaged is never refused.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringkeeper::log::format::Life;
use ringkeeper::log::position::Position;
use ringkeeper::log::recovery::RecoveryOptions;
use ringkeeper_fuzz::allocation::bounded;
use ringkeeper_fuzz::log_disk::Damage;
use ringkeeper_fuzz::log_forgery::{ForgedSegment, forge};
use ringkeeper_fuzz::log_history::{Event, History};

#[derive(Arbitrary, Debug)]
enum Case {
    /// What may really happen.
    History { sync: bool, events: Vec<Event> },
    /// What no writer of ours leaves: only a verdict within bounded memory is asked for.
    Forgery { segments: Vec<ForgedSegment>, damages: Vec<Damage>, from: u8, discard_after: Option<u8> },
}

fuzz_target!(|case: Case| {
    match case {
        Case::History { sync, events } => History::new(sync).run(events.into_iter().take(64).collect()),
        Case::Forgery { segments, damages, from, discard_after } => {
            let mut disk = forge(&segments);
            damages.into_iter().take(4).for_each(|damage| disk.damage(damage));
            let discard_after = discard_after.map(|position| Position((position % 16).into()));
            let from = Position((from % 16).into());
            let options = RecoveryOptions { discard_after, ..RecoveryOptions::new(from, Life::NONE) };
            let (recovered, records) = bounded((64 << 10) + 6 * disk.bytes(), || disk.recover(options));
            assert!(records.is_sorted_by(|one, other| one.0 < other.0), "records grow");
            assert!(records.iter().all(|(position, _)| *position > from), "only what is asked for");
            let _ = recovered.resume(7);
        }
    }
});
