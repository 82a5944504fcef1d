//! A kill, a power cut, or an error at each call that the log makes to the disk, one after another, in what
//! is rare: a rewrite, the log switched on, a bare file moved to the others, a start.

use super::super::Aof;
use super::super::disk::simulated::{Disk, Fate, State};
use super::super::disk::{self, Opening};
use super::{Contents, Random, append, config, keyspace, replay_all, start_on, write};
use crate::config::Config;
use crate::store::Store;
use std::cell::RefCell;
use std::io::{ErrorKind, Write as _};
use std::rc::Rc;
use std::sync::Arc;

/// Before each call to the disk in `work`: the call, and what a process finds that starts then.
fn moments(disk: &Rc<Disk>, work: impl FnOnce()) -> Vec<(String, State)> {
    let moments: Rc<RefCell<Vec<(String, State)>>> = Rc::default();
    let (seen, owner) = (moments.clone(), Rc::downgrade(disk));
    disk.ask(move |call, path| {
        let state = owner.upgrade().expect("it is in use").as_it_is();
        let name = path.file_name().unwrap_or_default().display();
        seen.borrow_mut().push((format!("{call:?} {name}"), state));
        Fate::Works
    });
    work();
    disk.ask_nobody();
    moments.take()
}

/// The files in the log's directory that the manifest does not name.
fn rubbish(aof: &Aof) -> Vec<String> {
    let target = aof.target.lock().unwrap();
    let manifest = &target.as_ref().expect("the log is on").manifest;
    let files = disk::list(&manifest.directory).expect("a directory");
    let names = files.into_iter().map(|(name, _)| name);
    let listed = manifest.live().chain(&manifest.history);
    let is_listed = |name: &String| listed.clone().any(|entry| entry.name == *name);
    names.filter(|name| !is_listed(name) && !name.ends_with(".manifest")).collect()
}

/// Kills, and cuts the power, before each call of `work`. It turns a log with `old` in it into one with `new`.
fn kill_before_each_call(disk: &Rc<Disk>, old: &Contents, new: &Contents, work: impl FnOnce()) {
    let moments = moments(disk, work);
    assert!(moments.len() > 15, "{} calls", moments.len());
    let other = Disk::new();
    let config = config(&other, "everysec");
    let mut has_switched = false;
    let mut random = Random(1);
    for (call, state) in moments {
        for _ in 0..10 {
            other.put(state.clone());
            let cut = other.after_power_cut(&mut |bound| random.below(bound), false);
            other.put(cut);
            let (_, contents) = start_on(&config).expect("a start");
            assert!(contents == *old || contents == *new, "a cut before {call}");
        }
        other.put(state);
        for _ in 0..2 {
            let (aof, contents) = start_on(&config).expect("a start");
            has_switched |= contents == *new;
            let expected = if has_switched { new } else { old };
            assert_eq!(contents, *expected, "killed before {call}");
            // A base that no manifest names may be one that an older manifest does not know.
            let left = rubbish(&aof);
            let may_stay = left.is_empty() || left.len() == 1 && left[0].ends_with(".base.aof");
            assert!(may_stay, "killed before {call}: {left:?}");
            // And a rewrite works, with what is left in its way.
            let store = Store::new(keyspace(&contents));
            aof.rewrite(None, &store, &replay_all).expect("a rewrite");
            assert_eq!(rubbish(&aof), left, "killed before {call}, and a rewrite");
        }
    }
    assert!(has_switched || old == new);
}

/// A log with some keys in it.
fn filled(disk: &Rc<Disk>) -> (Aof, Arc<Config>, Contents) {
    let config = config(disk, "everysec");
    let (aof, mut contents) = start_on(&config).expect("a start");
    for serial in 1..30 {
        let key = format!("key{}", serial % 7);
        write(&aof, &[&format!("SET {key} {serial}")]);
        contents.insert(key, serial.to_string());
    }
    aof.sync_to(aof.position()).expect("a disk that works");
    (aof, config, contents)
}

#[test]
fn a_kill_before_any_call_of_a_rewrite_leaves_the_same_state() {
    let disk = Disk::new();
    let (aof, _, contents) = filled(&disk);
    let store = Store::new(keyspace(&contents));
    kill_before_each_call(&disk, &contents, &contents, || {
        aof.rewrite(None, &store, &replay_all).expect("a rewrite");
    });
    assert_eq!(rubbish(&aof), [""; 0]);
}

#[test]
fn a_kill_while_the_log_is_being_switched_on_leaves_the_old_state_or_the_new() {
    let disk = Disk::new();
    let (aof, config, old) = filled(&disk);
    assert!(config.set(&[(b"appendonly", b"no")]).is_ok());
    aof.disable();
    let mut new = old.clone();
    new.insert("unlogged".into(), "30".into());
    let store = Store::new(keyspace(&new));
    assert!(config.set(&[(b"appendonly", b"yes")]).is_ok());
    kill_before_each_call(&disk, &old, &new, || {
        let lock = aof.lock_directory().expect("a lock");
        aof.rewrite(Some(lock), &store, &replay_all).expect("a rewrite");
    });
    assert_eq!(rubbish(&aof), [""; 0]);
}

