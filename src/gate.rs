//! A gate lets one thread through at a time, in the order in which they came.
//!
//! With a thread per client, the memory that one command may take can be taken ten thousand times at once.
//! Behind a gate it is taken once. A mutex would do that too, but std's mutex has no order, so a thread
//! might wait for ever:
//!
//! ```text
//! pass() ─▶ free: through at once
//!        └▶ taken: to the end of the queue ── waits ──▶ the one before leaves ─▶ through
//! ```
//!
//! A thread that makes others wait, such as an EXEC that holds the keyspace, goes to the head of the
//! queue. A thread that waits at a gate must not hold a lock that a thread behind the gate may need
//! (call/long.rs).
//!
//! **How Redis does it**: it has one thread, which is one gate for everything.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};

#[derive(Default)]
pub struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    is_taken: bool,
    /// Wakes the threads that wait, the next one first.
    queue: VecDeque<Sender<()>>,
}

/// The right to be behind the gate. Its `Drop` lets the next thread through.
pub struct Passage<'a>(&'a Gate);

impl Gate {
    /// Waits until all threads that came before have left.
    pub fn pass(&self) -> Passage<'_> {
        self.enter(VecDeque::push_back)
    }

    /// Waits only until the one behind the gate has left: for a thread that makes others wait.
    pub fn pass_next(&self) -> Passage<'_> {
        self.enter(VecDeque::push_front)
    }

    fn enter(&self, push: fn(&mut VecDeque<Sender<()>>, Sender<()>)) -> Passage<'_> {
        let mut state = self.0.lock().unwrap();
        if state.is_taken {
            let (wake, woken) = mpsc::channel();
            push(&mut state.queue, wake);
            drop(state);
            // The gate stays taken: the thread that leaves hands it over to this one.
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
    fn a_gate_lets_one_through_at_a_time_in_the_order_in_which_they_came() {
        let gate = Gate::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = gate.pass();
            for name in 0..10 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    // The last one makes others wait.
                    let _passage = if name == 9 { gate.pass_next() } else { gate.pass() };
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
        assert_eq!(*order.lock().unwrap(), [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!gate.0.lock().unwrap().is_taken);
    }
}
