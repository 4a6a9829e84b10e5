//! What a cipher has to show before its first use: that it says what AWS-LC says. A processor, a hypervisor or a compiler that
//! computes wrongly costs speed then, and no packet.

use crate::{Forged, TAG, aws_lc};

/// One length for each shape of the code: few blocks and many, whole ones and broken ones, each number of groups in registers
/// (a single one with room for no more, and as the end of what does not fit at once), more than fits into them.
const LENGTHS: [usize; 22] = [
    0, 1, 15, 16, 64, 127, 128, 129, 191, 192, 200, 255, 256, 447, 700, 959, 1_215, 1_420, 1_472,
    1_536, 3_333, 9_000,
];

/// What is on trial.
pub(crate) trait Candidate {
    /// Seals `data` in place; the tag.
    fn seal(&self, key: &[u8; 32], nonce: &[u8; 12], data: &mut [u8]) -> [u8; TAG];
    /// Opens `data` in place where `tag` is its tag, and leaves it as it is otherwise.
    fn open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        data: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Forged>;
}

/// Whether `candidate` seals and opens as it should.
pub(crate) fn passes(candidate: &impl Candidate) -> bool {
    let mut number = 1_u64;
    let mut any = move || {
        // Marsaglia's xorshift: bytes that are not all alike, and the same each time.
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number.to_le_bytes()[3]
    };
    LENGTHS.into_iter().all(|length| {
        let key = std::array::from_fn(|_| any());
        let nonce = std::array::from_fn(|_| any());
        let message: Vec<u8> = (0..length).map(|_| any()).collect();
        agrees(candidate, &key, &nonce, &message)
    })
}

/// Whether `message` is sealed into what AWS-LC seals it into, opens again, and does not open with a bit of its tag changed.
fn agrees(candidate: &impl Candidate, key: &[u8; 32], nonce: &[u8; 12], message: &[u8]) -> bool {
    let mut expected = message.to_vec();
    let Ok(tag) = aws_lc::Key::new(key).seal(nonce, &[], &mut expected) else {
        return false;
    };
    let mut data = message.to_vec();
    let seals = candidate.seal(key, nonce, &mut data) == tag && data == expected;
    let mut forged = tag;
    forged[7] ^= 1;
    let refuses = candidate.open(key, nonce, &mut data, &forged).is_err() && data == expected;
    let opens = candidate.open(key, nonce, &mut data, &tag).is_ok() && data == message;
    seals && refuses && opens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS-LC, wrong at one place.
    #[derive(Clone, Copy, Default)]
    struct Flawed {
        /// Messages of this length are sealed into something else.
        seals: Option<usize>,
        /// Messages of this length are given another tag.
        tags: Option<usize>,
        /// Messages of this length open into something else.
        opens: Option<usize>,
        /// Tags of messages of this length are not looked at.
        believes: Option<usize>,
        /// What cannot be opened is changed.
        spoils: bool,
    }

    impl Candidate for Flawed {
        fn seal(&self, key: &[u8; 32], nonce: &[u8; 12], data: &mut [u8]) -> [u8; TAG] {
            let mut tag = aws_lc::Key::new(key).seal(nonce, &[], data).unwrap();
            if self.tags == Some(data.len()) {
                tag[15] ^= 1;
            }
            if self.seals == Some(data.len())
                && let Some(last) = data.last_mut()
            {
                *last ^= 1;
            }
            tag
        }

        fn open(
            &self,
            key: &[u8; 32],
            nonce: &[u8; 12],
            data: &mut [u8],
            tag: &[u8; TAG],
        ) -> Result<(), Forged> {
            let mut sealed = [&*data, tag].concat();
            let Ok(message) = aws_lc::Key::new(key).open(nonce, &[], &mut sealed) else {
                if self.spoils {
                    data.fill(0);
                }
                return if self.believes == Some(data.len()) {
                    Ok(())
                } else {
                    Err(Forged)
                };
            };
            data.copy_from_slice(message);
            if self.opens == Some(data.len())
                && let Some(first) = data.first_mut()
            {
                *first ^= 1;
            }
            Ok(())
        }
    }

    #[test]
    fn a_cipher_that_is_right_passes() {
        assert!(passes(&Flawed::default()));
    }

    #[test]
    fn a_cipher_that_is_wrong_at_one_length_does_not() {
        for length in LENGTHS {
            let at = Some(length);
            let right = Flawed::default();
            assert!(
                !passes(&Flawed {
                    believes: at,
                    ..right
                }),
                "{length}"
            );
            assert!(!passes(&Flawed { tags: at, ..right }), "{length}");
            if length > 0 {
                assert!(!passes(&Flawed { seals: at, ..right }), "{length}");
                assert!(!passes(&Flawed { opens: at, ..right }), "{length}");
            }
        }
        assert!(!passes(&Flawed {
            spoils: true,
            ..Flawed::default()
        }));
    }
}
