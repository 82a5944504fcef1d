//! What a batch leaves to be sent to subscribers: the events of its commands, and what PUBLISH has published.
//!
//! Both are gathered in the order in which they happened, and join the queue of the hub (pubsub.rs) when the
//! lock is given back. In an EXEC that may be long after them:
//!
//! ```text
//! EXEC   SET k 1   PUBLISH c m   SET k 2   │ the lock is given back
//!        └ kept ┘  └ gather ───┘ └ kept ┘  └─▶ the hub: `set`, m, `set`, one position for all
//! ```
//!
//! **How Redis does it**: it writes each message into the buffers of its receivers at once.

use super::Batch;
use crate::client::Client;
use crate::held::Charge;
use crate::notify;
use crate::propagate::Source;
use crate::pubsub::Parcel;

impl Batch<'_> {
    /// Runs a handler that may publish or subscribe. What it publishes is gathered behind the events so far.
    pub fn run_and_gather<R>(
        &mut self,
        client: &mut Client,
        handler: impl FnOnce(&mut Client) -> R,
    ) -> R {
        self.gather_events();
        self.exchange_published(client);
        let result = handler(client);
        self.report.no_touch.set(client.no_touch);
        self.exchange_published(client);
        if !client.published.is_empty() {
            let messages = std::mem::take(&mut client.published);
            let none = Charge::new(&client.public.held);
            let charge = std::mem::replace(&mut client.publishing, none);
            self.parcels.push(Parcel::Published(messages, charge));
        }
        result
    }

    /// What was published last comes to the client, so that its next message may join it. A second call puts it back.
    fn exchange_published(&mut self, client: &mut Client) {
        if let Some(Parcel::Published(messages, charge)) = self.parcels.last_mut() {
            std::mem::swap(messages, &mut client.published);
            std::mem::swap(charge, &mut client.publishing);
        }
    }

    /// Hands over what is to be sent, before the lock is given back. While keys are noted as expired, it waits:
    /// they will be deleted, or the events that say so taken back.
    pub(super) fn tell(&mut self) {
        self.gather_events();
        if !self.parcels.is_empty() && !self.report.has_notes() {
            self.server.hub.keep(self.position, &mut self.parcels);
            self.has_told = true;
        }
    }

    fn gather_events(&mut self) {
        if !self.report.has_notes()
            && let Some(happened) = self.report.events.take()
        {
            self.parcels.push(self.server.hub.parcel(happened));
        }
    }

    /// Which events somebody wants to hear of. A replay has none.
    pub(super) fn read_wanted(&self) {
        let letters = self.server.config.notify_keyspace_events.get();
        let is_replay = self.time.source == Source::Log;
        let wanted = notify::parse(&letters).filter(|_| !is_replay);
        self.report.events.want(wanted.unwrap_or(0));
    }
}
