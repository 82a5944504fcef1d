//! stub
pub fn matches(pattern: &[u8], text: &[u8], _ignore_case: bool) -> bool {
    pattern == text
}
