//! Tiny servers inside zones.

use std::net::{SocketAddrV4, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use holdfast_integration::zones::{Zone, Zones};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Ends with what holds it.
pub(crate) type Running = JoinSet<()>;

/// Listens on `at`, an address of `zone`.
pub(crate) fn listen(zones: &Zones, zone: Zone, at: SocketAddrV4) -> Result<TcpListener> {
    let listener = zones.inside(zone, || TcpListener::bind(at))?;
    listener.with_context(|| format!("listen on {at}"))
}

/// Sends everything back.
pub(crate) fn echo(zones: &Zones, zone: Zone, at: SocketAddrV4) -> Result<Running> {
    serve(listen(zones, zone, at)?, |mut client| async move {
        let (mut from, mut to) = client.split();
        tokio::io::copy(&mut from, &mut to).await?;
        Ok(())
    })
}

/// Says `name` to whoever connects, and then holds the line.
pub(crate) fn engine(zones: &Zones, zone: Zone, at: SocketAddrV4, name: &'static str) -> Result<Running> {
    serve(listen(zones, zone, at)?, move |mut client| async move {
        client.write_all(format!("{name}\n").as_bytes()).await?;
        client.read_to_end(&mut Vec::new()).await?;
        Ok(())
    })
}

/// Answers every request as `/primary` does: 200 while `primary` is set, else 503.
pub(crate) fn http(zones: &Zones, zone: Zone, at: SocketAddrV4, primary: Arc<AtomicBool>) -> Result<Running> {
    serve(listen(zones, zone, at)?, move |mut client| {
        let primary = Arc::clone(&primary);
        async move {
            // One read has the request line, and nothing else matters.
            let _bytes = client.read(&mut [0; 1024]).await?;
            let status = if primary.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(answer.as_bytes()).await?;
            Ok(())
        }
    })
}

fn serve<T>(listener: TcpListener, talk: impl Fn(TcpStream) -> T + Send + 'static) -> Result<Running>
where
    T: Future<Output = Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let talking = talk(client);
            // A client that hangs up is no failure of the server.
            clients.spawn(async move { drop(talking.await) });
        }
    });
    Ok(running)
}
