//! Bounds-checked reading and writing of fixed binary layouts, little-endian. For what is too big for JSON.
//!
//! Invariant, a test below: `reading_past_the_end_is_an_error_not_a_panic`.

/// The bytes end before the value does, or a count promises more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cut short or not such a layout")]
pub struct LayoutError;

/// Reads from the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], LayoutError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(LayoutError)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        self.bytes(N)?.try_into().map_err(|_wrong_length| LayoutError)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, LayoutError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, LayoutError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, LayoutError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, LayoutError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of items of at least `item` bytes each: refused if so many cannot follow, so that nothing is reserved
    /// for a count that lies.
    pub(crate) fn count(&mut self, item: usize) -> Result<usize, LayoutError> {
        let count = usize::try_from(self.u32()?).map_err(|_no_such_machine| LayoutError)?;
        let bytes = count.checked_mul(item).ok_or(LayoutError)?;
        if bytes <= self.0.len() { Ok(count) } else { Err(LayoutError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_is_an_error_not_a_panic() {
        let mut reader = Reader::new(&[1, 0, 0, 0, 9]);
        assert_eq!(reader.count(2), Err(LayoutError), "one item of two bytes cannot follow");
        assert_eq!(reader.u8(), Ok(9));
        assert_eq!(reader.u8(), Err(LayoutError));
        assert!(reader.is_empty());
    }
}
