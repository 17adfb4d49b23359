//! Looking at a write-ahead log for damage that SQLite passes over in silence.
//!
//! SQLite takes a frame whose checksum does not fit for the end of the log, as it must after
//! a power cut. When whole commits of the same generation stand behind such a frame, they
//! were acknowledged once, and something changed the file since. The format is described in
//! "WAL-mode File Format" of the SQLite documentation.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The number, from 1, of a damaged frame that has a commit of the same generation behind it.
pub(crate) fn damaged_frame(path: &Path) -> std::io::Result<Option<u64>> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let mut file = match File::open(name) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0u8; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let big_endian = word(&header, 0) & 1 == 1;
    let page_size = word(&header, 8) as usize;
    if !(512..=65_536).contains(&page_size) || !page_size.is_power_of_two() {
        return Ok(Some(0));
    }
    let salts = (word(&header, 16), word(&header, 20));
    let mut sum = (0, 0);
    checksum(&mut sum, header.get(..24).unwrap_or_default(), big_endian);
    if sum != (word(&header, 24), word(&header, 28)) {
        return Ok(Some(0));
    }
    let mut frame = vec![0u8; FRAME_HEADER + page_size];
    let (mut number, mut broken) = (0, None);
    while fill(&mut file, &mut frame)? {
        number += 1;
        let same_generation = (word(&frame, 8), word(&frame, 12)) == salts;
        if broken.is_none() {
            checksum(&mut sum, frame.get(..8).unwrap_or_default(), big_endian);
            checksum(&mut sum, frame.get(FRAME_HEADER..).unwrap_or_default(), big_endian);
            if !same_generation || sum != (word(&frame, 16), word(&frame, 20)) {
                broken = Some(number);
            }
        }
        // A commit frame tells the size of the database after it.
        if same_generation && word(&frame, 4) != 0 && broken.is_some() {
            return Ok(broken);
        }
    }
    Ok(None)
}

fn fill(file: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(sum: &mut (u32, u32), bytes: &[u8], big_endian: bool) {
    for pair in bytes.chunks_exact(8) {
        let (a, b) = pair.split_at(4);
        let read = |half: &[u8]| {
            let half = half.try_into().unwrap_or_default();
            if big_endian { u32::from_be_bytes(half) } else { u32::from_le_bytes(half) }
        };
        sum.0 = sum.0.wrapping_add(read(a)).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(read(b)).wrapping_add(sum.0);
    }
}
