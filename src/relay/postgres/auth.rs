//! Authentication: SCRAM with channel binding; anything weaker only if it is allowed.
//!
//! The server's signature is verified, and a server that omits it is rejected. `postgres-protocol` bounds the iteration
//! count, so that a hostile server cannot cause endless computation.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::frontend;

use crate::cursor::Cursor;
use crate::units::Secret;

use super::config::ChannelBinding;
use super::config::Config;
use super::error::Error;
use super::message::Answer;
use super::message::Messages;
use super::target::Host;
use super::target::Target;

/// AuthenticationOk and the known requests, by their numbers in
/// [Message Formats](https://www.postgresql.org/docs/18/protocol-message-formats.html).
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// The credentials, and what is accepted.
#[derive(Debug)]
pub(super) struct Login<'a> {
    target: &'a Target,
    host: &'a Host,
    config: &'a Config,
    channel_binding: ChannelBinding,
    /// The connection string requires channel binding: then, as in libpq, not even `trust` is accepted.
    is_strict: bool,
}

impl<'a> Login<'a> {
    pub(super) fn new(target: &'a Target, host: &'a Host, config: &'a Config) -> Self {
        Self {
            target,
            host,
            config,
            channel_binding: target.channel_binding.unwrap_or(config.tls.channel_binding),
            is_strict: target.channel_binding == Some(ChannelBinding::Require),
        }
    }

    /// Reads the current password: a rotated secret is used from the next connection on.
    fn password(&self) -> Result<Secret, Error> {
        match &self.config.password {
            Some(reference) => Ok(reference.read()?),
            None => {
                let password = self.target.password_for(self.host).cloned();
                password.ok_or_else(|| refusal("no password supplied", NO_PASSWORD))
            }
        }
    }

    fn allow_weak(&self, asked: &str) -> Result<(), Error> {
        if self.is_strict {
            return Err(refusal(
                format!("the server requests the password in {asked}, but channel binding is required"),
                WEAK,
            ));
        }
        if self.config.allow_weak_auth {
            return Ok(());
        }
        let reason =
            format!("the server requests the password in {asked}, which postgres.allow_weak_auth = false forbids");
        Err(refusal(reason, WEAK))
    }
}

/// The next steps.
const NO_PASSWORD: &str =
    "set postgres.password, for example to { file = \"/run/secrets/password\" }, or set PGPASSWORD";
const WEAK: &str = "use SCRAM: SET password_encryption = 'scram-sha-256', ALTER ROLE ... PASSWORD again, and \
                    scram-sha-256 in pg_hba.conf; or set postgres.allow_weak_auth = true";
const NO_BINDING: &str = "set postgres.url to PostgreSQL itself, not to a proxy or pooler that terminates TLS; if you \
                          use one on purpose, set postgres.tls.channel_binding = \"prefer\"";
const NO_TLS: &str = "use sslmode=verify-full, or remove channel_binding=require from postgres.url";
const ASKS_NOTHING: &str =
    "set scram-sha-256 for this role in pg_hba.conf, or remove channel_binding=require from postgres.url";
const UNKNOWN: &str = "set scram-sha-256 for this role in pg_hba.conf";
const NO_PROOF: &str =
    "check the password, and that postgres.url names the right server: it did not prove that it knows the password";

fn refusal(reason: impl Into<String>, next: &'static str) -> Error {
    Error::Authentication { reason: reason.into(), next }
}

/// Answers the server's requests until authentication is complete.
pub(super) async fn authenticate(messages: &mut Messages, login: &Login<'_>) -> Result<(), Error> {
    let (method, data) = request(messages).await?;
    match method {
        OK if login.is_strict => {
            return Err(refusal(
                "channel binding required, but server authenticated client without channel binding",
                ASKS_NOTHING,
            ));
        }
        OK => return Ok(()),
        SASL => scram(messages, login, &data).await?,
        CLEARTEXT => {
            login.allow_weak("clear text")?;
            send_password(messages, login.password()?.expose().as_bytes()).await?;
        }
        MD5 => {
            login.allow_weak("MD5")?;
            let salt: [u8; 4] = data
                .as_slice()
                .try_into()
                .map_err(|_| refusal("the MD5 salt of the server is not four bytes", UNKNOWN))?;
            let hash = md5_hash(login.target.user.as_bytes(), login.password()?.expose().as_bytes(), salt);
            send_password(messages, hash.as_bytes()).await?;
        }
        other => return Err(refusal(format!("authentication method {other} not supported"), UNKNOWN)),
    }
    expect(messages, OK).await.map(drop)
}

async fn request(messages: &mut Messages) -> Result<(i32, Vec<u8>), Error> {
    loop {
        match messages.next().await? {
            Answer::Authentication(method, data) => return Ok((method, data)),
            Answer::Ignored => {}
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
        (method, _) => {
            Err(refusal(format!("the server sent authentication message {method} instead of {wanted}"), UNKNOWN))
        }
    }
}

async fn send_password(messages: &mut Messages, password: &[u8]) -> Result<(), Error> {
    let mut out = BytesMut::new();
    frontend::password_message(password, &mut out).map_err(Error::io("could not build the password message"))?;
    messages.send(&out).await
}

async fn scram(messages: &mut Messages, login: &Login<'_>, offered: &[u8]) -> Result<(), Error> {
    let (mechanism, binding) = choose(messages, login, offered)?;
    let mut scram = ScramSha256::new(login.password()?.expose().as_bytes(), binding);
    let failed = |error: std::io::Error| refusal(format!("SCRAM exchange failed: {error}"), NO_PROOF);
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
            "channel binding required, but the signature algorithm of the server's certificate does not support it",
            "install a server certificate that is signed with RSA or ECDSA, or set postgres.tls.channel_binding = \
             \"prefer\"",
        )),
        None if is_required => Err(refusal("channel binding required, but TLS is not in use", NO_TLS)),
        Some(_) if is_required => Err(refusal(
            "channel binding required, but the server does not support it: a proxy or pooler may terminate TLS",
            NO_BINDING,
        )),
        // The client supports channel binding and the server did not offer it: the server can detect a removed offer.
        Some(_) if has_plain => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None if has_plain => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        Some(_) | None => Err(refusal("none of the server's SASL authentication mechanisms are supported", UNKNOWN)),
    }
}
