#![no_main]
//! Bytes cut into frames, arriving in pieces of any size.

use kafka_producer::internal::peer::read_frames;
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else { return };
    let in_pieces = bounded(stream, |stream| read_frames(stream, usize::from(*piece), 1 << 20));
    // Frames do not depend on how the bytes arrive.
    assert_eq!(in_pieces, read_frames(stream, usize::MAX, 1 << 20));
    assert!(in_pieces.iter().map(|length| length + 4).sum::<usize>() <= stream.len());
});
