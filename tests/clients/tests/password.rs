//! A server that asks for a password serves those who know it, and nobody else.
//!
//! One test, alone in its file: a running server that is told a password refuses everyone else
//! meanwhile (`Server::with_password` says more).

use redis::{Client, Commands, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use redis::{RedisResult, cmd};
use simple_redis_clients::Server;

#[test]
fn a_client_with_the_password_gets_its_database_and_others_get_nothing() -> RedisResult<()> {
    let server = Server::with_password("open-sesame");
    let address = format!("redis://{}", server.address());
    let settings = RedisConnectionInfo::default().set_db(9).set_password("open-sesame");
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let settings = settings.clone().set_protocol(protocol);
        let open = |settings| {
            let info = address.as_str().into_connection_info()?.set_redis_settings(settings);
            Client::open(info)?.get_connection()
        };
        let mut client = open(settings.clone())?;
        () = client.set("secret", 42)?;
        assert_eq!(client.get::<_, i64>("secret")?, 42);
        assert!(cmd("CLIENT").arg("INFO").query::<String>(&mut client)?.contains(" db=9 "));
        () = client.del("secret")?;

        let mut named = open(settings.clone().set_username("default"))?;
        assert_eq!(cmd("PING").query::<String>(&mut named)?, "PONG");
        assert!(open(settings.set_password("open-barley")).is_err());
    }

    // A URL says the same in one line.
    let url = format!("redis://:open-sesame@{}/9", server.address());
    assert!(!Client::open(url)?.get_connection()?.exists::<_, bool>("secret")?);

    // Without a password the connection stands, but every command is refused.
    let mut stranger = Client::open(address.as_str())?.get_connection()?;
    let error = stranger.get::<_, Option<i64>>("secret").expect_err("no password, no value");
    assert_eq!(error.code(), Some("NOAUTH"));
    Ok(())
}
