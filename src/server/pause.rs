//! CLIENT PAUSE: commands are postponed for a time. So are writes while SHUTDOWN waits for replicas.
//!
//! ```text
//! command ─▶ is it to be postponed? (call/admit.rs) ─ no ─▶ call
//!               ▲                                   └ yes: its batch ends; the replies before it leave
//!               │                                            │
//!               └────── the pause is over ◀── its thread sleeps, and no lock is held (serve/paused.rs)
//! ```
//!
//! `WRITE` postpones what writes or may be replicated, and an EXEC with such a command in its queue. `ALL`
//! postpones every command, CLIENT UNPAUSE too, but none of a monitor. Two pauses become one: the stricter kind,
//! until the later end. A SHUTDOWN that waits (server/shutdown.rs) pauses writes too, and CLIENT UNPAUSE does not
//! end that.
//!
//! - **The data stays as it is** from the OK on. CLIENT PAUSE begins under the shared lock. A writer that was
//!   admitted before, and then waits for its lock, looks again when it has it.
//! - **Expired keys are hidden**, and not deleted: the batch forgets what readers note (batch.rs).
//! - **A pause in an EXEC** begins for the others at once, and not for what follows in its queue.
//! - **Without a pause** it costs each command one load.
//!
//! At the end of the pause the commands run in the order in which they came. The first thread wakes up by itself or
//! by UNPAUSE, and when its commands have run, it wakes the next one ([`Asleep`]). Meanwhile none of them
//! looks at its socket. Cron looks at each once a second, and wakes a thread whose client has sent something or
//! has left. So thousands of paused clients use no processor.
//!
//! **How Redis does it**: `pauseClients` in networking.c, and `BLOCKED_POSTPONE` in blocked.c. There the end
//! is noticed up to a tenth of a second late. And there what comes after the end runs after what was postponed. Here
//! it may run before.

use super::{Public, Server, order};
use crate::stats::unix_microseconds;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// What has to wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Paused {
    Nothing,
    Writes,
    All,
}

/// See the chapter.
#[derive(Default)]
pub struct Pause {
    /// A [`Paused`]. After the end of the pause it stays what it was until somebody looks.
    what: AtomicU8,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By CLIENT PAUSE, until this Unix time in milliseconds.
    by_clients: Option<Paused>,
    end: i64,
    /// Because SHUTDOWN waits, until it says so.
    by_shutdown: bool,
    /// In the order in which they came.
    asleep: BTreeMap<u64, Postponed>,
    last: u64,
}

/// A thread that sleeps, or whose turn it is.
struct Postponed {
    client: u64,
    writes: bool,
    thread: Thread,
}

/// A thread is among those that are postponed, until this is dropped: when the command has run, or the client has
/// left. Then it is the turn of the next one.
pub struct Asleep<'a> {
    pause: &'a Pause,
    number: u64,
    writes: bool,
}

/// How long a thread sleeps that others have to wake.
const UNTIL_WOKEN: Duration = Duration::from_secs(3600);

impl Pause {
    /// Begins a pause of this many milliseconds, or makes the one that there is longer and stricter. The caller
    /// holds the keyspace, shared or not.
    pub fn begin(&self, what: Paused, ms: i64) {
        let mut state = self.state.lock().unwrap();
        let now = now();
        // As in Redis, what is too long for the clock is over at once.
        let end = if ms > 0 { now.wrapping_add(ms) } else { 0 };
        let (before, end) = match state.by_clients {
            before if state.end >= now => (before, end.max(state.end)),
            _ => (None, end),
        };
        if end >= now {
            (state.by_clients, state.end) = (before.max(Some(what)), end);
            self.look_again(&state);
        }
    }

    /// CLIENT UNPAUSE.
    pub fn end(&self) {
        let mut state = self.state.lock().unwrap();
        (state.by_clients, state.end) = (None, 0);
        self.look_again(&state);
        self.wake_next(&state);
    }

    /// SHUTDOWN waits, or does so no more. If it begins, the caller holds the keyspace, shared or not.
    pub fn wait_for_shutdown(&self, waits: bool) {
        let mut state = self.state.lock().unwrap();
        state.by_shutdown = waits;
        self.look_again(&state);
        self.wake_next(&state);
    }

    fn look_again(&self, state: &State) {
        let by_shutdown = state.by_shutdown.then_some(Paused::Writes);
        let what = state.by_clients.max(by_shutdown).unwrap_or(Paused::Nothing);
        self.what.store(what as u8, Ordering::Relaxed);
    }

    /// What has to wait, if the pause is not over.
    pub fn what(&self) -> Paused {
        match self.what.load(Ordering::Relaxed) {
            0 => Paused::Nothing,
            1 => Paused::Writes,
            _ => Paused::All,
        }
    }

    /// Whether the data stays as it is.
    pub fn is_on(&self) -> bool {
        self.what() != Paused::Nothing && self.left(true).is_some()
    }

