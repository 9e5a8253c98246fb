//! Text of bounded length, in place: paths and environment strings without an allocation.

use core::ffi::CStr;

/// Up to `N - 1` bytes and a NUL behind them. What does not fit is cut, and [`Text::is_cut`] says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<const N: usize> {
    length: usize,
    cut: bool,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub(crate) const fn new() -> Self {
        Text { length: 0, cut: false, bytes: [0; N] }
    }

    /// A copy of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut text = Text::new();
        text.push(bytes);
        text
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = (N - 1).saturating_sub(self.length);
        self.cut |= bytes.len() > room;
        for &byte in bytes.iter().take(room) {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = 0;
        }
    }

    /// Appends a decimal number.
    pub(crate) fn push_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut rest = number;
        let mut first = digits.len();
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first = at;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    /// Appends an address, hexadecimal.
    pub(crate) fn push_address(&mut self, address: u64) {
        self.push(b"0x");
        let digits = (u64::BITS - address.leading_zeros()).div_ceil(4).max(1);
        for at in (0..digits).rev() {
            let digit = (address >> (4 * at) & 15) as u8;
            self.push(&[if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }]);
        }
    }

    /// The text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The text up to its first NUL, for the system.
    pub(crate) fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Whether something did not fit.
    pub(crate) const fn is_cut(&self) -> bool {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn text_that_does_not_fit_is_cut_and_stays_terminated() {
        let mut text = Text::<8>::of(b"seven");
        text.push_number(1203);
        assert_eq!(text.as_bytes(), b"seven12");
        assert!(text.is_cut());
        assert_eq!(text.as_c(), c"seven12");
    }

    #[test]
    fn numbers_are_decimal_and_addresses_hexadecimal() {
        let mut text = Text::<64>::new();
        for number in [0, 7, 10, u64::MAX] {
            text.push_number(number);
            text.push(b" ");
        }
        assert_eq!(text.as_bytes(), b"0 7 10 18446744073709551615 ");
        let mut text = Text::<64>::new();
        for address in [0, 0xf, 0x10, 0x7f0c_1000_29af] {
            text.push_address(address);
            text.push(b" ");
        }
        assert_eq!(text.as_bytes(), b"0x0 0xf 0x10 0x7f0c100029af ");
    }
}
