//! stub
use std::path::Path;
use std::process::ExitCode;
pub fn run(_path: &Path, _fix: bool) -> ExitCode {
    ExitCode::SUCCESS
}
