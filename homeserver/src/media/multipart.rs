//! Reads and writes the `multipart/mixed` in which servers hand each other media, piece by piece. Pure.
//!
//! The first part is JSON metadata, which the specification leaves empty; the second is the content, or a `Location`
//! where it is.

use bytes::{Buf as _, Bytes, BytesMut};
use rand::RngExt as _;

/// The most bytes that may come before the content: a preamble, the metadata and two heads.
const MAX_BEFORE_CONTENT: usize = 64 * 1024;
/// The longest boundary that RFC 2046 (section 5.1.1) allows.
const MAX_BOUNDARY: usize = 70;

/// Why a body is no such multipart: the other server's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    #[error("the content type is not multipart/mixed with a boundary")]
    ContentType,
    #[error("there is too much before the content")]
    TooMuchBefore,
    #[error("a part's head cannot be read")]
    Head,
    #[error("the body has fewer than two parts or ends within the content")]
    Truncated,
}

/// What the head of the content says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub content_type: Option<String>,
    pub content_disposition: Option<String>,
    pub location: Option<String>,
}

/// What comes out of a [`Reader`], in this order: one head, any number of chunks, one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Head(Head),
    Chunk(Bytes),
    End,
}

/// Finds the content in a body that arrives in chunks of any size.
pub(super) struct Reader {
    /// Line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    place: Place,
    before_content: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Preamble,
    /// Right behind a delimiter.
    DelimiterLine(Part),
    HeadLine(Part, Head),
    Metadata,
    Content,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Metadata,
    Content,
}

