//! TLS to a real server, with the real program.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::support::program::Program;
use crate::support::source::Sql;

/// Gives the server a self-signed certificate for `db.test`, signed with RSASSA-PSS.
fn certify(postgres: &Postgres, digest: &str) {
    let folder = postgres.folder();
    let (key, certificate) = (folder.join("server.key"), folder.join("server.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db.test", digest])
        .args(["-addext", "subjectAltName=DNS:db.test"])
        .args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap_or_else(|error| panic!("run openssl: {error}; sudo apt-get install openssl"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let owner = fs::metadata(folder).unwrap();
    for path in [&key, &certificate] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let sql = Sql::connect(&postgres.url());
    sql.run(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display()));
    sql.run(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display()));
    sql.run("ALTER SYSTEM SET ssl = on");
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();
}

#[test]
fn scram_binds_to_rsassa_pss_and_a_client_key_may_be_replaced() {
    let options = Options::default().with_hba(vec!["hostssl all relay 127.0.0.1/32 scram-sha-256".into()]);
    let postgres = Postgres::start(options).unwrap();
    let broker = Broker::start(1).unwrap();
    Sql::connect(&postgres.url()).run("CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'right'");
    let folder = postgres.folder().display();
    // The server's own certificate serves the client as well.
    let url = format!(
        "host=db.test hostaddr=127.0.0.1 port={} user=relay password=right dbname=postgres sslmode=verify-full \
         channel_binding=require sslrootcert={folder}/server.pem sslcert={folder}/server.pem \
         sslkey={folder}/client.key",
        postgres.port()
    );
    let key = postgres.folder().join("client.key");
    let mut program = Program::new(&url, &broker.bootstrap(), "");
    for digest in ["-sha256", "-sha384"] {
        certify(&postgres, digest);
        fs::copy(postgres.folder().join("server.key"), &key).unwrap();
        program.setup();
        program.start_streaming();
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    }

    program.start_streaming();
    let whole = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    Sql::connect(&postgres.url()).run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay'");
    // Wrong credentials end after three attempts; an invalid file is retried.
    let failures = "walrelay_errors_total{relay=\"walrelay\",component=\"postgres\",code=\"WR-6422\"";
    program.await_that("four attempts", |program| program.metric(failures).is_some_and(|count| count >= 4.0));
    let (status, cause) = program.get("/readyz").unwrap();
    assert!(status == 503 && cause.contains("WR-6422") && cause.contains("client.key"), "{cause}");
    fs::write(&key, "no key").unwrap();
    program.await_log("could not load private key file");
    fs::write(&key, whole).unwrap();
    program.await_state("streaming");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
