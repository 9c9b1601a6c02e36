//! Lines out of a stream that need not have any.

use bytes::{Buf, BytesMut};

/// The longest request: the nodes of a 64 GiB sector's C1, as numbers.
#[cfg(feature = "proofs")]
pub(crate) const MAX_LINE: usize = 512 << 20;

/// Takes the next line, without its end; none if it is not whole yet. `scanned` is how far an earlier call has looked.
pub(crate) fn next_line(buffer: &mut BytesMut, scanned: &mut usize, max: usize) -> Result<Option<BytesMut>, TooLong> {
    let from = (*scanned).min(buffer.len());
    let end = buffer.iter().skip(from).position(|b| *b == b'\n').map(|at| from + at);
    match end {
        Some(end) if end <= max => {
            *scanned = 0;
            let line = buffer.split_to(end);
            buffer.advance(1);
            Ok(Some(line))
        }
        None if buffer.len() <= max => {
            *scanned = buffer.len();
            Ok(None)
        }
        _ => Err(TooLong { max, start: excerpt(buffer) }),
    }
}

/// The first hundred characters of what somebody said, so that they can be shown.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let start = bytes.get(..bytes.len().min(400)).unwrap_or_default();
    String::from_utf8_lossy(start).chars().take(100).flat_map(char::escape_debug).collect()
}

/// A line without an end.
#[derive(Debug, thiserror::Error)]
#[error("a line of more than {max} bytes, which begins with `{start}`")]
pub(crate) struct TooLong {
    max: usize,
    start: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_shown_is_escaped() {
        assert_eq!(excerpt(b"a\x1b[2J\"\xff\n"), "a\\u{1b}[2J\\\"\u{fffd}\\n");
        assert_eq!(excerpt("\u{4e2d}".repeat(500).as_bytes()).chars().count(), 100);
    }

    proptest! {
        #[test]
        fn lines_survive_any_split(lines in proptest::collection::vec("[^\n]{0,60}", 0..10), cut in 1..50usize) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut buffer, mut scanned, mut got) = (BytesMut::new(), 0, Vec::new());
            for chunk in text.as_bytes().chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(line) = next_line(&mut buffer, &mut scanned, 1000).unwrap() {
                    got.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(got, lines);
        }

        #[test]
        fn no_line_is_longer_than_allowed(bytes in proptest::collection::vec(any::<u8>(), 0..200), max in 0..50usize) {
            let (mut buffer, mut scanned) = (BytesMut::from(bytes.as_slice()), 0);
            loop {
                match next_line(&mut buffer, &mut scanned, max) {
                    Ok(Some(line)) => prop_assert!(line.len() <= max),
                    Ok(None) => break prop_assert!(buffer.len() <= max),
                    Err(error) => break prop_assert!(!error.to_string().contains('\n')),
                }
            }
        }
    }
}
