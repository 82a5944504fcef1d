//! DEBUG RELOAD and DEBUG LOADAOF: reading back what is written, to see that nothing is lost on the way.

use super::base;
use crate::aof::disk;
use crate::aof::load::{self, Replay};
use crate::aof::{Aof, start::cannot_write};
use crate::rdb::{self, How};
use crate::store::Keyspace;
use std::path::Path;

impl Aof {
    /// Writes the keyspace to a file as a snapshot, and reads that.
    pub fn replay_base_of(&self, keyspace: &Keyspace, run: &mut Replay) -> Result<(), String> {
        let path = self.directory().join(format!("temp-reload-{}.rdb", std::process::id()));
        let how = How::of(&self.config, false);
        let written = base::synced(&path, |out| rdb::write(out, keyspace, how, &mut |_| {}));
        let written = written.map_err(cannot_write(&path));
        let result = written.and_then(|()| replay_file(&path, run));
        let _ = disk::remove_file(&path);
        result
    }

    /// Replays the log. The caller holds the keyspace, so nothing is appended meanwhile.
    pub fn replay_again(&self, run: &mut Replay) -> Result<(), String> {
        self.commit(self.position())?;
        let (manifest, _lock) = self.in_use().ok_or("the log is switched off")?;
        manifest.paths().try_for_each(|path| replay_file(&path, run))
    }
}

/// Other servers' annotations may be missing at the end, so it does not count as sealed.
fn replay_file(path: &Path, run: &mut Replay) -> Result<(), String> {
    let (_, result) = load::replay(path, false, run, &mut |_| {});
    result.map(drop).map_err(|stop| stop.of(path))
}
