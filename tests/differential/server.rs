//! The two servers as the fuzzer wants them: keys expire when they are looked at and at no other
//! time, so in both servers at the same command.

use std::env;
use std::io;

use crate::support::{Client, Directory, Program, Server};

/// What both are started with. They write a record before they reply: with `everysec` Redis may
/// hold it back while an fsync runs, and the logs would be compared too early. No string may be
/// longer than a megabyte, the least that Redis allows: an offset out of the blue (a bit's is
/// worth an eighth of a byte's) would make one of 256 MB, again and again, and LCS compare two. All that
/// happens to keys is published.
const FLAGS: [&str; 8] = [
    "--appendfsync",
    "no",
    "--enable-debug-command",
    "yes",
    "--proto-max-bulk-len",
    "1mb",
    "--notify-keyspace-events",
    "KEAnm",
];

/// The server under test: ours, unless `OURS` names another program.
pub fn ours() -> Program {
    env::var("OURS").map_or(Program::Ours, Program::Redis)
}

/// The server that is always right, if there is one.
pub fn reference() -> Option<Program> {
    let path = env::var("REDIS_SERVER").ok();
    path.filter(|path| !path.is_empty()).map(Program::Redis)
}

pub fn start(program: &Program, flags: &[String]) -> io::Result<Server> {
    let flags: Vec<&str> = FLAGS.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let server = Server::try_start_in(Directory::new(), program.clone(), &flags);
    let server = server.map_err(io::Error::other)?;
    stop_active_expiry(&mut server.try_client()?)?;
    Ok(server)
}

/// Kills the server, always with `kill -9`, and starts the program on the log that it left. What
/// was acknowledged has to be in the log by then; a polite end would hide that it is not.
pub fn restart_as(server: &mut Server, program: &Program) -> io::Result<()> {
    server.kill();
    server.program = program.clone();
    server.try_start_again().map_err(io::Error::other)?;
    stop_active_expiry(&mut server.try_client()?)
}

fn stop_active_expiry(client: &mut Client) -> io::Result<()> {
    let answer = client.try_call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"])?;
    match answer.is_error() {
        true => Err(io::Error::other(answer.to_string())),
        false => Ok(()),
    }
}
