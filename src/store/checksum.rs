//! CRC-32 (the one of zip and Ethernet) over a stored event: a flipped bit is noticed, not served.
//!
//! SQLite checks its write-ahead log but not its pages. Eight bytes a step: a replay stays bound by SQLite, not by this.

use crate::event::Seq;

/// The reversed polynomial.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// `TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes.
const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        byte = 0;
        while byte < 256 {
            let crc = tables[k - 1][byte];
            tables[k][byte] = (crc >> 8) ^ tables[0][(crc & 255) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

fn extend(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        let lane = |k: usize| TABLES[7 - k][(word >> (8 * k) & 255) as usize];
        crc = (0..8).fold(0, |sum, k| sum ^ lane(k));
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(*byte)) & 255) as usize];
    }
    crc
}

/// The checksum of everything in an event that never changes.
pub(super) fn of_event(seq: Seq, id: &str, created_at: i64, body: &str) -> u32 {
    let mut crc = extend(!0, &seq.to_le_bytes());
    crc = extend(crc, &created_at.to_le_bytes());
    crc = extend(crc, id.as_bytes());
    !extend(crc, body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let check = |text: &str, expected: u32| {
            assert_eq!(!extend(!0, text.as_bytes()), expected, "{text:?}");
            let (head, tail) = text.as_bytes().split_at(text.len() / 3);
            assert_eq!(!extend(extend(!0, head), tail), expected, "{text:?} in two parts");
        };
        check("", 0);
        check("123456789", 0xcbf4_3926);
        check("The quick brown fox jumps over the lazy dog", 0x414f_a339);
    }
}
