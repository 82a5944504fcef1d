//! The user `default`: who may log in, as `requirepass`, a `user` line or an `aclfile` says it.
//!
//! ```text
//! requirepass sesame                            ┐
//! user default on >sesame ~* &* +@all           ├─▶ one password
//! user default on #5ed8…0c4e ~* &* +@all        ┘   (its digest: the text is not known)
//! user default on nopass ~* &* +@all            ──▶ none is needed
//! user default on >sesame ~app:* +@read         ──▶ refused: this user may do everything, or it is not here
//! ```
//!
//! Passwords are kept as their digests. So the time to compare them does not tell how much was right.
//!
//! **How Redis does it**: acl.c, with many users. There a user without `&*` may use no channel; here it may, and
//! the operator is told.

use crate::sha256::{Digest, from_hexadecimal, sha256};
use std::sync::RwLock;

/// The passwords that the user may log in with, as digests. None: it needs none.
#[derive(Default)]
pub struct Password(RwLock<Option<Vec<Digest>>>);

impl Password {
    pub fn is_needed(&self) -> bool {
        self.0.read().unwrap().is_some()
    }

    pub fn is_right(&self, given: &[u8]) -> bool {
        let passwords = self.0.read().unwrap();
        passwords.as_ref().is_none_or(|passwords| passwords.contains(&sha256(given)))
    }

    /// The rules of a `user` line that say the same, with a space before each.
    pub(super) fn rules(&self) -> String {
        let rule = |digest: &Digest| {
            let digits = digest.iter().map(|byte| format!("{byte:02x}"));
            format!(" #{}", digits.collect::<String>())
        };
        match &*self.0.read().unwrap() {
            None => " nopass".to_string(),
            Some(passwords) => passwords.iter().map(rule).collect(),
        }
    }

    /// `requirepass`. Empty: no password is needed.
    pub(super) fn require(&self, password: &[u8]) {
        self.replace((!password.is_empty()).then(|| vec![sha256(password)]));
    }

    pub(super) fn replace(&self, passwords: Option<Vec<Digest>>) {
        *self.0.write().unwrap() = passwords;
    }
}

/// What a `user` line says of the user.
#[derive(Default)]
pub struct User {
    /// As in [`Password`].
    pub passwords: Option<Vec<Digest>>,
    is_on: bool,
    has_commands: bool,
    has_keys: bool,
    pub has_channels: bool,
}

impl User {
    /// What follows `user` in a line: a name and rules.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Result<User, String> {
        let name = words.next().unwrap_or_default();
        if name != b"default" {
            let name = name.escape_ascii();
            return Err(format!("the user '{name}' cannot be here, only the user 'default'"));
        }
        let mut user = User::default();
        user.reset();
        for rule in words {
            let reason = user.apply(rule);
            reason.map_err(|reason| {
                let rule = rule.escape_ascii();
                format!("Error in user declaration '{rule}': {reason}")
            })?;
        }
        if !user.is_on {
            return Err("the user 'default' is off, and there is no other".to_string());
        }
        if !user.has_commands || !user.has_keys {
            let reason = "the user 'default' has all commands and all keys here: +@all ~*";
            return Err(reason.to_string());
        }
        Ok(user)
    }

    /// What it is if nothing is said of it.
    pub fn unlimited() -> User {
        User {
            is_on: true,
            has_commands: true,
            has_keys: true,
            has_channels: true,
            passwords: None,
        }
    }

    /// A new user has nothing. It needs a password, and has none.
    fn reset(&mut self) {
        *self = User { passwords: Some(Vec::new()), ..User::default() };
    }

    fn apply(&mut self, rule: &[u8]) -> Result<(), &'static str> {
        // Whoever has a password needs one.
        let own = |user: &mut User, password| user.passwords.get_or_insert_default().push(password);
        match (rule.to_ascii_lowercase().as_slice(), rule.split_first()) {
            (b"on", _) => self.is_on = true,
            (b"off", _) => self.is_on = false,
            (b"nopass", _) => self.passwords = None,
            (b"resetpass", _) => self.passwords = Some(Vec::new()),
            (b"reset", _) => self.reset(),
            (b"~*" | b"%rw~*" | b"allkeys", _) => self.has_keys = true,
            (b"resetkeys", _) => self.has_keys = false,
            (b"&*" | b"allchannels", _) => self.has_channels = true,
            (b"resetchannels", _) => self.has_channels = false,
            (b"+@all" | b"allcommands", _) => self.has_commands = true,
            (b"nocommands", _) | (_, Some((b'-', _))) => self.has_commands = false,
            (b"" | b"sanitize-payload" | b"skip-sanitize-payload" | b"clearselectors", _) => {}
            // A part of what it has, or of what is refused in the end because it has not all.
            (_, Some((b'~' | b'%' | b'&' | b'+', _))) => {}
            (_, Some((b'>', password))) => own(self, sha256(password)),
            (_, Some((b'#', digest))) => own(self, digest_of(digest)?),
            (_, Some((b'<', password))) => self.disown(sha256(password))?,
            (_, Some((b'!', digest))) => self.disown(digest_of(digest)?)?,
            (_, Some((b'(', _))) => return Err("a selector cannot be here"),
            _ => return Err("Syntax error"),
        }
        Ok(())
    }

    fn disown(&mut self, password: Digest) -> Result<(), &'static str> {
        let passwords = self.passwords.as_mut().filter(|all| all.contains(&password));
        let reason = "The password you are trying to remove from the user does not exist";
        passwords.ok_or(reason)?.retain(|other| *other != password);
        Ok(())
    }
}