impl Reader {
    /// A reader of a body with this `Content-Type`.
    pub(super) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let boundary = boundary(content_type).ok_or(MultipartError::ContentType)?;
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first delimiter may stand at the very beginning, without the line break that belongs to it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Ok(Self { delimiter, buffer, place: Place::Preamble, before_content: 0 })
    }

    /// Takes the next bytes of the body.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.place != Place::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next piece; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, MultipartError> {
        loop {
            let is_before = !matches!(self.place, Place::Content | Place::End);
            if is_before && self.before_content.saturating_add(self.buffer.len()) > MAX_BEFORE_CONTENT {
                // What a chunk brought of the content itself does not count.
                if self.before_content > MAX_BEFORE_CONTENT || !self.can_move() {
                    return Err(MultipartError::TooMuchBefore);
                }
            }
            let length = self.buffer.len();
            let (step, place) = self.step()?;
            if is_before {
                self.before_content = self.before_content.saturating_add(length.saturating_sub(self.buffer.len()));
            }
            self.place = place;
            match step {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::Moved => {}
                Step::Hungry => return Ok(None),
            }
        }
    }

    /// Whether the bytes at hand complete a line or a part.
    fn can_move(&self) -> bool {
        match self.place {
            Place::Preamble | Place::Metadata => find(&self.buffer, &self.delimiter).is_some(),
            Place::DelimiterLine(_) | Place::HeadLine(..) => self.buffer.contains(&b'\n'),
            Place::Content | Place::End => true,
        }
    }

    fn step(&mut self) -> Result<(Step, Place), MultipartError> {
        match self.place.clone() {
            Place::Preamble => Ok(self.skip_to_delimiter(Place::Preamble, Part::Metadata)),
            Place::Metadata => Ok(self.skip_to_delimiter(Place::Metadata, Part::Content)),
            Place::DelimiterLine(part) => self.delimiter_line(part),
            Place::HeadLine(part, head) => self.head_line(part, head),
            Place::Content => Ok(self.content()),
            Place::End => Ok((Step::Hungry, Place::End)),
        }
    }

    fn skip_to_delimiter(&mut self, place: Place, next: Part) -> (Step, Place) {
        match find(&self.buffer, &self.delimiter) {
            Some(at) => {
                self.buffer.advance(at + self.delimiter.len());
                (Step::Moved, Place::DelimiterLine(next))
            }
            None => (Step::Hungry, place),
        }
    }

    fn delimiter_line(&mut self, part: Part) -> Result<(Step, Place), MultipartError> {
        // Two dashes would end the body here, before the content.
        if self.buffer.starts_with(b"--") {
            return Err(MultipartError::Truncated);
        }
        match self.line() {
            Some(line) if line.iter().all(u8::is_ascii_whitespace) => {
                Ok((Step::Moved, Place::HeadLine(part, Head::default())))
            }
            Some(_) => Err(MultipartError::Head),
            None => Ok((Step::Hungry, Place::DelimiterLine(part))),
        }
    }

    fn head_line(&mut self, part: Part, mut head: Head) -> Result<(Step, Place), MultipartError> {
        let Some(line) = self.line() else { return Ok((Step::Hungry, Place::HeadLine(part, head))) };
        let line = std::str::from_utf8(&line).map_err(|_| MultipartError::Head)?.trim();
        if line.is_empty() {
            return Ok(match part {
                Part::Metadata => {
                    // The line break before the delimiter may be the one that ended the head.
                    self.restore_line_break();
                    (Step::Moved, Place::Metadata)
                }
                Part::Content => (Step::Piece(Piece::Head(head)), Place::Content),
            });
        }
        let (name, value) = line.split_once(':').ok_or(MultipartError::Head)?;
        let value = Some(value.trim().to_owned());
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" => head.content_type = value,
            "content-disposition" => head.content_disposition = value,
            "location" => head.location = value,
            _ => {}
        }
        Ok((Step::Moved, Place::HeadLine(part, head)))
    }

    fn content(&mut self) -> (Step, Place) {
        if let Some(at) = find(&self.buffer, &self.delimiter) {
            if at == 0 {
                self.buffer.clear();
                return (Step::Piece(Piece::End), Place::End);
            }
            return (Step::Piece(Piece::Chunk(self.buffer.split_to(at).freeze())), Place::Content);
        }
        // What may be the beginning of the delimiter stays.
        let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
        if sure == 0 {
            return (Step::Hungry, Place::Content);
        }
        (Step::Piece(Piece::Chunk(self.buffer.split_to(sure).freeze())), Place::Content)
    }

    /// The next line without its line feed.
    fn line(&mut self) -> Option<BytesMut> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        Some(line)
    }

    fn restore_line_break(&mut self) {
        let rest = self.buffer.split();
        self.buffer.extend_from_slice(b"\r\n");
        self.buffer.extend_from_slice(&rest);
    }
}

enum Step {
    Piece(Piece),
    Moved,
    Hungry,
}

/// What stands around a content: the bytes before it, the bytes behind it, and the `Content-Type` of the whole.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub before: Bytes,
    pub behind: Bytes,
    pub content_type: String,
}

