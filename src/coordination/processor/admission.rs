//! Whether there is room in the log for what is to be validated next (rule B11).
//!
//! The log is asked before validation, for the most that the next requests can take: those of about one flush, or the first alone
//! if that is longer or if there is no room for more. What has no room on the disk is refused and was never proposed. What must wait
//! for the log to catch up waits in the queue, and whoever gave [`Room::Busy`] sees to a turn when there is room.

use super::sequencer::Sequencer;
use super::txn_room::TXN_ROOM_MIN;

/// The answer of the log to a question for room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It is there until the end of this turn.
    Granted {
        /// The log has found no room for its next segment, and lives on what it has.
        short: bool,
    },
    /// It will be there when the log has written more, or has made a segment.
    Busy,
    /// There is none on the disk, for this reason.
    None(String),
    /// The log takes nothing any more, for this reason.
    Stopped(String),
}

/// What may be done in this turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Validate what takes at most so many bytes.
    Bytes(usize),
    /// Requests must wait for the log.
    Wait,
    /// Refuse the first request, and those behind it that need as much.
    Refuse,
    /// The server must not go on.
    Stop(String),
}

/// What the operator should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionNews {
    /// Writes are refused from now on, for this reason.
    NoRoom(String),
    /// Writes are accepted again.
    RoomAgain,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Admission {
    /// The last question found no room on the disk: clients may be unable to come back, so nobody is expired.
    refusing: bool,
    /// The operator knows. Small writes may pass all the same, so refusing comes and goes.
    told: bool,
    waiting: bool,
}

impl Admission {
    /// Asks `log` for room for what `sequencer` would validate next.
    pub fn admit(
        &mut self,
        sequencer: &mut Sequencer,
        mut log: impl FnMut(usize) -> Room,
    ) -> (Admitted, Option<AdmissionNews>) {
        self.waiting = false;
        let wanted = sequencer.room_wanted();
        let probe = TXN_ROOM_MIN;
        let (all, first) = match wanted {
            Some(wanted) => (wanted.all, wanted.first),
            // Whoever refuses asks again even when nothing is queued: expiry waits for that.
            None if self.refusing || self.told => (probe, probe),
            None => return (Admitted::Bytes(0), None),
        };
        let mut bytes = all;
        let mut room = log(all);
        if first < all && matches!(room, Room::Busy | Room::None(_)) {
            (bytes, room) = (first, log(first));
        }
        match room {
            Room::Granted { short } => {
                self.refusing = false;
                let again = !short && std::mem::take(&mut self.told);
                (Admitted::Bytes(bytes), again.then_some(AdmissionNews::RoomAgain))
            }
            Room::Busy => {
                self.waiting = wanted.is_some();
                (Admitted::Wait, None)
            }
            Room::None(reason) => {
                self.refusing = true;
                let news = (!std::mem::replace(&mut self.told, true)).then_some(AdmissionNews::NoRoom(reason));
                (if wanted.is_some() { Admitted::Refuse } else { Admitted::Wait }, news)
            }
            Room::Stopped(reason) => (Admitted::Stop(reason), None),
        }
    }

    /// True while writes are refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// True when requests wait for the log to catch up.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }
}