    /// How long a command has to wait, which writes or not. None if it need not.
    pub fn left(&self, writes: bool) -> Option<Duration> {
        if !self.postpones(writes) {
            return None;
        }
        let mut state = self.state.lock().unwrap();
        // It lasts through its last millisecond.
        let left = u64::try_from(state.end - now()).ok();
        if left.is_none() && state.by_clients.take().is_some() {
            self.look_again(&state);
        }
        let left = left.map_or(UNTIL_WOKEN, |left| Duration::from_millis(left + 1));
        self.postpones(writes).then_some(left)
    }

    /// Whether a command has to wait, which writes or not, unless the pause is over.
    fn postpones(&self, writes: bool) -> bool {
        match self.what() {
            Paused::Nothing => false,
            Paused::Writes => writes,
            Paused::All => true,
        }
    }

    /// The calling thread, that of this client, is going to sleep before a command that writes or not.
    pub fn join(&self, client: u64, writes: bool) -> Asleep<'_> {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        let number = state.last;
        state.asleep.insert(number, Postponed { client, writes, thread: thread::current() });
        Asleep { pause: self, number, writes }
    }

    /// The number of the thread whose turn it is: the first that has not to wait any more.
    fn next(&self, state: &State) -> Option<u64> {
        let (number, _) = state.asleep.iter().find(|(_, next)| !self.postpones(next.writes))?;
        Some(*number)
    }

    fn wake_next(&self, state: &State) {
        if let Some(number) = self.next(state) {
            state.asleep[&number].thread.unpark();
        }
    }

    /// Ten times a second: wakes the threads whose clients are being ended, and of a tenth of the others those
    /// whose clients have sent something or have left.
    pub fn look_around(&self, server: &Server) {
        if self.what() == Paused::Nothing {
            return;
        }
        let state = self.state.lock().unwrap();
        let threads: HashMap<u64, Thread> =
            state.asleep.values().map(|next| (next.client, next.thread.clone())).collect();
        drop(state);
        let tick = server.idle_clock.load(Ordering::Relaxed) / 100;
        let has_news = |client: &Public| {
            client.held.is_ended() || client.id % 10 == tick % 10 && order::has_news(client)
        };
        for client in server.clients.those(threads.keys().copied()) {
            if has_news(&client) {
                threads[&client.id].unpark();
            }
        }
    }
}

impl Asleep<'_> {
    /// How long the calling thread has to sleep until it is woken or looks again. None if its turn has come.
    pub fn left(&self) -> Option<Duration> {
        self.pause.left(self.writes).or_else(|| {
            let state = self.pause.state.lock().unwrap();
            (self.pause.next(&state) != Some(self.number)).then_some(UNTIL_WOKEN)
        })
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        let mut state = self.pause.state.lock().unwrap();
        state.asleep.remove(&self.number);
        self.pause.wake_next(&state);
    }
}

fn now() -> i64 {
    (unix_microseconds() / 1000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_pauses_the_stricter_kind_and_the_later_end_hold() {
        let pause = Pause::default();
        let is_near = |ms: u64| {
            let left = pause.left(true).map_or(0, |left| left.as_millis() as u64);
            (ms - 5_000..=ms + 1).contains(&left)
        };
        pause.begin(Paused::Writes, 100_000);
        assert!(pause.what() == Paused::Writes && is_near(100_000));
        assert!(pause.left(false).is_none());
        pause.begin(Paused::All, 10_000);
        assert!(pause.what() == Paused::All && is_near(100_000));
        pause.begin(Paused::Writes, 200_000);
        assert!(pause.what() == Paused::All && is_near(200_000));
        assert!(pause.left(false).is_some());
        pause.end();
        assert!(pause.what() == Paused::Nothing && !pause.is_on());
    }

    #[test]
    fn a_pause_of_no_time_or_of_too_much_is_none() {
        let pause = Pause::default();
        for ms in [0, i64::MAX] {
            pause.begin(Paused::All, ms);
            assert!(pause.what() == Paused::Nothing);
        }
        // But it makes another one stricter.
        pause.begin(Paused::Writes, 100_000);
        pause.begin(Paused::All, 0);
        assert!(pause.what() == Paused::All);
    }

    #[test]
    fn a_pause_that_is_over_is_forgotten_by_whoever_looks() {
        let pause = Pause::default();
        pause.begin(Paused::All, 1);
        while pause.is_on() {
            thread::yield_now();
        }
        assert!(pause.what() == Paused::Nothing);
        pause.begin(Paused::Writes, 100_000);
        assert!(pause.what() == Paused::Writes, "not as strict as the one before");
    }

    #[test]
    fn what_shutdown_pauses_it_alone_lets_go_on() {
        let pause = Pause::default();
        pause.wait_for_shutdown(true);
        assert!(pause.left(true) == Some(UNTIL_WOKEN) && pause.left(false).is_none());
        pause.begin(Paused::All, 100_000);
        assert!(pause.left(false).is_some());
        pause.end();
        assert!(pause.is_on() && pause.left(false).is_none());
        pause.begin(Paused::All, 100_000);
        pause.wait_for_shutdown(false);
        assert!(pause.left(false).is_some());
        pause.end();
        assert!(!pause.is_on());
    }
}
