//! The clock of expiry: it counts only time in which every client could be heard.

use crate::base::ShardId;

/// Rule B13, and more: a session may only expire for its own silence. The clock stands still
/// - while a shard does not report whom it heard of: its clients may have spoken (the reports travel in the same FIFO as what they
///   report, so a report that has come says that everything before it has come, too);
/// - while clients are not read, or cannot come back, because the server has no room for what they would ask;
/// - for all of a gap between two of its turns but one tick: the process was frozen.
#[derive(Debug)]
pub struct Hearing {
    tick_ms: i64,
    /// When each shard last reported.
    reported_ms: Vec<i64>,
    /// Since when clients cannot be heard, if so.
    deaf_since_ms: Option<i64>,
    /// For how long they could not be heard before, altogether.
    deaf_ms: i64,
    /// The clock at its last turn, up to when everybody had been heard then, and `deaf_ms` up to then.
    clock_ms: i64,
    heard_ms: i64,
    deaf_at_turn_ms: i64,
}

impl Hearing {
    /// A clock that begins now. It turns at least once in `tick_ms`.
    pub fn new(shards: usize, tick_ms: u32, now_ms: i64) -> Hearing {
        Hearing {
            tick_ms: i64::from(tick_ms.max(1)),
            reported_ms: vec![now_ms; shards],
            deaf_since_ms: None,
            deaf_ms: 0,
            clock_ms: now_ms,
            heard_ms: now_ms,
            deaf_at_turn_ms: 0,
        }
    }

    /// `shard` has reported whom it heard of.
    pub fn reported(&mut self, shard: ShardId, now_ms: i64) {
        if let Some(reported_ms) = self.reported_ms.get_mut(shard.index()) {
            *reported_ms = now_ms;
        }
    }

    /// Clients cannot be heard from now on, or can again.
    pub fn set_deaf(&mut self, deaf: bool, now_ms: i64) {
        match (deaf, self.deaf_since_ms) {
            (true, None) => self.deaf_since_ms = Some(now_ms),
            (false, Some(since_ms)) => {
                self.deaf_ms += now_ms - since_ms;
                self.deaf_since_ms = None;
            }
            _ => {}
        }
    }

    /// For how long clients could not be heard since the start.
    pub fn deaf_ms(&self, now_ms: i64) -> i64 {
        self.deaf_ms + self.deaf_since_ms.map_or(0, |since_ms| now_ms - since_ms)
    }

    /// A turn of the clock: what it shows now.
    pub fn turn(&mut self, now_ms: i64) -> i64 {
        let heard_ms = self.reported_ms.iter().copied().min().unwrap_or(now_ms).min(now_ms);
        let deaf_ms = self.deaf_ms(now_ms);
        let heard_for_ms = heard_ms - self.heard_ms - (deaf_ms - self.deaf_at_turn_ms);
        self.clock_ms += heard_for_ms.clamp(0, self.tick_ms);
        self.heard_ms = heard_ms;
        self.deaf_at_turn_ms = deaf_ms;
        self.clock_ms
    }

    /// What the clock shows at most when it turns next: a session that is heard of now is silent from then on.
    pub fn clock_at(&self, now_ms: i64) -> i64 {
        self.clock_ms + (now_ms - self.heard_ms).clamp(0, self.tick_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(hearing: &mut Hearing, now_ms: i64) -> i64 {
        (0..2).for_each(|shard| hearing.reported(ShardId(shard), now_ms));
        hearing.turn(now_ms)
    }

    /// The clock of a server that hears everybody is the clock on the wall.
    #[test]
    fn clock_goes_while_everybody_is_heard() {
        let mut hearing = Hearing::new(2, 100, 1000);
        for i in 1..=20 {
            assert_eq!(turn(&mut hearing, 1000 + 50 * i), 1000 + 50 * i);
        }
        assert_eq!((hearing.clock_at(2030), hearing.clock_at(9000)), (2030, 2100));
    }

    /// A server frozen for 30 s must not expire everybody on waking: nobody could have been heard.
    #[test]
    fn frozen_server_counts_one_tick() {
        let mut hearing = Hearing::new(2, 100, 0);
        turn(&mut hearing, 100);
        assert_eq!(turn(&mut hearing, 30_100), 200);
        assert_eq!(turn(&mut hearing, 30_150), 250);
    }

    /// One shard is frozen, and the shard of the clock is not: the clients of the frozen one may have spoken.
    #[test]
    fn clock_waits_for_the_reports_of_every_shard() {
        let mut hearing = Hearing::new(2, 100, 0);
        turn(&mut hearing, 100);
        for now_ms in (150..30_000).step_by(50) {
            hearing.reported(ShardId(0), now_ms);
            assert_eq!(hearing.turn(now_ms), 100);
        }
        assert_eq!(turn(&mut hearing, 30_000), 200);
    }

    /// The disk stalls, clients are not read for 30 s, and their deadlines pass: the time counts for nobody, however it lies to the
    /// turns of the clock.
    #[test]
    fn time_without_hearing_does_not_count() {
        let mut hearing = Hearing::new(2, 100, 0);
        turn(&mut hearing, 50);
        hearing.set_deaf(true, 60);
        hearing.set_deaf(true, 70);
        for i in 1..600 {
            assert_eq!(turn(&mut hearing, 50 + 50 * i), 60);
        }
        hearing.set_deaf(false, 30_010);
        assert_eq!(turn(&mut hearing, 30_050), 100);
        // Short ones between two turns count, too.
        hearing.set_deaf(true, 30_060);
        hearing.set_deaf(false, 30_080);
        assert_eq!((turn(&mut hearing, 30_100), hearing.deaf_ms(30_100)), (130, 29_970));
    }
}
