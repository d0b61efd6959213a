//! Authentication: SCRAM, bound to the TLS session; anything weaker only where it is allowed.
//!
//! The server's own proof is checked, and a server that leaves it out is refused. The iteration count is capped inside
//! `postgres-protocol`, so a hostile server cannot make us compute for ever.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::frontend;

use crate::cursor::Cursor;
use crate::units::Secret;

use super::ChannelBinding;
use super::Config;
use super::Error;
use super::Host;
use super::Target;
use super::message::Answer;
use super::message::Messages;

/// AuthenticationOk and the known requests, by their numbers in
/// [Message Formats](https://www.postgresql.org/docs/18/protocol-message-formats.html).
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Who we are, and what we accept.
#[derive(Debug)]
pub(super) struct Login<'a> {
    target: &'a Target,
    host: &'a Host,
    config: &'a Config,
    channel_binding: ChannelBinding,
    /// The connection string asks for channel binding: then, as in libpq, nothing else will do, not even trust.
    is_strict: bool,
}

impl<'a> Login<'a> {
    /// Collects who we are and what we accept.
    pub(super) fn new(target: &'a Target, host: &'a Host, config: &'a Config) -> Self {
        Self {
            target,
            host,
            config,
            channel_binding: target.channel_binding.unwrap_or(config.tls.channel_binding),
            is_strict: target.channel_binding == Some(ChannelBinding::Require),
        }
    }

    /// Reads the password as it is now: a rotated secret is in use from the next connection on.
    fn password(&self) -> Result<Secret, Error> {
        match &self.config.password {
            Some(reference) => Ok(reference.read()?),
            None => {
                let password = self.target.password_for(self.host).cloned();
                password.ok_or_else(|| refusal("the server asks for a password, and there is none", NO_PASSWORD))
            }
        }
    }

    fn allow_weak(&self, asked: &str) -> Result<(), Error> {
        if self.is_strict {
            return Err(refusal(format!("the server asks for the password in {asked}, without channel binding"), WEAK));
        }
        if self.config.allow_weak_auth {
            return Ok(());
        }
        let reason =
            format!("the server asks for the password in {asked}, which postgres.allow_weak_auth does not allow");
        Err(refusal(reason, WEAK))
    }
}

/// What helps against each refusal.
const NO_PASSWORD: &str =
    "name the password under postgres.password, such as { file = \"/run/secrets/password\" }, or set PGPASSWORD";
const WEAK: &str = "use SCRAM: SET password_encryption = 'scram-sha-256', ALTER ROLE ... PASSWORD again, and scram-sha-256 in \
                    pg_hba.conf; or accept less with postgres.allow_weak_auth = true";
const NO_BINDING: &str = "let postgres.url lead to PostgreSQL itself and not to a proxy or pooler that ends TLS; if that is meant, set \
                          postgres.tls.channel_binding = \"prefer\"";
const NO_TLS: &str = "use sslmode=verify-full, or take channel_binding=require out of postgres.url";
const ASKS_NOTHING: &str =
    "let pg_hba.conf ask this role for scram-sha-256, or take channel_binding=require out of postgres.url";
const UNKNOWN: &str = "let pg_hba.conf ask this role for scram-sha-256";
const NO_PROOF: &str =
    "check the password, and that postgres.url leads to your server: it could not prove that it knows the password";

fn refusal(reason: impl Into<String>, next: &'static str) -> Error {
    Error::Authentication { reason: reason.into(), next }
}

/// Answers what the server asks until it is content.
pub(super) async fn authenticate(messages: &mut Messages, login: &Login<'_>) -> Result<(), Error> {
    let (method, data) = request(messages).await?;
    match method {
        OK if login.is_strict => {
            return Err(refusal("the server asks for nothing, without channel binding", ASKS_NOTHING));
        }
        OK => return Ok(()),
        SASL => scram(messages, login, &data).await?,
        CLEARTEXT => {
            login.allow_weak("clear text")?;
            send_password(messages, login.password()?.expose().as_bytes()).await?;
        }
        MD5 => {
            login.allow_weak("MD5")?;
            let salt: [u8; 4] =
                data.as_slice().try_into().map_err(|_| refusal("the server's MD5 salt is not four bytes", UNKNOWN))?;
            let hash = md5_hash(login.target.user.as_bytes(), login.password()?.expose().as_bytes(), salt);
            send_password(messages, hash.as_bytes()).await?;
        }
        other => return Err(refusal(format!("the server asks for method {other}, which is not known here"), UNKNOWN)),
    }
    expect(messages, OK).await.map(drop)
}

async fn request(messages: &mut Messages) -> Result<(i32, Vec<u8>), Error> {
    loop {
        match messages.next().await? {
            Answer::Authentication(method, data) => return Ok((method, data)),
            Answer::Aside => {}
            other @ (Answer::Parameter(..)
            | Answer::Key(_)
            | Answer::RowDescription
            | Answer::Row(_)
            | Answer::Complete
            | Answer::CopyBoth
            | Answer::Ready) => return Err(other.unexpected("authentication request")),
        }
    }
}

async fn expect(messages: &mut Messages, wanted: i32) -> Result<Vec<u8>, Error> {
    match request(messages).await? {
        (method, data) if method == wanted => Ok(data),
        (method, _) => Err(refusal(format!("the server sends message {method} where {wanted} belongs"), UNKNOWN)),
    }
}

async fn send_password(messages: &mut Messages, password: &[u8]) -> Result<(), Error> {
    let mut out = BytesMut::new();
    frontend::password_message(password, &mut out).map_err(Error::io("write the password"))?;
    messages.send(&out).await
}

async fn scram(messages: &mut Messages, login: &Login<'_>, offered: &[u8]) -> Result<(), Error> {
    let (mechanism, binding) = choose(messages, login, offered)?;
    let mut scram = ScramSha256::new(login.password()?.expose().as_bytes(), binding);
    let failed = |error: std::io::Error| refusal(format!("SCRAM: {error}"), NO_PROOF);
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(failed)?;
    messages.send(&out).await?;
    scram.update(&expect(messages, SASL_CONTINUE).await?).map_err(failed)?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(failed)?;
    messages.send(&out).await?;
    scram.finish(&expect(messages, SASL_FINAL).await?).map_err(failed)
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
    let end_point = messages.transport.end_point_hash().filter(|_| login.channel_binding != ChannelBinding::Disable);
    let is_required =
        login.is_strict || (messages.transport.is_tls() && login.channel_binding == ChannelBinding::Require);
    match end_point {
        Some(hash) if has_plus => Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))),
        None if is_required && messages.transport.is_tls() => Err(refusal(
            "the server's certificate has no hash that channel binding could use",
            "give the server a certificate that is signed with RSA or ECDSA, or set postgres.tls.channel_binding = \"prefer\"",
        )),
        None if is_required => Err(refusal("channel binding is asked for, and there is no TLS to bind to", NO_TLS)),
        Some(_) if is_required => Err(refusal(
            "the server offers no channel binding: a proxy or pooler that ends TLS may stand between",
            NO_BINDING,
        )),
        // We could bind and the server did not offer to: saying so lets the server notice that its offer was removed.
        Some(_) if has_plain => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None if has_plain => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        Some(_) | None => Err(refusal("the server offers no SASL mechanism that is known here", UNKNOWN)),
    }
}