impl Envelope {
    /// The envelope of a content of one type and disposition, both of which must be values of headers.
    pub fn new(content_type: &str, content_disposition: &str) -> Self {
        let boundary: String = rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect();
        Self {
            before: format!(
                "--{boundary}\r\ncontent-type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
                 content-type: {content_type}\r\ncontent-disposition: {content_disposition}\r\n\r\n"
            )
            .into(),
            behind: format!("\r\n--{boundary}--\r\n").into(),
            content_type: format!("multipart/mixed; boundary={boundary}"),
        }
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';').map(str::trim);
    if !parameters.next()?.eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let (_, value) = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let value = value.trim();
    // No boundary has a quotation mark or a backslash in it, so that taking off the quotation marks is all.
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_valid = (1..=MAX_BOUNDARY).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte));
    is_valid.then(|| value.to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(rest) = haystack.get(from..) {
        let at = from + rest.iter().position(|byte| *byte == first)?;
        if haystack.get(at..).is_some_and(|rest| rest.starts_with(needle)) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/mixed; boundary=abcdef";

    /// Reads `body` in chunks of `size`: the head and the content.
    fn read(content_type: &str, body: &[u8], size: usize) -> Result<(Head, Vec<u8>), MultipartError> {
        let mut reader = Reader::new(content_type)?;
        let (mut head, mut content) = (None, Vec::new());
        for chunk in body.chunks(size) {
            reader.feed(chunk);
            while let Some(piece) = reader.next()? {
                match piece {
                    Piece::Head(found) => head = Some(found),
                    Piece::Chunk(chunk) => content.extend_from_slice(&chunk),
                    Piece::End => return Ok((head.unwrap(), content)),
                }
            }
        }
        Err(MultipartError::Truncated)
    }

    #[test]
    fn what_is_written_is_read_in_chunks_of_any_size() {
        for content in [&b""[..], b"hello", b"\r\n--", b"\r\n\r\n--abcde\r\n-", &[b'\r'; 300], &[0; 70_000]] {
            let envelope = Envelope::new("text/plain", "inline; filename=a.txt");
            let body = [&envelope.before[..], content, &envelope.behind[..]].concat();
            for size in [1, 2, 7, 100, 4096, body.len()] {
                let (head, read) = read(&envelope.content_type, &body, size).unwrap();
                assert_eq!(head.content_type.as_deref(), Some("text/plain"));
                assert_eq!(head.content_disposition.as_deref(), Some("inline; filename=a.txt"));
                assert_eq!(read, content, "in chunks of {size}");
            }
        }
    }

    #[test]
    fn what_other_servers_write_is_read() {
        for body in [
            "\r\n--abcdef\r\ncontent-type: application/json\r\n\r\n{}\r\n--abcdef\r\n\r\nsome text\r\n--abcdef--",
            "--abcdef\r\nContent-Type:application/json\r\n\r\n{}\r\n--abcdef\r\n\r\nsome text\r\n--abcdef--\r\n",
            "a preamble\r\n--abcdef\n\n{}\r\n--abcdef  \nX: y\n\nsome text\r\n--abcdef",
            "--abcdef\r\n\r\n--abcdef\r\n\r\nsome text\r\n--abcdef--an epilogue",
        ] {
            for size in [1, 5, body.len()] {
                assert_eq!(read(TYPE, body.as_bytes(), size).unwrap().1, b"some text", "{body:?}");
            }
        }
        let elsewhere = "--abcdef\r\n\r\n{}\r\n--abcdef\r\nLocation: https://cdn.example/x\r\n\r\n\r\n--abcdef--";
        let (head, _) = read(TYPE, elsewhere.as_bytes(), 3).unwrap();
        assert_eq!(head.location.as_deref(), Some("https://cdn.example/x"));
    }

    #[test]
    fn what_is_no_multipart_is_refused() {
        for content_type in [
            "text/plain",
            "multipart/mixed",
            "multipart/form-data; boundary=a",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary=\"a\r\nb\"",
        ] {
            assert!(Reader::new(content_type).is_err(), "{content_type:?}");
        }
        assert!(Reader::new("Multipart/Mixed; charset=x; Boundary=\"a b\"").is_ok());
        for body in [
            "",
            "nothing at all",
            "--abcdef--",
            "--abcdef\r\n--abcdef\r\n--abcdef\r\n",
            "--abcdef\r\n\r\n{}\r\n--abcdef--",
            "--abcdef\r\n\r\n{}\r\n--abcdef\r\n\r\nno end",
            "--abcdef\r\nno colon\r\n\r\n{}\r\n--abcdef\r\n\r\n\r\n--abcdef--",
        ] {
            for size in [1, 4, 100] {
                assert!(read(TYPE, body.as_bytes(), size).is_err(), "{body:?}");
            }
        }
        let endless = vec![b'x'; MAX_BEFORE_CONTENT + 1];
        assert_eq!(read(TYPE, &endless, 1000).unwrap_err(), MultipartError::TooMuchBefore);
    }
}
