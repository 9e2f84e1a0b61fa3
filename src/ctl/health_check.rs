//! `lamplighter health`: an HTTP health check for containers without curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Errors of the health check.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The URL is malformed.
    #[error("'{0}' is not http://HOST:PORT/PATH")]
    Url(String),
    /// No connection, or no complete response in time.
    #[error("no answer from {0}: {1}")]
    Unreachable(String, io::Error),
    /// The server answered with another status than 200.
    #[error("{0} answered: {1}")]
    Unwell(String, String),
}

/// Timeout of connecting, and of each read and write.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends a GET request to the URL; returns `Ok` if the status is 200.
pub fn probe(url: &str) -> Result<(), HealthError> {
    let wrong = || HealthError::Url(url.into());
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = if host.ends_with(']') || !host.contains(':') { format!("{host}:80") } else { host.into() };
    if host.is_empty() || url.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let answer = first_line(&address, host, path).map_err(|e| HealthError::Unreachable(host.into(), e))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(HealthError::Unwell(host.into(), answer)),
    }
}

fn first_line(address: &str, host: &str, path: &str) -> io::Result<String> {
    let address = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Sent in one write: a server that answers before it has read everything may reset the connection.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(16 * 1024).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_once(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn only_200_is_well() {
        assert!(probe(&answer_once("HTTP/1.1 200 OK\r\n\r\n")).is_ok());
        assert!(matches!(probe(&answer_once("HTTP/1.1 503 Not Now\r\n\r\n")), Err(HealthError::Unwell(..))));
        assert!(matches!(probe("ftp://x"), Err(HealthError::Url(_))));
    }
}
