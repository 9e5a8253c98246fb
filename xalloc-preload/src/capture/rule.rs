//! How to get from a frame to its caller, in eight bytes.
//!
//! Call-frame information says for every instruction how each register of the caller is found. Of all that, a stack
//! walk needs three: the canonical frame address (CFA: the caller's stack pointer after the return), the return
//! address, which x86-64 always keeps right below the CFA, and `rbp`, on which older frames may be based.
//!
//! # Layout
//! Bits 0-3 kind, bits 4-5 where the caller's `rbp` is, bits 16-31 its offset in words of 8 bytes, bits 32-63 the
//! offset of the CFA in bytes; both offsets signed. Zero is no rule. Where `rbp` has no offset, bits 16-31 may say in
//! which word of the kernel's frame another register is.

/// How the CFA is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nowhere: the code does something that the other kinds cannot say. The walk is cut here.
    Stop = 1,
    /// `sp + offset`.
    Sp = 2,
    /// `fp + offset`.
    Fp = 3,
    /// The frame is the outermost: its return address is undefined, as in `_start` and at a thread's start.
    End = 4,
    /// `*(fp + offset)`: a frame that is aligned beyond 16 bytes and keeps the address of its arguments in a slot.
    Drap = 5,
    /// The kernel's frame below a signal handler: the interrupted registers lie at `sp`.
    Signal = 6,
    /// There is no information (generated code): as if the frame had a frame pointer, `fp + 16`.
    Guess = 7,
    /// A register other than `rsp` and `rbp`, plus offset; known only where a signal interrupted the frame.
    Register = 8,
}

/// Where the caller's `rbp` is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallerFp {
    /// It is still in `rbp`.
    Same,
    /// Saved so many bytes above the CFA (below, if negative).
    AtCfa(i64),
    /// Saved so many bytes above this frame's `rbp`.
    AtFp(i64),
    /// It cannot be had.
    Lost,
}

/// A rule; never zero, so that a zeroed table holds none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Rule(pub(crate) u64);

impl Rule {
    pub(crate) const STOP: Rule = Rule(Kind::Stop as u64);
    pub(crate) const END: Rule = Rule(Kind::End as u64);
    pub(crate) const SIGNAL: Rule = Rule(Kind::Signal as u64);
    pub(crate) const GUESS: Rule = Rule::new(Kind::Guess, 16, CallerFp::AtCfa(-16));

    /// A rule by its parts; [`Rule::STOP`] if the CFA's offset does not fit. An offset of the saved `rbp` that does
    /// not fit (256 KiB and more) loses only that register.
    pub(crate) const fn new(kind: Kind, cfa_offset: i64, caller_fp: CallerFp) -> Rule {
        if cfa_offset as i32 as i64 != cfa_offset {
            return Rule::STOP;
        }
        let (place, bytes) = match caller_fp {
            CallerFp::Same => (0, 0),
            CallerFp::AtCfa(bytes) => (1, bytes),
            CallerFp::AtFp(bytes) => (2, bytes),
            CallerFp::Lost => (3, 0),
        };
        let words = bytes / 8;
        let fits = words * 8 == bytes && words as i16 as i64 == words;
        let (place, words) = if fits { (place, words) } else { (3, 0) };
        Rule(kind as u64 | place << 4 | (words as u16 as u64) << 16 | (cfa_offset as i32 as u32 as u64) << 32)
    }

    /// The rule of a frame that was interrupted while its CFA was at an offset from a register that the kernel saved
    /// `saved_at` bytes into its own frame; `rbp` is still the caller's.
    pub(crate) const fn of_register(saved_at: u64, cfa_offset: i64) -> Rule {
        let rule = Rule::new(Kind::Register, cfa_offset, CallerFp::Same);
        if matches!(rule.kind(), Kind::Register) { Rule(rule.0 | (saved_at / 8) << 16) } else { rule }
    }

    /// Where the kernel saved the register, for [`Kind::Register`].
    pub(crate) const fn register_saved_at(self) -> u64 {
        (self.0 >> 16 & 0xffff) * 8
    }

    #[inline(always)]
    pub(crate) const fn kind(self) -> Kind {
        match self.0 & 15 {
            2 => Kind::Sp,
            3 => Kind::Fp,
            4 => Kind::End,
            5 => Kind::Drap,
            6 => Kind::Signal,
            7 => Kind::Guess,
            8 => Kind::Register,
            _ => Kind::Stop,
        }
    }

    /// Whether the rule is of this kind: where most are of another, that is less than to find out which.
    #[inline(always)]
    pub(crate) const fn is(self, kind: Kind) -> bool {
        self.0 & 15 == kind as u64
    }

    /// Bytes; what they are added to depends on the kind.
    #[inline(always)]
    pub(crate) const fn cfa_offset(self) -> u64 {
        ((self.0 as i64) >> 32) as u64
    }

    #[inline(always)]
    pub(crate) const fn caller_fp(self) -> CallerFp {
        let bytes = ((self.0 >> 16) as i16 as i64) * 8;
        match self.0 >> 4 & 3 {
            0 => CallerFp::Same,
            1 => CallerFp::AtCfa(bytes),
            2 => CallerFp::AtFp(bytes),
            _ => CallerFp::Lost,
        }
    }

    /// Whether the step to the caller needs this frame's `rbp`, other than to pass it on.
    #[inline(always)]
    pub(crate) const fn uses_fp(self) -> bool {
        let based_on_fp = 1 << Kind::Fp as u64 | 1 << Kind::Drap as u64 | 1 << Kind::Guess as u64;
        based_on_fp >> (self.0 & 15) & 1_u64 != 0 || matches!(self.caller_fp(), CallerFp::AtFp(_))
    }

    /// Whether the caller's `rbp` is this frame's.
    #[inline(always)]
    pub(crate) const fn passes_fp_on(self) -> bool {
        matches!(self.caller_fp(), CallerFp::Same) && !self.is(Kind::Signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_what_it_was_made_of() {
        for kind in [Kind::Sp, Kind::Fp, Kind::Drap, Kind::Guess] {
            for offset in [8, 16, -8, 1 << 30, -(1 << 30)] {
                for caller in [CallerFp::Same, CallerFp::AtCfa(-16), CallerFp::AtFp(0), CallerFp::Lost] {
                    let rule = Rule::new(kind, offset, caller);
                    assert_eq!((rule.kind(), rule.cfa_offset() as i64, rule.caller_fp()), (kind, offset, caller));
                }
            }
        }
        let register = Rule::of_register(56, -8);
        assert_eq!((register.kind(), register.caller_fp()), (Kind::Register, CallerFp::Same));
        assert_eq!((register.register_saved_at(), register.cfa_offset() as i64), (56, -8));
        assert_eq!(Rule::END.kind(), Kind::End);
        assert_eq!(Rule::SIGNAL.kind(), Kind::Signal);
    }

    #[test]
    fn what_does_not_fit_is_given_up_and_never_cut_short() {
        assert_eq!(Rule::new(Kind::Sp, 1 << 31, CallerFp::Same), Rule::STOP);
        assert_eq!(Rule::new(Kind::Sp, 8, CallerFp::AtCfa(-(1 << 20))).caller_fp(), CallerFp::Lost);
        assert_eq!(Rule::new(Kind::Sp, 8, CallerFp::AtCfa(-12)).caller_fp(), CallerFp::Lost);
    }
}
