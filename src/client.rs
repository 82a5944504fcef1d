//! stub
pub struct Client;
