//! A gate: it lets one through at a time, in the order in which they came.
//!
//! With a thread per client, what one command may take is taken ten thousand times at once. A gate
//! makes of a bound for one a bound for all. A mutex would do the same, but it lets in whoever comes in
//! the right moment, and somebody might wait for ever:
//!
//! ```text
//! pass() ─▶ free: through at once
//!        └▶ taken: to the end of the queue ── waits ──▶ the one before leaves ─▶ through
//! ```
//!
//! Who makes others wait, as an EXEC does that holds the keyspace, goes to the head of the queue.
//! Who waits at a gate must hold no lock that the one who has passed may ask for (call/long.rs).
//!
//! **How Redis does it**: it has one thread, and so one gate for everything.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};

/// Free at first.
#[derive(Default)]
pub struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    is_taken: bool,
    /// How to wake those who wait, the first of them first.
    queue: VecDeque<Sender<()>>,
}

/// Whoever has this has passed; dropped, it lets the next one through.
pub struct Passage<'a>(&'a Gate);

impl Gate {
    /// Waits until all who came before have left.
    pub fn pass(&self) -> Passage<'_> {
        self.enter(|queue, wake| queue.push_back(wake))
    }

    /// Waits until the one who has passed has left, and for nobody else: for who makes others wait.
    pub fn pass_next(&self) -> Passage<'_> {
        self.enter(|queue, wake| queue.push_front(wake))
    }

    fn enter(&self, queue_up: impl FnOnce(&mut VecDeque<Sender<()>>, Sender<()>)) -> Passage<'_> {
        let mut state = self.0.lock().unwrap();
        if state.is_taken {
            let (wake, woken) = mpsc::channel();
            queue_up(&mut state.queue, wake);
            drop(state);
            // Who wakes it leaves the gate taken.
            let _ = woken.recv();
        } else {
            state.is_taken = true;
        }
        Passage(self)
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap();
        match state.queue.pop_front() {
            Some(next) => drop(next.send(())),
            None => state.is_taken = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn who_makes_others_wait_is_the_next() {
        let gate = Gate::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = gate.pass();
            for name in 0..10 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let _passage = match name {
                        9 => gate.pass_next(),
                        _ => gate.pass(),
                    };
                    order.lock().unwrap().push(name);
                });
                while gate.0.lock().unwrap().queue.len() <= name {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap()[..2], [9, 0]);
    }

    #[test]
    fn a_gate_lets_one_through_at_a_time_in_the_order_in_which_they_came() {
        let gate = Gate::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = gate.pass();
            for name in 0..10 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let _passage = gate.pass();
                    assert!(gate.0.lock().unwrap().is_taken);
                    order.try_lock().expect("nobody else has passed").push(name);
                });
                while gate.0.lock().unwrap().queue.len() <= name {
                    thread::yield_now();
                }
            }
            assert!(order.lock().unwrap().is_empty());
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
        assert!(!gate.0.lock().unwrap().is_taken);
    }
}
