//! A web server for files that behaves as badly as a test wants.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What it does to requests for packs; metadata and maps are served well unless `everything`.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// All requests are affected.
    pub everything: bool,
    /// Requests for files with this ending are affected, and no others.
    pub only: Option<&'static str>,
    /// Ranges are not looked at.
    pub no_ranges: bool,
    /// The line breaks after so many bytes of a body, as often as this. A shorter body comes whole and does not count.
    pub drop_after: Option<(u64, u32)>,
    /// The line breaks once, when so many bytes of packs have been sent in all.
    pub drop_at: Option<u64>,
    /// The answer stops there and the line stays open.
    pub stall_after: Option<u64>,
    /// Every answer has this status, with this `Retry-After`, as often as this.
    pub status: Option<(u16, Option<u32>, u32)>,
    /// What `Retry-After` says instead.
    pub retry_after: Option<&'static str>,
    /// Redirects to itself.
    pub redirect: bool,
    /// `Content-Length` says so many bytes more than come.
    pub lie: u64,
    /// There is no `Content-Length`: where the line ends is where the answer does.
    pub no_length: bool,
    /// The answer has no end.
    pub endless: bool,
    /// 200 and this text.
    pub page: Option<&'static str>,
    /// `Content-Range` is of a file with another size.
    pub other_size: bool,
    /// One byte of a body is wrong, as often as this.
    pub flip: u32,
    /// Pieces of so many bytes with so many milliseconds between.
    pub trickle: Option<(usize, u64)>,
}

/// The server's knobs and what it has seen.
#[derive(Debug, Default)]
pub struct Shared {
    pub behaviour: Behaviour,
    /// Method and path with its range.
    pub requests: Vec<String>,
    /// Bytes of bodies of packs that were sent.
    pub sent: u64,
}

pub struct Server {
    pub url: String,
    pub shared: Arc<Mutex<Shared>>,
}

impl Server {
    /// Serves a directory on loopback until the runtime ends.
    pub async fn start(directory: PathBuf) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // What has not left the server was not fetched.
        socket.set_send_buffer_size(256 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, directory.clone(), Arc::clone(&of_server)));
            }
        });
        Self { url, shared }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        let mut shared = self.shared.lock().unwrap();
        *shared = Shared { behaviour, ..Shared::default() };
    }
}

async fn serve(mut stream: TcpStream, directory: PathBuf, shared: Arc<Mutex<Shared>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let range = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let is_pack = [".pack", ".patch", ".table"].iter().any(|kind| path.ends_with(kind));
    let behaviour = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(format!("{path} {}", range.as_deref().unwrap_or("-")));
        let mut now = shared.behaviour.clone();
        let is_affected = now.only.map_or(is_pack || now.everything, |only| path.ends_with(only));
        if !is_affected {
            now = Behaviour::default();
        } else {
            for (count, used) in [(now.drop_after.map(|drop| drop.1), 0), (now.status.map(|status| status.2), 1), (Some(now.flip), 2)] {
                match (count, used) {
                    (Some(0), 0) => now.drop_after = None,
                    (Some(0), 1) => now.status = None,
                    _ => {}
                }
            }
            if let Some(status) = &mut shared.behaviour.status {
                status.2 = status.2.saturating_sub(1);
            }
            shared.behaviour.flip = shared.behaviour.flip.saturating_sub(1);
        }
        now
    };
    let _ = answer(&mut stream, &directory, &path, range, &behaviour, is_pack, &shared).await;
}

async fn answer(
    stream: &mut TcpStream,
    directory: &std::path::Path,
    path: &str,
    range: Option<String>,
    behaviour: &Behaviour,
    is_pack: bool,
    shared: &Arc<Mutex<Shared>>,
) -> std::io::Result<()> {
    if let Some((status, after, _)) = behaviour.status {
        let after = behaviour.retry_after.map(str::to_owned).or(after.map(|after| after.to_string()));
        let after = after.map_or(String::new(), |after| format!("Retry-After: {after}\r\n"));
        return stream.write_all(format!("HTTP/1.1 {status} no\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).await;
    }
    if behaviour.redirect {
        return stream
            .write_all(format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
    }
    let unsaid = behaviour.endless || behaviour.no_length;
    let length = |len: u64| if unsaid { String::new() } else { format!("Content-Length: {len}\r\n") };
    if let Some(page) = behaviour.page {
        let len = length(page.len() as u64);
        return stream.write_all(format!("HTTP/1.1 200 OK\r\n{len}Connection: close\r\n\r\n{page}").as_bytes()).await;
    }
    if behaviour.endless && !is_pack {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
        loop {
            stream.write_all(&[b' '; 16 << 10]).await?;
        }
    }
    let Ok(content) = std::fs::read(directory.join(path.trim_start_matches('/'))) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let size = content.len() as u64 + if behaviour.other_size { 7 } else { 0 };
    let span = range.filter(|_| !behaviour.no_ranges).and_then(|text| {
        let (first, last) = text.trim().split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?.min(content.len() - 1)))
    });
    let (status, body, extra) = match span {
        Some((first, last)) => ("206 Partial Content", &content[first..=last], format!("Content-Range: bytes {first}-{last}/{size}\r\n")),
        None => ("200 OK", &content[..], String::new()),
    };
    let mut body = body.to_vec();
    if behaviour.flip > 0 {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    if behaviour.endless {
        body.extend([0; 1 << 20]);
    }
    let len = length(body.len() as u64 + behaviour.lie);
    stream.write_all(format!("HTTP/1.1 {status}\r\n{extra}{len}Connection: close\r\n\r\n").as_bytes()).await?;
    let mut end = behaviour.drop_after.map(|drop| drop.0).or(behaviour.stall_after).map_or(body.len(), |at| (at as usize).min(body.len()));
    {
        let mut shared = shared.lock().unwrap();
        if let Some(drop) = shared.behaviour.drop_after.as_mut().filter(|drop| behaviour.drop_after.is_some() && drop.0 < body.len() as u64)
        {
            drop.1 = drop.1.saturating_sub(1);
        }
        let left = behaviour.drop_at.and_then(|at| at.checked_sub(shared.sent)).filter(|left| is_pack && *left < body.len() as u64);
        if let Some(left) = left {
            end = left as usize;
            shared.behaviour.drop_at = None;
        }
    }
    let (step, pause) = behaviour.trickle.unwrap_or((64 << 10, 0));
    for piece in body[..end].chunks(step) {
        stream.write_all(piece).await?;
        if is_pack {
            shared.lock().unwrap().sent += piece.len() as u64;
        }
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    if behaviour.stall_after.is_some() {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    stream.flush().await
}
