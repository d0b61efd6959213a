//! The headers of a message, byte for byte. rdkafka panics at a header whose name is not UTF-8, and cannot write one.

use std::ffi::CStr;
use std::ptr;
use std::slice;

use rdkafka::bindings;
use rdkafka::error::IsError as _;
use rdkafka::message::BorrowedMessage;
use rdkafka::message::OwnedHeaders;

/// Visits the name and value of each header, in order. A name ends at its first zero byte.
pub(in crate::consumer) fn visit(message: &BorrowedMessage<'_>, mut visit: impl FnMut(&[u8], Option<&[u8]>)) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message owns what its pointer points to, and is borrowed meanwhile. The headers stay its own.
    let code = unsafe { bindings::rd_kafka_message_headers(message.ptr(), &raw mut headers) };
    if code.is_error() {
        // It has none.
        return;
    }
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    for index in 0.. {
        // SAFETY: the headers live as long as the message. The function only reads.
        let code =
            unsafe { bindings::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
        if code.is_error() {
            // That was the last one.
            return;
        }
        // SAFETY: a name ends with a zero byte, and lives as long as the message.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        // SAFETY: a value that is not null has this size, and lives as long as the message.
        let value = (!value.is_null()).then(|| unsafe { slice::from_raw_parts(value.cast::<u8>(), size) });
        visit(name, value);
    }
}

/// Creates headers with these names and values, in order.
pub(in crate::consumer) fn owned<'h>(
    headers: impl ExactSizeIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    // A reference to borrowed headers is librdkafka's own pointer.
    let native = ptr::from_ref(owned.as_borrowed()).cast::<bindings::rd_kafka_headers_t>().cast_mut();
    for (name, value) in headers {
        let (content, size) = value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast(), value.len()));
        // SAFETY: the headers are new and owned by this function. Name and value are copied, by their sizes, which no
        // allocation lets exceed `isize::MAX`.
        let code = unsafe {
            bindings::rd_kafka_header_add(
                native,
                name.as_ptr().cast(),
                name.len().cast_signed(),
                content,
                size.cast_signed(),
            )
        };
        debug_assert!(!code.is_error(), "new headers can be written");
    }
    owned
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Header;
    use rdkafka::message::Headers as _;

    use super::*;

    #[test]
    fn headers_are_written_in_order_with_and_without_a_value() {
        let headers: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1\x00\xff")), (b"a", None), (b"b", Some(b""))];
        let owned = owned(headers.into_iter());
        let read: Vec<Header<'_, &[u8]>> = owned.iter().collect();
        let expected = [("a", Some(&b"1\x00\xff"[..])), ("a", None), ("b", Some(&b""[..]))];
        assert_eq!(read, expected.map(|(key, value)| Header { key, value }));
    }
}
