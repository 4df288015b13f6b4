//! An HTTP server with prepared answers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// Starts an HTTP server on loopback and returns its URL and the requests that it received. It answers each request in
/// turn; an empty answer closes the connection.
pub fn http_server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let asked = std::thread::spawn(move || {
        answers
            .into_iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().expect("a client connects");
                let request = read(&mut stream);
                let _gone = stream.write_all(answer.as_bytes());
                request
            })
            .collect()
    });
    (url, asked)
}

/// Reads a request with its body.
fn read(stream: &mut TcpStream) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 4_096]);
    loop {
        let length = stream.read(&mut bytes).expect("a request comes");
        text.push_str(std::str::from_utf8(&bytes[..length]).expect("a request is UTF-8"));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            // A request without a body has no length.
            let length = lower.split("content-length: ").nth(1).unwrap_or("0");
            if body.len()
                >= length.lines().next().unwrap_or("").parse().expect("a length is a number")
            {
                return text;
            }
        }
    }
}

/// The answer of an HTTP server.
pub fn http_answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
