//! What the process that serves requests is told and what it answers: the file of requests and the words written back.
//!
//! Both sides are this program, started twice, so the format has no versions: [`MAGIC`] tells an answer from whatever else
//! stood on the pipe.

/// First word of the file, and of the answer.
const MAGIC: u64 = u64::from_le_bytes(*b"xaSERVE\x01");

/// How much of a block is written to when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// A byte of every page.
    All,
    /// A byte of as many pages as the request before says ([`ask::TOUCH`]), from its beginning; of every page where none
    /// says so.
    Told,
    /// Its first byte.
    First,
    /// Nothing.
    Nothing,
}

impl Touch {
    fn from_word(word: u64) -> Option<Touch> {
        [Touch::All, Touch::Told, Touch::First, Touch::Nothing].into_iter().find(|&touch| touch as u64 == word)
    }
}

/// How the file begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Slots for blocks.
    pub slots: u64,
    /// Threads, the main one among them.
    pub threads: u64,
    /// How much of a block is written to.
    pub touch: Touch,
    /// Whether malloc's own calls are made, which another allocator has no word for.
    pub is_glibc: bool,
    /// Requests that follow.
    pub requests: u64,
}

impl Header {
    /// Words of the file's header.
    pub const WORDS: usize = 6;

    /// As it stands in the file.
    #[must_use]
    pub fn to_words(self) -> [u64; Header::WORDS] {
        [MAGIC, self.slots, self.threads, self.touch as u64, self.is_glibc.into(), self.requests]
    }

    /// Reads the beginning of a file.
    #[must_use]
    pub fn from_words(words: [u64; Header::WORDS]) -> Option<Header> {
        let [magic, slots, threads, touch, is_glibc, requests] = words;
        let header = Header { slots, threads, touch: Touch::from_word(touch)?, is_glibc: is_glibc != 0, requests };
        (magic == MAGIC).then_some(header)
    }
}

/// What a request of the file asks for; the numbers are the format's.
pub mod ask {
    #![allow(missing_docs, reason = "each is the kind of request of that name")]
    pub const MALLOC: u8 = 0;
    pub const CALLOC: u8 = 1;
    pub const MEMALIGN: u8 = 2;
    pub const REALLOC_OF: u8 = 3;
    pub const REALLOC: u8 = 4;
    pub const FREE: u8 = 5;
    pub const START: u8 = 6;
    pub const EXIT: u8 = 7;
    pub const BREAK: u8 = 8;
    pub const TRIM: u8 = 9;
    pub const MALLOPT: u8 = 10;
    pub const TOUCH: u8 = 11;
    pub const TICK: u8 = 12;
}

/// A request in the file: 16 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ask {
    /// Bytes, or what the kind says.
    pub size: u64,
    /// The block's slot.
    pub slot: u32,
    /// The thread.
    pub thread: u16,
    /// See [`ask`].
    pub kind: u8,
    /// Logarithm of the alignment.
    pub align_log2: u8,
}

impl Ask {
    /// The 16 bytes of the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.thread.to_le_bytes());
        bytes[14] = self.kind;
        bytes[15] = self.align_log2;
        bytes
    }
}

/// What was measured. Bytes are those beyond what the process had before the first request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names carry unit and meaning")]
pub struct Answer {
    /// Private writable memory (virtual), sampled; what is resident where the allocator reserved it when it was loaded.
    pub peak_footprint_bytes: u64,
    /// Over the recorded time.
    pub mean_footprint_bytes: u64,
    pub mean_by_request_bytes: u64,
    pub end_footprint_bytes: u64,
    /// Resident memory, from the kernel's high-water mark.
    pub peak_rss_bytes: u64,
    pub end_rss_bytes: u64,
    pub page_faults: u64,
    pub duration_ns: u64,
    /// Requests that the allocator refused.
    pub refused: u64,
    pub samples: u64,
    /// Whether the file in `LD_PRELOAD` is mapped.
    pub is_preloaded: bool,
}

impl Answer {
    /// Words of the answer.
    pub const WORDS: usize = 12;

    /// As the process writes it.
    #[must_use]
    pub fn to_words(self) -> [u64; Answer::WORDS] {
        [
            MAGIC,
            self.peak_footprint_bytes,
            self.mean_footprint_bytes,
            self.mean_by_request_bytes,
            self.end_footprint_bytes,
            self.peak_rss_bytes,
            self.end_rss_bytes,
            self.page_faults,
            self.duration_ns,
            self.refused,
            self.samples,
            self.is_preloaded.into(),
        ]
    }

    /// Reads the answer of the process.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Answer> {
        let mut words = [0; Answer::WORDS];
        if bytes.len() != size_of_val(&words) {
            return None;
        }
        for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(eight.try_into().ok()?);
        }
        let [magic, peak, mean, by_request, end, peak_rss, end_rss, faults, ns, refused, samples, preloaded] = words;
        (magic == MAGIC).then_some(Answer {
            peak_footprint_bytes: peak,
            mean_footprint_bytes: mean,
            mean_by_request_bytes: by_request,
            end_footprint_bytes: end,
            peak_rss_bytes: peak_rss,
            end_rss_bytes: end_rss,
            page_faults: faults,
            duration_ns: ns,
            refused,
            samples,
            is_preloaded: preloaded != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Answer = Answer {
        peak_footprint_bytes: 1,
        mean_footprint_bytes: 2,
        mean_by_request_bytes: 11,
        end_footprint_bytes: 3,
        peak_rss_bytes: 4,
        end_rss_bytes: 5,
        page_faults: 6,
        duration_ns: 7,
        refused: 8,
        samples: 9,
        is_preloaded: true,
    };

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_only_whole_and_with_its_magic() {
        let mut words = ANSWER.to_words();
        assert_eq!(Answer::from_bytes(&bytes(&words)), Some(ANSWER));
        assert_eq!(Answer::from_bytes(&bytes(&words)[1..]), None);
        words[0] = 1;
        assert_eq!(Answer::from_bytes(&bytes(&words)), None);
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_only_with_its_magic_and_a_known_way_to_touch() {
        let header = Header { slots: 1, threads: 2, touch: Touch::Nothing, is_glibc: true, requests: 3 };
        let words = header.to_words();
        assert_eq!(Header::from_words(words), Some(header));
        assert_eq!(Header::from_words([1, words[1], words[2], words[3], words[4], words[5]]), None);
        let unknown = Touch::Nothing as u64 + 1;
        assert_eq!(Header::from_words([words[0], words[1], words[2], unknown, words[4], words[5]]), None);
    }
}