fn digest_of(text: &[u8]) -> Result<Digest, &'static str> {
    let reason = "The password hash must be exactly 64 characters and contain only lowercase \
                  hexadecimal characters";
    from_hexadecimal(text).ok_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<User, String> {
        User::parse(line.split(' ').map(str::as_bytes))
    }

    #[test]
    fn a_user_that_may_do_everything_is_understood_in_all_its_forms() {
        let sesame =
            format!("#{}", "c6fb5d7d6d7f5b3b3d5e1a5b5ee2a6bc5b1b8ff2a3f0a8b1c2d3e4f5a6b7c8d9");
        for (line, passwords) in [
            ("default on nopass ~* &* +@all", None),
            ("default on nopass allkeys allchannels allcommands", None),
            ("default ON >a ~* &* +@all", Some(1)),
            ("default on >a >b ~* +@all sanitize-payload", Some(2)),
            ("default on >a resetpass >b ~* &* +@all", Some(1)),
            ("default on >a <a ~* &* +@all", Some(0)),
            ("default on nopass >a ~* &* +@all -@all +@all +get", Some(1)),
            (&format!("default on {sesame} ~* &* +@all"), Some(1)),
            ("default on ~* &* +@all", Some(0)),
        ] {
            let user = parse(line).map_err(|reason| panic!("{line}: {reason}"));
            let found = user.map(|user| user.passwords.map(|all| all.len()));
            assert_eq!(found, Ok::<_, String>(passwords), "{line}");
        }
        let password = Password::default();
        assert!(!password.is_needed() && password.is_right(b"anything"));
        password.replace(parse("default on >one >two ~* &* +@all").unwrap().passwords);
        assert!(password.is_needed() && password.is_right(b"two") && !password.is_right(b"three"));
        password.require(b"");
        assert!(!password.is_needed());
    }

    #[test]
    fn a_user_with_less_or_another_one_is_refused() {
        for (line, reason) in [
            ("alice on nopass ~* &* +@all", "the user 'alice' cannot be here"),
            ("default on nopass ~app:* &* +@all", "all commands and all keys"),
            ("default on nopass ~* &* +@all -flushall", "all commands and all keys"),
            ("default off nopass ~* &* +@all", "is off"),
            ("default on #12 ~* +@all", "'#12': The password hash must be exactly 64"),
            ("default on <a ~* +@all", "'<a': The password you are trying to remove"),
            ("default on nopass ~* +@all what", "'what': Syntax error"),
            ("default on nopass (~* +@all)", "'(~*': a selector"),
        ] {
            let error = parse(line).err().unwrap_or_default();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
