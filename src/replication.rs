//! Replication: other servers have the same data, and follow each change.
//!
//! ```text
//! replica                              we, the primary
//! PING, AUTH, REPLCONF, PSYNC ? -1 ──▶ the log is marked here
//!                 +FULLRESYNC id 70 ◀─ its files up to the mark are replayed into a private keyspace,
//!                        a snapshot ◀─ which is written as RDB (rdb.rs), straight to the socket
//! REPLCONF ACK 70 ───────────────────▶
//!    SELECT 0  SET a 1  PING  DEL b ◀─ the log's files from the mark on, as they grow
//! REPLCONF ACK 151, each second ─────▶ WAIT, INFO, ROLE
//!
//! PSYNC id 152, after a break ───────▶
//!                      +CONTINUE id ◀─ the same files, from that place on
//! ```
//!
//! **The log is the stream.** What was acknowledged is in the kernel's file. So a thread that reads that file and
//! writes to the replica's socket sends all that was acknowledged, nothing else, and in order. No writer waits
//! for it, and it takes no memory however far it is behind. The price: replicas need the log.
//!
//! Chapters: which bytes of which files (aof/backlog.rs), who follows and how far (server/replicas.rs),
//! the thread that sends (replication/primary.rs), the commands (handler/replication.rs). And the other way round: whom
//! we follow (server/primary.rs), the thread that follows (replication/replica.rs), what it runs (call/follow.rs), and
//! how a start knows where that was (store/origin.rs).
//!
//! **What is not sent.** PUBLISH: it changes no data, so it is not in the log. A replica's subscribers do not hear
//! it.
//!
//! **How Redis does it**: replication.c. The snapshot comes from a fork, and the stream from memory.

mod link;
pub mod primary;
pub mod replica;
