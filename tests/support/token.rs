//! Unsecured JWTs, which Kafka accepts where no key is configured.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A token for this subject that is valid for so long.
pub fn unsecured_jwt(subject: &str, lifetime: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims =
        format!("{{\"sub\":\"{subject}\",\"iat\":{},\"exp\":{}}}", now.as_secs(), (now + lifetime).as_secs_f64());
    format!("{}.{}.", base64url(b"{\"alg\":\"none\"}"), base64url(claims.as_bytes()))
}

/// A shell command that prints such a token, and adds a line to a file.
pub fn printing_command(subject: &str, lifetime_secs: u32, file: &str) -> String {
    format!(
        "echo ran >> {file}; now=$(date +%s); encode() {{ base64 -w0 | tr -d = | tr /+ _-; }}; echo $(printf \
         '{{\"alg\":\"none\"}}' | encode).$(printf '{{\"sub\":\"{subject}\",\"iat\":%d,\"exp\":%d}}' $now $((now + \
         {lifetime_secs})) | encode)."
    )
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}
