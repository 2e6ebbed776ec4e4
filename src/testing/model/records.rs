//! The records inside an uncompressed batch, format v2, as a broker reads them.
//!
//! Deliberately apart from the code that the producer encodes with: the test broker is the second
//! pair of eyes on its output.

/// A record; its bytes are still in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Milliseconds after the batch's base timestamp.
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// The bytes are not the records that the header announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads `count` records, which must fill `bytes` exactly, and calls `each` with index and record.
pub(crate) fn read_records<'a>(
    bytes: &'a [u8],
    count: i32,
    mut each: impl FnMut(i32, &Record<'a>),
) -> Result<(), Malformed> {
    let mut rest = Cursor(bytes);
    for index in 0..count {
        let length = rest.length()?.ok_or(Malformed)?;
        let mut body = Cursor(rest.take(length)?);
        let record = read_record(&mut body)?;
        if !body.0.is_empty() {
            return Err(Malformed);
        }
        each(index, &record);
    }
    if rest.0.is_empty() { Ok(()) } else { Err(Malformed) }
}

fn read_record<'a>(body: &mut Cursor<'a>) -> Result<Record<'a>, Malformed> {
    body.take(1)?; // attributes, unused
    let timestamp_delta = body.varint()?;
    body.varint()?; // the offset follows from the place in the batch
    let key = body.nullable()?;
    let value = body.nullable()?;
    let count = body.length()?.ok_or(Malformed)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name =
            std::str::from_utf8(body.nullable()?.ok_or(Malformed)?).map_err(|_| Malformed)?;
        headers.push((name, body.nullable()?));
    }
    Ok(Record { timestamp_delta, key, value, headers })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A zigzag varint.
    fn varint(&mut self) -> Result<i64, Malformed> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(Malformed)
    }

    /// A length; `None` is null.
    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        match self.varint()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length()? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }
}
