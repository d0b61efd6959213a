//! Authentication: SCRAM, bound to the TLS session; anything weaker only where it is allowed.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::frontend;

use crate::cursor::Cursor;
use crate::units::Secret;

use super::ChannelBinding;
use super::Error;
use super::message::Answer;
use super::message::Messages;

/// Who we are, and what we accept.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<Secret>,
    pub(super) allow_weak: bool,
    pub(super) channel_binding: ChannelBinding,
}

impl Login<'_> {
    fn password(&self) -> Result<&str, Error> {
        let missing = || Error::Authentication("the server asks for a password, and none is configured".to_owned());
        self.password.as_ref().map(Secret::expose).ok_or_else(missing)
    }
}

/// Answers whatever the server asks until it is content.
pub(super) async fn authenticate(messages: &mut Messages, login: &Login<'_>) -> Result<(), Error> {
    loop {
        let Answer::Authentication(method, data) = messages.next().await? else { continue };
        match method {
            0 => return Ok(()),
            10 => scram(messages, login, &data).await?,
            3 | 5 if !login.allow_weak => {
                let asked = if method == 3 { "clear text" } else { "MD5" };
                return Err(Error::Authentication(format!(
                    "the server asks for the password in {asked}, which postgres.allow_weak_auth does not allow"
                )));
            }
            3 => send_password(messages, login.password()?.as_bytes()).await?,
            5 => {
                let salt: [u8; 4] = data
                    .as_slice()
                    .try_into()
                    .map_err(|_| Error::Authentication("the server's MD5 salt is not four bytes".to_owned()))?;
                let hash = md5_hash(login.user.as_bytes(), login.password()?.as_bytes(), salt);
                send_password(messages, hash.as_bytes()).await?;
            }
            other => return Err(Error::Authentication(format!("the server asks for method {other}, unknown here"))),
        }
    }
}

async fn send_password(messages: &mut Messages, password: &[u8]) -> Result<(), Error> {
    let mut out = BytesMut::new();
    frontend::password_message(password, &mut out).map_err(Error::io("send the password"))?;
    messages.send(&out).await
}

async fn scram(messages: &mut Messages, login: &Login<'_>, offered: &[u8]) -> Result<(), Error> {
    let (mechanism, binding) = choose(messages, login, offered)?;
    let mut scram = ScramSha256::new(login.password()?.as_bytes(), binding);
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(Error::io("send SCRAM"))?;
    messages.send(&out).await?;
    let refused = |error: std::io::Error| Error::Authentication(format!("SCRAM: {error}"));

    // The iteration count is capped inside: a hostile server cannot make us compute for ever.
    scram.update(&expect(messages, 11).await?).map_err(refused)?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(Error::io("send SCRAM"))?;
    messages.send(&out).await?;
    // The server proves that it knows the password, too.
    scram.finish(&expect(messages, 12).await?).map_err(refused)
}

async fn expect(messages: &mut Messages, wanted: i32) -> Result<Vec<u8>, Error> {
    loop {
        match messages.next().await? {
            Answer::Authentication(method, data) if method == wanted => return Ok(data),
            Answer::Authentication(method, _) => {
                return Err(Error::Authentication(format!("SCRAM breaks off: message {method} instead of {wanted}")));
            }
            Answer::Parameter(..)
            | Answer::RowDescription
            | Answer::Row(_)
            | Answer::Complete
            | Answer::CopyBoth
            | Answer::Ready
            | Answer::Aside => {}
        }
    }
}

fn choose(
    messages: &Messages,
    login: &Login<'_>,
    offered: &[u8],
) -> Result<(&'static str, sasl::ChannelBinding), Error> {
    let mut cursor = Cursor::new(offered);
    let (mut has_plain, mut has_plus) = (false, false);
    while let Ok(name) = cursor.text("SASL mechanism") {
        has_plain |= name == sasl::SCRAM_SHA_256;
        has_plus |= name == sasl::SCRAM_SHA_256_PLUS;
    }
    let transport = &messages.transport;
    let may_bind = login.channel_binding != ChannelBinding::Disable;
    match &transport.end_point {
        Some(end_point) if has_plus && may_bind => {
            Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point.clone())))
        }
        _ if transport.is_tls && login.channel_binding == ChannelBinding::Require => Err(Error::Authentication(
            "the server offers no channel binding, so something between may have ended TLS (a proxy or pooler does); \
             set postgres.tls.channel_binding = \"prefer\" if that is meant"
                .to_owned(),
        )),
        _ if has_plain => {
            let binding = match transport.end_point {
                // We could bind, the server did not offer to: say so, and a downgrade is noticed by the server.
                Some(_) if may_bind => sasl::ChannelBinding::unrequested(),
                _ => sasl::ChannelBinding::unsupported(),
            };
            Ok((sasl::SCRAM_SHA_256, binding))
        }
        _ => Err(Error::Authentication("the server offers no mechanism that we know".to_owned())),
    }
}
