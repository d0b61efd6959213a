//! Ordinary queries: `tokio-postgres`, under the same rules as the replication connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use openssl::ssl::SslConnector;
use openssl::ssl::SslMethod;
use openssl::ssl::SslVerifyMode;
use postgres_openssl::MakeTlsConnector;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;

use super::ChannelBinding;
use super::Config;
use super::Error;
use super::Host;
use super::SslMode;
use super::Target;
use super::session;
use super::tls;

/// An ordinary connection.
pub struct Ordinary {
    /// Takes queries.
    pub client: Client,
    /// Resolves when the connection ends, with the reason if there is one.
    pub ended: Ended,
}

impl fmt::Debug for Ordinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordinary").finish_non_exhaustive()
    }
}

/// The end of an ordinary connection. Dropping it ends the connection.
#[derive(Debug)]
pub struct Ended(JoinHandle<Option<Error>>);

impl Future for Ended {
    type Output = Option<Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::unwrap_or_default)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects for ordinary queries.
pub async fn connect_ordinary(target: &Target, config: &Config, application_name: &str) -> Result<Ordinary, Error> {
    let connector = match tls::connector(target, config)? {
        Some(connector) => connector,
        // Never used: the mode is disable. The type wants one.
        None => SslConnector::builder(SslMethod::tls_client()).map_err(Error::TlsSetup)?.build(),
    };
    let mut connector = MakeTlsConnector::new(connector);
    let mode = target.ssl_mode;
    connector.set_callback(move |ssl, _| {
        ssl.set_verify_hostname(tls::checks_name(mode));
        if mode == SslMode::Prefer {
            ssl.set_verify(SslVerifyMode::NONE);
        }
        Ok(())
    });
    let limit = session::attempt_limit(target, config);
    let attempt = client_config(target, config, application_name)?;
    let (client, connection) = match tokio::time::timeout(limit, attempt.connect(connector)).await {
        Ok(connected) => connected?,
        Err(_) => {
            let host = target.hosts.first().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Timeout { host, seconds: limit.as_secs() });
        }
    };
    let ended = Ended(tokio::spawn(async move { connection.await.err().map(Error::from) }));
    // Names are resolved where they are meant, whatever the role's settings are.
    client.batch_execute("SET search_path = pg_catalog").await?;
    Ok(Ordinary { client, ended })
}

fn client_config(target: &Target, config: &Config, application_name: &str) -> Result<tokio_postgres::Config, Error> {
    use tokio_postgres::config as theirs;
    let mut client = tokio_postgres::Config::new();
    client
        .user(&target.user)
        .dbname(&target.dbname)
        .application_name(application_name)
        .connect_timeout(config.connect_timeout)
        .tcp_user_timeout(config.connect_timeout * 3);
    for host in &target.hosts {
        match host {
            Host::Unix { directory, port } => client.host_path(directory).port(*port),
            Host::Tcp { name, port, .. } => client.host(name).port(*port),
        };
    }
    if target.hosts.iter().all(|host| matches!(host, Host::Tcp { address: Some(_), .. })) {
        for host in &target.hosts {
            if let Host::Tcp { address: Some(address), .. } = host {
                client.hostaddr(*address);
            }
        }
    }
    if let Some(password) = session::password(target, config)? {
        client.password(password.expose());
    }
    if let Some(options) = &target.options {
        client.options(options);
    }
    client.ssl_mode(match target.ssl_mode {
        SslMode::Disable => theirs::SslMode::Disable,
        SslMode::Prefer => theirs::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => theirs::SslMode::Require,
    });
    // Required only where the replication connection has already required it, over TLS.
    client.channel_binding(match target.channel_binding.unwrap_or(config.tls.channel_binding) {
        ChannelBinding::Disable => theirs::ChannelBinding::Disable,
        ChannelBinding::Prefer | ChannelBinding::Require => theirs::ChannelBinding::Prefer,
    });
    if target.needs_read_write {
        client.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    Ok(client)
}
