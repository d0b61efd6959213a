//! The digest of a certificate's signature where the algorithm's name does not include it: RSASSA-PSS has it in its
//! parameters (RFC 4055, section 3.1).
//!
//! ```text
//! Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, parameters }, signature }
//! RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] EXPLICIT SEQUENCE { OID, ... } DEFAULT sha1, ... }
//! ```

use openssl::hash::MessageDigest;

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const HASH_ALGORITHM: u8 = 0xA0;

/// 1.2.840.113549.1.1.10
const RSASSA_PSS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A];
/// 2.16.840.1.101.3.4.2, before the number of the digest.
const SHA_2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
/// 1.3.14.3.2.26
const SHA_1: &[u8] = &[0x2B, 0x0E, 0x03, 0x02, 0x1A];

/// Gives the digest for channel binding with a certificate signed with RSASSA-PSS. SHA-1 becomes SHA-256 (RFC 5929).
pub(super) fn pss_digest(certificate: &[u8]) -> Option<MessageDigest> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT)?;
    if name != RSASSA_PSS {
        return None;
    }
    let (parameters, _) = element(parameters, SEQUENCE)?;
    let hash = match element(parameters, HASH_ALGORITHM) {
        Some((explicit, _)) => element(element(explicit, SEQUENCE)?.0, OBJECT)?.0,
        None => SHA_1,
    };
    match hash.strip_prefix(SHA_2) {
        Some([1]) => Some(MessageDigest::sha256()),
        Some([2]) => Some(MessageDigest::sha384()),
        Some([3]) => Some(MessageDigest::sha512()),
        Some([4]) => Some(MessageDigest::sha224()),
        Some(_) => None,
        None => (hash == SHA_1).then(MessageDigest::sha256),
    }
}

/// Reads one element with this tag: its content and the bytes after it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    // Below 128 it is the length, else the number of bytes of the length.
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F).min(size_of::<u32>()))?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    /// A certificate that has only an algorithm.
    fn signed(algorithm: &[u8]) -> Vec<u8> {
        let sequence = |content: &[u8]| [&[SEQUENCE, u8::try_from(content.len()).unwrap()], content].concat();
        sequence(&[sequence(b""), sequence(algorithm)].concat())
    }

    #[test]
    fn the_digest_is_the_one_of_the_signature_and_sha1_is_replaced() {
        let name = [&[OBJECT, 9], RSASSA_PSS].concat();
        let with = |number: u8| {
            let hash = [&[SEQUENCE, 11, OBJECT, 9], SHA_2, &[number]].concat();
            [&name[..], &[SEQUENCE, 15, HASH_ALGORITHM, 13], &hash].concat()
        };
        for (number, size) in [(1, 32), (2, 48), (3, 64), (4, 28)] {
            assert_eq!(pss_digest(&signed(&with(number))).map(|digest| digest.size()), Some(size));
        }
        assert!(pss_digest(&signed(&with(9))).is_none());
        let default = [&name[..], &[SEQUENCE, 0]].concat();
        assert_eq!(pss_digest(&signed(&default)).map(|digest| digest.size()), Some(32));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            pss_digest(&bytes);
        }
    }
}
