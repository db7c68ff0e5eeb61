//! Links that are cut and heal.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::process::{Background, command, run};
use holdfast_integration::zones::{Cut, Door, Zone, Zones};
use holdfast_integration::{Scratch, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{self, Running};

const SOON: Duration = Duration::from_secs(30);
/// Long enough for a packet that gets through, here.
const A_MOMENT: Duration = Duration::from_millis(500);
const PORT: u16 = 7000;

fn at(zone: Zone) -> SocketAddrV4 {
    SocketAddrV4::new(zone.address(1), PORT)
}

fn zones_with_servers(scratch: &Scratch) -> Result<(Zones, Vec<Running>)> {
    let zones = Zones::new(scratch)?;
    let servers = Zone::ALL.into_iter().map(|zone| server::echo(&zones, zone, at(zone)));
    let servers = servers.collect::<Result<_>>()?;
    Ok((zones, servers))
}

/// Every pair of different zones, both ways.
fn ways() -> impl Iterator<Item = (Zone, Zone)> {
    Zone::ALL
        .into_iter()
        .flat_map(|from| Zone::ALL.into_iter().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

/// What gets through is exactly what `expected` says: at once what is cut, and soon what is not.
async fn exactly(zones: &Zones, expected: impl Fn(Zone, Zone) -> bool) -> Result<()> {
    for (from, to) in ways() {
        let connected = || zones.connect(from, at(to), A_MOMENT);
        if expected(from, to) {
            eventually(&format!("{from:?} reaches {to:?}"), SOON, async || connected().map(drop)).await?;
        } else {
            ensure!(connected().is_err(), "{from:?} reaches {to:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_is_cut_off_reaches_nobody_until_it_is_healed_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let (zones, _servers) = zones_with_servers(&scratch)?;
    exactly(&zones, |_, _| true).await?;
    zones.impose(&[Cut::Off(Zone::A)])?;
    exactly(&zones, |from, to| from != Zone::A && to != Zone::A).await?;
    zones.heal()?;
    exactly(&zones, |_, _| true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_zones_that_are_cut_from_each_other_both_reach_the_third_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let (zones, _servers) = zones_with_servers(&scratch)?;
    zones.impose(&[Cut::Between(Zone::A, Zone::B)])?;
    exactly(&zones, |from, to| from == Zone::C || to == Zone::C).await?;
    // Replaced as a whole: what was cut before and is not named any more has healed.
    zones.impose(&[Cut::Between(Zone::B, Zone::C)])?;
    exactly(&zones, |from, to| from == Zone::A || to == Zone::A).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_zones_share_is_reached_whatever_is_cut_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let (zones, _servers) = zones_with_servers(&scratch)?;
    let shared = SocketAddrV4::new(Zones::REGION, PORT);
    let mut server = zones.region_command("haproxy");
    let config = scratch.path().join("haproxy.cfg");
    fs::write(&config, format!("defaults\nmode http\ntimeout client 1s\nlisten shared\nbind {shared}\n"))?;
    let _running = Background::start(server.arg("-db").arg("-f").arg(&config), &scratch.path().join("log"))?;
    eventually("a server beside the zones", SOON, async || zones.connect(Zone::A, shared, SOON)).await?;

    let everything = Zone::ALL.map(Cut::Off);
    zones.impose(&everything)?;
    exactly(&zones, |_, _| false).await?;
    for zone in Zone::ALL {
        zones.connect(zone, shared, SOON)?;
    }
    Ok(())
}

fn datagrams(zones: &Zones, zone: Zone) -> Result<UdpSocket> {
    let socket = zones.inside(zone, || UdpSocket::bind(at(zone)))??;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket)
}

fn next(socket: &UdpSocket) -> Result<String> {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).context("no datagram came")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn a_one_way_cut_is_one_way_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let zones = Zones::new(&scratch)?;
    let (a, b) = (datagrams(&zones, Zone::A)?, datagrams(&zones, Zone::B)?);
    a.send_to(b"before", at(Zone::B))?;
    ensure!(next(&b)? == "before");

    zones.impose(&[Cut::OneWay { from: Zone::A, to: Zone::B }])?;
    a.send_to(b"lost", at(Zone::B))?;
    b.send_to(b"against the cut", at(Zone::A))?;
    ensure!(next(&a)? == "against the cut");

    zones.heal()?;
    a.send_to(b"after", at(Zone::B))?;
    let came = next(&b)?;
    ensure!(came == "after", "{came:?} came through the cut");
    Ok(())
}

/// Bytes in the send queues of TCP connections from `PORT` in `zone`: sent, and not known to have been received.
fn not_heard(zones: &Zones, zone: Zone) -> Result<u64> {
    let filter = format!("sport = :{PORT}");
    let table = run(zones.command(zone, "ss").args([
        "--no-header",
        "--tcp",
        "--numeric",
        "state",
        "established",
        &filter,
    ]))?;
    let queues =
        table.lines().map(|line| line.split_whitespace().nth(1).and_then(|queue| queue.parse::<u64>().ok()));
    queues.sum::<Option<u64>>().with_context(|| format!("not understood: {table}"))
}

#[tokio::test]
async fn what_a_client_says_is_cut_while_it_hears_the_server_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let zones = Zones::new(&scratch)?;
    let listener = server::listen(&zones, Zone::A, at(Zone::A))?;
    let mut replica = zones.connect(Zone::C, at(Zone::A), SOON)?;
    let (mut primary, _) = listener.accept()?;
    replica.set_read_timeout(Some(SOON))?;
    let mut word = [0; 4];

    zones.impose(&[Cut::Said { from: Zone::C, to: Zone::A, port: PORT }])?;
    replica.write_all(b"ack!")?;
    primary.write_all(b"data")?;
    replica.read_exact(&mut word).context("hear the server through the cut")?;
    ensure!(&word == b"data");
    eventually("the server's connection sees that it was heard", SOON, async || {
        let bytes = not_heard(&zones, Zone::A)?;
        ensure!(bytes == 0, "{bytes} bytes are on their way");
        Ok(())
    })
    .await?;
    // Long answers have packets without the mark of the last one.
    replica.write_all(&[b'-'; 64 << 10])?;
    primary.set_read_timeout(Some(A_MOMENT))?;
    let said = primary.read(&mut word);
    ensure!(said.is_err(), "the client's word came through the cut: {said:?}");

    zones.heal()?;
    primary.set_read_timeout(Some(SOON))?;
    primary.read_exact(&mut word).context("hear the client after the cut")?;
    ensure!(&word == b"ack!");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_leads_from_loopback_into_a_zone_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let (zones, _servers) = zones_with_servers(&scratch)?;
    let door = Door::open(&zones, Zone::C, at(Zone::A)).await?;
    let mut word = [0; 5];
    let mut through = TcpStream::connect(("127.0.0.1", door.port())).await?;
    through.write_all(b"hello").await?;
    through.read_exact(&mut word).await?;
    ensure!(&word == b"hello");

    drop(door);
    let end = through.read(&mut word).await;
    ensure!(matches!(end, Ok(0) | Err(_)), "a connection outlived its door");
    Ok(())
}

#[test]
fn zones_and_whoever_is_inside_go_with_their_scratch_directory_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.path().display().to_string();
    let zones = Zones::new(&scratch)?;
    let namespace = fs::metadata(scratch.path().join("zones").join(Zone::B.name()))?.ino();
    // Neither its command line nor its folder names the scratch directory.
    let inside = "setsid sleep 1000 > /dev/null 2>&1 &";
    run(zones.command(Zone::B, "sh").args(["-c", inside]).current_dir("/"))?;
    let inhabitants = || {
        let mut find = command("find");
        find.args([
            "/proc",
            "-maxdepth",
            "3",
            "-path",
            "*/ns/net",
            "-lname",
            &format!("net:\\[{namespace}\\]"),
        ]);
        // Processes that end while it looks make it fail.
        find.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    ensure!(!inhabitants()?.is_empty(), "nobody is inside");

    // As if the test had been killed: nobody undoes anything but the janitor.
    drop((zones, scratch));

    ensure!(inhabitants()?.is_empty(), "still inside: {}", inhabitants()?);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&path), "a namespace is kept");
    Ok(())
}