#[test]
fn a_kill_while_a_bare_file_is_moved_in_leaves_what_it_holds() {
    let disk = Disk::new();
    let bare = disk.root.join("appendonly.aof");
    let mut file = disk::open(&bare, Opening::New).expect("a new file");
    let write = file.write_all(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\n1\r\n");
    write.and_then(|()| file.sync_all()).expect("a disk that works");
    disk::sync_directory(&disk.root).expect("a disk that works");
    let contents = Contents::from([("key".into(), "1".into())]);
    let config = config(&disk, "everysec");
    kill_before_each_call(&disk, &contents, &contents, || {
        start_on(&config).expect("a start");
    });
}

/// The disk fails once, at the call with this number. Afterwards the result holds the name of the call, if
/// there were that many.
fn fail_at(disk: &Rc<Disk>, number: usize) -> Rc<RefCell<Option<String>>> {
    let failed: Rc<RefCell<Option<String>>> = Rc::default();
    let (told, mut count) = (failed.clone(), 0);
    disk.ask(move |call, path| {
        count += 1;
        if count != number {
            return Fate::Works;
        }
        let name = path.file_name().unwrap_or_default().display();
        *told.borrow_mut() = Some(format!("{call:?} {name}"));
        Fate::Fails(ErrorKind::StorageFull.into())
    });
    failed
}

#[test]
fn a_rewrite_that_fails_at_any_call_leaves_nothing_behind_and_takes_nothing_away() {
    for number in 1.. {
        let disk = Disk::new();
        let (aof, config, mut contents) = filled(&disk);
        let store = Store::new(keyspace(&contents));
        let failed = fail_at(&disk, number);
        let rewritten = aof.rewrite(None, &store, &replay_all);
        disk.ask_nobody();
        let Some(call) = failed.take() else {
            assert_eq!(rewritten, Ok(()));
            assert!(number > 15, "{number} calls");
            break;
        };
        assert_eq!(rubbish(&aof), [""; 0], "{call} failed");
        // Either the log goes on, or a rewrite from memory makes it whole.
        if aof.failure().is_none() {
            append(&aof, &["SET after 30"]);
            assert_eq!(aof.commit(aof.position()), Ok(()), "{call} failed");
            contents.insert("after".into(), "30".into());
        } else {
            assert!(rewritten.is_err(), "{call} failed");
            let healed = aof.rewrite(None, &store, &replay_all);
            assert_eq!((healed, aof.failure()), (Ok(()), None), "{call} failed");
            assert_eq!(rubbish(&aof), [""; 0], "{call} failed");
        }
        drop(aof);
        let (aof, found) = start_on(&config).expect("a start");
        assert_eq!(found, contents, "{call} failed");
        assert_eq!(rubbish(&aof), [""; 0], "{call} failed, and a start");
    }
}

#[test]
fn a_kill_while_other_data_comes_leaves_the_old_state_or_the_new() {
    let disk = Disk::new();
    let (aof, _, old) = filled(&disk);
    let new = Contents::from([("other".into(), "1".into())]);
    let store = Store::new(keyspace(&old));
    kill_before_each_call(&disk, &old, &new, || {
        aof.exchange(&store, keyspace(&new), &|| Ok(true)).expect("it works");
    });
    assert_eq!(rubbish(&aof), [""; 0]);
}

#[test]
fn other_data_is_in_memory_and_in_the_log_or_in_neither_whatever_call_fails() {
    for number in 1.. {
        let disk = Disk::new();
        let (aof, config, old) = filled(&disk);
        let new = Contents::from([("other".into(), "1".into())]);
        let store = Store::new(keyspace(&old));
        let failed = fail_at(&disk, number);
        let result = aof.exchange(&store, keyspace(&new), &|| Ok(true));
        disk.ask_nobody();
        let Some(call) = failed.take() else {
            assert_eq!(result, Ok(()));
            assert!(number > 10, "{number} calls");
            break;
        };
        let is_new = store.read_when_free().size(0).0 == new.len();
        assert_eq!(is_new, result.is_ok(), "{call} failed");
        if aof.failure().is_some() {
            assert_eq!(aof.rewrite(None, &store, &replay_all), Ok(()), "{call} failed");
        }
        // Whoever cannot read the manifest does not know whose the old files are.
        let may_leave = call == "Open appendonly.aof.manifest";
        assert!(may_leave || rubbish(&aof).is_empty(), "{call} failed");
        drop(aof);
        let (_, found) = start_on(&config).expect("a start");
        assert_eq!(found, if is_new { new } else { old }, "{call} failed");
    }
}

#[test]
fn other_data_that_is_not_wanted_any_more_leaves_everything_as_it_was() {
    let disk = Disk::new();
    let (aof, config, old) = filled(&disk);
    let store = Store::new(keyspace(&old));
    assert!(aof.exchange(&store, keyspace(&Contents::new()), &|| Err("no".into())).is_err());
    assert_eq!(rubbish(&aof), [""; 0]);
    append(&aof, &["SET key1 29"]);
    assert_eq!(aof.commit(aof.position()), Ok(()));
    drop(aof);
    let mut wanted = old;
    wanted.insert("key1".into(), "29".into());
    assert_eq!(start_on(&config).expect("a start").1, wanted);
}

#[test]
fn a_start_that_fails_at_any_call_takes_nothing_away() {
    for number in 1.. {
        let disk = Disk::new();
        let (aof, config, contents) = filled(&disk);
        drop(aof);
        let failed = fail_at(&disk, number);
        let started = start_on(&config).map(|(_, found)| found);
        disk.ask_nobody();
        let Some(call) = failed.take() else {
            assert!(number > 5, "{number} calls");
            break;
        };
        // After an fsync that failed there is no start, because the next fsync would not notice what is lost.
        assert!(started.is_err() || !call.starts_with("Sync"), "{call}");
        let (_, found) = start_on(&config).expect("a start");
        assert_eq!(found, contents, "{call} failed");
    }
}
