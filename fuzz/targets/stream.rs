//! Any bytes as a stream: however it is split, the same frames come out, and the
//! core answers each alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sturn::stun::framing::{self, Frame, MAX_FRAME};
use sturn_fuzz::Fixture;

/// The messages at the front of `buffer`, taken out of it; false once it is broken.
fn take(buffer: &mut Vec<u8>, messages: &mut Vec<Vec<u8>>) -> bool {
    loop {
        match framing::next(buffer) {
            Frame::Complete { message, frame } => {
                assert!(message <= frame && frame <= buffer.len() && frame - message < 4);
                assert!(frame <= MAX_FRAME && frame > 0);
                messages.push(buffer[..message].to_vec());
                buffer.drain(..frame);
            }
            Frame::Partial { needed } => {
                assert!(needed > buffer.len() && needed <= MAX_FRAME);
                return true;
            }
            Frame::Broken => return false,
        }
    }
}

// One byte says how many cuts there are, then come the cuts, then the stream.
fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(*count)));
    let (mut whole, mut at_once) = (stream.to_vec(), Vec::new());
    let sound = take(&mut whole, &mut at_once);

    let (mut buffer, mut in_pieces) = (Vec::new(), Vec::new());
    let (mut rest, mut still_sound) = (stream, true);
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(255));
    while still_sound && !rest.is_empty() {
        let cut = rest.len().min(1 + usize::from(cuts.next().unwrap_or(255)));
        buffer.extend_from_slice(&rest[..cut]);
        rest = &rest[cut..];
        still_sound = take(&mut buffer, &mut in_pieces);
    }
    assert_eq!(at_once, in_pieces, "the same messages");
    assert_eq!(sound, still_sound);

    Fixture::reused(|fixture| {
        for message in &at_once {
            fixture.from_client(1, message);
        }
    });
});
