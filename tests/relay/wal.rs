//! The replication client against a real PostgreSQL.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::time::Instant;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::X509;
use openssl::x509::X509NameBuilder;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::extension::SubjectAlternativeName;
use walrelay::lsn::Lsn;
use walrelay::relay::ledger::Ledger;
use walrelay::relay::postgres::Config;
use walrelay::relay::postgres::Error;
use walrelay::relay::postgres::Session;
use walrelay::relay::postgres::Stream;
use walrelay::relay::postgres::Target;
use walrelay::relay::postgres::connect_ordinary;
use walrelay::relay::stream::feedback::Feedback;
use walrelay::relay::stream::feedback::Pace;
use walrelay::relay::stream::feedback::Reportable;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

fn target(text: &str) -> Target {
    Target::parse(text, &|_| None, &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap()
}

fn config() -> Config {
    Config { max_row_bytes: 1 << 20, ..Config::default() }
}

/// What the relay makes of a position once it is stored.
fn stored(position: Lsn) -> Reportable {
    let (limit, confirmed) = (Duration::from_secs(60), Ledger::new(position).settle());
    let pace = Pace { wal_sender_timeout: limit, max_silence: limit, disconnect_on_stall_after: limit };
    let mut feedback = Feedback::new(pace, confirmed, Instant::now());
    feedback.persisted(confirmed);
    feedback.reportable().unwrap()
}

async fn sql(postgres: &Postgres, statements: &[&str]) {
    let ordinary = connect_ordinary(&target(&postgres.url()), &config(), "test").await.unwrap();
    for statement in statements {
        ordinary.client.batch_execute(statement).await.unwrap();
    }
}

/// Gives the server a self-signed certificate for `db.test`. Returns its path.
async fn turn_tls_on(postgres: &Postgres) -> String {
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "db.test").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
    let names = SubjectAlternativeName::new().dns("db.test").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();

    let owner = fs::metadata(postgres.folder()).unwrap();
    for (file, bytes) in
        [("server.pem", builder.build().to_pem().unwrap()), ("server.key", key.private_key_to_pem_pkcs8().unwrap())]
    {
        let path = postgres.folder().join(file);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let folder = postgres.folder().display();
    sql(
        postgres,
        &[
            &format!("ALTER SYSTEM SET ssl_cert_file = '{folder}/server.pem'"),
            &format!("ALTER SYSTEM SET ssl_key_file = '{folder}/server.key'"),
            "ALTER SYSTEM SET ssl = on",
        ],
    )
    .await;
    // A restart, since a reload is asynchronous.
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();
    format!("{folder}/server.pem")
}

#[tokio::test]
async fn credentials_and_certificates_are_taken_or_refused_as_libpq_would() {
    let hba = [
        "hostssl   all scram 127.0.0.1/32 scram-sha-256",
        "hostnossl all scram 127.0.0.1/32 reject",
        "hostnossl all plain_scram 127.0.0.1/32 scram-sha-256",
        "hostssl   all plain_only 127.0.0.1/32 reject",
        "hostnossl all plain_only 127.0.0.1/32 scram-sha-256",
        "hostnossl all clear 127.0.0.1/32 password",
        "hostnossl all hashed 127.0.0.1/32 md5",
    ];
    let hba = hba.map(str::to_owned).to_vec();
    let postgres = Postgres::start(Options::default().with_hba(hba)).unwrap();
    let root = turn_tls_on(&postgres).await;
    let roles = [
        "CREATE ROLE scram LOGIN REPLICATION PASSWORD 'pw'",
        "CREATE ROLE plain_scram LOGIN REPLICATION PASSWORD 'pw'",
        "CREATE ROLE plain_only LOGIN REPLICATION PASSWORD 'pw'",
        "CREATE ROLE clear LOGIN REPLICATION PASSWORD 'pw'",
        "CREATE ROLE bare LOGIN",
        "SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN REPLICATION PASSWORD 'pw'",
    ];
    sql(&postgres, &roles).await;
    let full = format!("user=scram password=pw sslmode=verify-full sslrootcert={root}");
    let rows: [(String, Result<bool, &str>); 16] = [
        (format!("host=db.test {full}"), Ok(true)),
        (format!("host=db.test {full} channel_binding=require"), Ok(true)),
        (format!("host=db.test {full} channel_binding=disable"), Ok(true)),
        ("host=db.test user=scram password=pw sslmode=prefer".to_owned(), Ok(true)),
        ("host=db.test user=plain_only password=pw sslmode=prefer".to_owned(), Ok(false)),
        ("host=db.test user=plain_only password=pw sslmode=require".to_owned(), Err("SQLSTATE 28000")),
        (format!("host=else.test {full}"), Err("hostname mismatch")),
        ("host=db.test user=scram password=pw sslmode=verify-full".to_owned(), Err("self-signed certificate")),
        ("host=db.test user=scram password=pw sslmode=disable".to_owned(), Err("SQLSTATE 28000")),
        ("host=db.test user=plain_scram password=pw sslmode=disable".to_owned(), Ok(false)),
        ("host=db.test user=plain_scram password=no sslmode=disable".to_owned(), Err("SQLSTATE 28P01")),
        ("host=db.test user=plain_scram sslmode=disable".to_owned(), Err("no password supplied")),
        (
            "host=db.test user=plain_scram password=pw sslmode=disable channel_binding=require".to_owned(),
            Err("TLS is not in use"),
        ),
        ("host=db.test user=clear password=pw sslmode=disable".to_owned(), Err("clear text")),
        ("host=db.test user=hashed password=pw sslmode=disable".to_owned(), Err("MD5")),
        ("host=db.test user=bare sslmode=disable".to_owned(), Err("SQLSTATE 42501")),
    ];
    for (text, expected) in rows {
        let at = target(&format!("{text} hostaddr=127.0.0.1 port={} dbname=postgres", postgres.port()));
        let session = Session::connect(&at, &config(), "test").await;
        match (&session, expected) {
            (Ok(session), Ok(is_tls)) => assert_eq!(session.is_tls(), is_tls, "{text}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
                assert!(error.is_about_rights(), "{text}: {}", error.code());
            }
            (session, expected) => panic!("{text}: {session:?} instead of {expected:?}"),
        }
        // The same with an ordinary connection, which needs no REPLICATION.
        let ordinary = connect_ordinary(&at, &config(), "test").await;
        assert_eq!(ordinary.is_ok(), session.is_ok() || text.contains("bare"), "{text}: {ordinary:?}");
    }
    for user in ["clear", "hashed"] {
        let at = format!("postgres://{user}:pw@127.0.0.1:{}/postgres?sslmode=disable", postgres.port());
        let weak = Config { allow_weak_auth: true, ..config() };
        Session::connect(&target(&at), &weak, "test").await.unwrap();
    }
}

#[tokio::test]
async fn commands_are_answered_and_settings_are_in_force() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let at = target(&postgres.url());
    let mut session = Session::connect(&at, &config(), "a \"name\"").await.unwrap();
    let identity = session.identify_system().await.unwrap();
    assert!(identity.timeline == 1 && identity.wal_end > Lsn::ZERO && !identity.system_id.is_empty(), "{identity:?}");
    assert!(session.server_version() >= 140_000);
    for (setting, expected) in [
        ("wal_sender_timeout", "1min"),
        ("logical_decoding_work_mem", "64MB"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "iso_8601"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("client_encoding", "UTF8"),
        ("application_name", "a \"name\""),
    ] {
        let rows = session.query(&format!("SELECT pg_catalog.current_setting('{setting}')")).await.unwrap();
        assert_eq!(rows, [[Some(expected.to_owned())]], "{setting}");
    }
    let missing = session.drop_slot("missing").await.unwrap_err();
    assert_eq!(missing.code().to_string(), "WR-6601");
    let created = session.create_slot("here", false).await.unwrap();
    assert!(created.consistent_point >= identity.wal_end);
    let twice = session.create_slot("here", false).await.unwrap_err();
    assert!(twice.to_string().contains("42710"), "{twice}");
    session.drop_slot("here").await.unwrap();
    let missing = session.start("here", (Lsn::ZERO, Lsn::ZERO), "p", true).await.unwrap_err();
    assert_eq!((missing.code().to_string().as_str(), missing.fate()), ("WR-6601", Fate::Fatal));
}

/// Reads up to the next commit. Gives the number of rows before it, and its end.
async fn transaction(stream: &mut Stream) -> Result<(usize, Lsn), Error> {
    let mut rows = 0;
    loop {
        let buffer = stream.buffer();
        let length = buffer.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()));
        let Some(length) = length.map(|length| usize::try_from(length).unwrap() + 1) else {
            stream.exchange(true).await?;
            continue;
        };
        let Some(frame) = buffer.get(..length) else {
            stream.make_room(length)?;
            stream.exchange(true).await?;
            continue;
        };
        assert_ne!(frame[0], b'E', "{}", String::from_utf8_lossy(frame));
        let (is_data, kind) = (frame[..6] == [b'd', frame[1], frame[2], frame[3], frame[4], b'w'], frame.get(30));
        rows += usize::from(is_data && kind == Some(&b'I'));
        let end = (is_data && kind == Some(&b'C'))
            .then(|| Lsn::from_wire(u64::from_be_bytes(frame[40..48].try_into().unwrap())));
        stream.consume(length);
        if let Some(end) = end {
            return Ok((rows, end));
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_confirmed_and_the_slot_has_one_reader() {
    let postgres = Postgres::start(Options::default()).unwrap();
    // Both kinds of quoting of a publication's name.
    let setup = [
        "CREATE TABLE public.t (v text)",
        "CREATE PUBLICATION \"it's \"\"p\"\"\" FOR TABLE public.t WITH (publish = 'insert')",
    ];
    sql(&postgres, &setup).await;
    let (at, publication) = (target(&postgres.url()), "it's \"p\"");
    let start = async || {
        Session::connect(&at, &config(), "streaming")
            .await
            .unwrap()
            .start("s", (Lsn::ZERO, Lsn::ZERO), publication, true)
            .await
    };
    Session::connect(&at, &config(), "test").await.unwrap().create_slot("s", false).await.unwrap();
    sql(&postgres, &["INSERT INTO public.t SELECT repeat('x', 300) FROM generate_series(1, 5000)"]).await;

    let mut stream = start().await.unwrap();
    let (rows, end) = transaction(&mut stream).await.unwrap();
    assert_eq!(rows, 5_000);
    let taken = start().await.unwrap_err();
    assert_eq!(
        (taken.code().to_string().as_str(), taken.fate(), taken.is_slot_active()),
        ("WR-6904", Fate::Transient, true)
    );
    assert!(taken.slot_holder().is_some());
    // Not confirmed, so it is sent again.
    stream.finish(Duration::from_secs(5)).await.unwrap();
    let mut stream = start().await.unwrap();
    assert_eq!(transaction(&mut stream).await.unwrap(), (5_000, end));
    stream.confirm(stored(end));
    stream.finish(Duration::from_secs(5)).await.unwrap();

    let ordinary = connect_ordinary(&at, &config(), "test").await.unwrap();
    let slot = "SELECT confirmed_flush_lsn::text, active FROM pg_replication_slots";
    let row = ordinary.client.query_one(slot, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (end.to_string(), false));
    sql(
        &postgres,
        &["INSERT INTO public.t VALUES (repeat('y', 500000))", "INSERT INTO public.t VALUES (repeat('z', 2000000))"],
    )
    .await;
    let mut stream = start().await.unwrap();
    assert_eq!(transaction(&mut stream).await.unwrap().0, 1);
    let refused = transaction(&mut stream).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
}

#[tokio::test]
async fn an_ordinary_connection_hears_of_a_shutdown_and_a_stream_ends_with_it() {
    let postgres = Postgres::start(Options::default()).unwrap();
    sql(&postgres, &["CREATE PUBLICATION p"]).await;
    let at = target(&postgres.url());
    let mut session = Session::connect(&at, &config(), "test").await.unwrap();
    session.create_slot("s", false).await.unwrap();
    let mut stream = session.start("s", (Lsn::ZERO, Lsn::ZERO), "p", false).await.unwrap();
    let ordinary = connect_ordinary(&at, &config(), "test").await.unwrap();
    let stopped = tokio::task::spawn_blocking(move || {
        let took = postgres.stop(StopMode::Fast).unwrap();
        (postgres, took)
    });
    let ended = ordinary.ended.await;
    assert!(ended.as_ref().is_some_and(Error::is_shutdown), "{ended:?}");
    // Confirm everything that the server has sent, as the relay does with an empty outbox.
    let end = loop {
        let buffer = stream.buffer();
        if buffer.len() >= 23 && buffer[0] == b'd' && buffer[5] == b'k' {
            let end = Lsn::from_wire(u64::from_be_bytes(buffer[6..14].try_into().unwrap()));
            stream.consume(23);
            stream.confirm(stored(end));
            stream.queue_status(false);
        } else if !buffer.is_empty() {
            let whole = buffer.len();
            stream.consume(whole);
        }
        if let Err(error) = stream.exchange(true).await {
            break error;
        }
    };
    assert!(matches!(end, Error::Closed | Error::Io { .. }), "{end:?}");
    let (_postgres, took) = stopped.await.unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
}
