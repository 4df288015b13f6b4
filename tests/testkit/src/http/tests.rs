use std::io::{self, Cursor};

use super::*;

/// A connection on which these bytes come, whatever is sent.
struct Scripted {
    comes: Cursor<&'static [u8]>,
    sent: Vec<u8>,
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.comes.read(buffer)
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client(comes: &'static str) -> HttpClient<Scripted> {
    HttpClient::over(Scripted { comes: Cursor::new(comes.as_bytes()), sent: Vec::new() })
}

fn bodies(comes: &'static str) -> Vec<(u16, String)> {
    let mut client = client(comes);
    let answers = std::iter::from_fn(|| client.answer());
    answers.map(|answer| (answer.status, answer.body)).collect()
}

#[test]
fn request_names_its_length() {
    let mut client = client("");
    assert_eq!(client.ask("PUT /a?b=c", &["x: 1", "y: 2"], b"body"), None);
    let sent = String::from_utf8(client.stream.into_inner().sent).unwrap();
    assert_eq!(
        sent,
        "PUT /a?b=c HTTP/1.1\r\nhost: x\r\nx: 1\r\ny: 2\r\ncontent-length: 4\r\n\r\nbody"
    );
}

#[test]
fn answers_of_one_connection_end_with_their_bodies() {
    let both = "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n\
                HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n\
                HTTP/1.1 200 OK\r\n\r\nto the\nend";
    let expected = [(201, "abc"), (204, ""), (200, "abc0123456789"), (200, "to the\nend")];
    assert_eq!(bodies(both), expected.map(|(status, body)| (status, body.to_owned())));
}

#[test]
fn cut_answer_is_none() {
    for cut in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "no answer\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        assert!(bodies(cut).is_empty(), "{cut:?}");
    }
}

#[test]
fn extensions_and_trailers_of_chunks_are_skipped() {
    let both = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: 1\r\n\r\n\
                HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(bodies(both), [(200, "abc".to_owned()), (204, String::new())]);
}

#[test]
fn headers_are_found_by_any_spelling() {
    let answer = client("HTTP/1.1 200 OK\r\nLocation: /A:b\r\n\r\n").answer().unwrap();
    assert_eq!((answer.header("location"), answer.header("etag")), (Some("/A:b"), None));
    assert_eq!(answer.to_string(), "HTTP/1.1 200 OK\r\nLocation: /A:b\r\n\r\n");
}
