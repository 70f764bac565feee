//! A web server for the files of a directory, with ranges: what a repository needs, and what machines reach at 10.0.2.2.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

/// A server on loopback; it lives as long as the test.
#[derive(Debug)]
pub struct Web {
    port: u16,
}

impl Web {
    /// Serves a directory.
    ///
    /// # Panics
    /// When loopback has no port.
    #[must_use]
    pub fn serve(directory: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let port = listener.local_addr().expect("its address").port();
        let directory = directory.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let directory = directory.clone();
                thread::spawn(move || {
                    let _ = answer(&stream, &directory);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port }
    }

    /// Its address as a machine with QEMU's user network sees it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://10.0.2.2:{}/", self.port)
    }

    /// A cloud-config with which a machine takes its updates from here; `settings` are further lines of `garboard.update`.
    #[must_use]
    pub fn user_data(&self, settings: &str) -> String {
        let settings: String = settings.lines().map(|line| format!("    {line}\n")).collect();
        format!("#cloud-config\ngarboard:\n  update:\n    server: {}\n{settings}", self.url())
    }
}

fn answer(mut stream: &TcpStream, directory: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((first, last)) = line.strip_prefix("range: bytes=").and_then(|text| text.split_once('-')) {
            range = first.parse::<usize>().ok().zip(last.parse::<usize>().ok());
        }
    }
    let file: PathBuf = directory.join(&path);
    let content = match fs::read(&file) {
        Ok(content) if !path.contains("..") => content,
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    };
    let size = content.len();
    match range.filter(|(first, last)| first <= last && *first < size) {
        Some((first, last)) => {
            let part = content.get(first..size.min(last + 1)).unwrap_or_default();
            let end = first + part.len() - 1;
            write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{end}/{size}\r\n")?;
            write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
            stream.write_all(part)
        }
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&content)
        }
    }
}
