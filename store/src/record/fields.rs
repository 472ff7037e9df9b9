//! Numbers and texts of a record: how each is written, and read back.

use std::sync::Arc;

use super::DecodeError;

/// Appends a number in sevens of bits, lowest first.
pub(super) fn number(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        to.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    to.push(low);
}

/// Appends a signed number, folded so that small ones of either sign stay short.
pub(super) fn signed(signed: i64, to: &mut Vec<u8>) {
    number(((signed << 1) ^ (signed >> 63)).cast_unsigned(), to);
}

/// Appends a number that may be missing, as one more than it is.
pub(super) fn opt(maybe: Option<u64>, to: &mut Vec<u8>) {
    number(maybe.map_or(0, |it| it.saturating_add(1)), to);
}

/// Appends a text behind its length.
pub(super) fn text(text: &str, to: &mut Vec<u8>) {
    number(super::length(text.len()), to);
    to.extend_from_slice(text.as_bytes());
}

/// Appends texts behind their number.
pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a Arc<str>> + Clone, to: &mut Vec<u8>) {
    number(super::length(texts.clone().count()), to);
    for one in texts {
        text(one, to);
    }
}

/// A name with what belongs to it.
pub(super) type Pair = (Arc<str>, Arc<str>);

/// What is left of a record to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError)
    }

    /// A number that fits what it is read into.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.number()?).map_err(|_| DecodeError)
    }

    pub(super) fn signed(&mut self) -> Result<i64, DecodeError> {
        let folded = self.number()?;
        Ok((folded >> 1).cast_signed() ^ -((folded & 1).cast_signed()))
    }

    pub(super) fn opt<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, DecodeError> {
        match self.number()?.checked_sub(1) {
            None => Ok(None),
            Some(number) => T::try_from(number).map(Some).map_err(|_| DecodeError),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.small()?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| DecodeError)
    }

    pub(super) fn shared(&mut self) -> Result<Arc<str>, DecodeError> {
        self.text().map(Arc::from)
    }

    pub(super) fn list(&mut self) -> Result<Vec<Arc<str>>, DecodeError> {
        (0..self.number()?).map(|_| self.shared()).collect()
    }

    pub(super) fn pairs(&mut self) -> Result<Vec<Pair>, DecodeError> {
        let texts = self.number()?;
        (0..texts / 2)
            .map(|_| Ok((self.shared()?, self.shared()?)))
            .collect()
    }
}
