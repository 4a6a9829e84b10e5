//! Who may do what at the client's socket, and that nobody can keep the others out.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde_json::{Value, json};

use gatereeve_runtime::local_socket::{CONNECTIONS_PER_USER, CallError, call};
use gatereeve_tests::clock::{Stopwatch, wait_for};
use gatereeve_tests::suite::Skip;
use gatereeve_tests::world::{DeviceHost, PATIENCE, World};

use crate::scene::world;

/// What makes this program a caller of the socket, instead of the suite.
pub(crate) const CALLER: &str = "--caller";
/// A user and a group without special rights, as any Unix has.
const NOBODY: u32 = 65534;
/// A user and a group of the same name and number on any Debian and Fedora system.
const DAEMON: (&str, u32) = ("daemon", 1);

/// A caller: `SOCKET UID GID OPERATION` asks one thing and prints the HTTP status; with `flood` as the
/// operation it takes as many connections as there are to be had, and holds them until its input ends.
pub(crate) fn caller(arguments: &[String]) -> ExitCode {
    match called(arguments) {
        Ok(word) => {
            drop(writeln!(std::io::stdout(), "{word}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn called(arguments: &[String]) -> anyhow::Result<String> {
    let [socket, uid, gid, operation] = arguments else {
        return Err(anyhow!("SOCKET UID GID OPERATION"));
    };
    let (uid, gid) = (Uid::from_raw(uid.parse()?), Gid::from_raw(gid.parse()?));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if operation == "flood" {
        return flood(Path::new(socket));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let path = format!("/v1/{operation}");
    let nothing = json!({});
    let asked = call::<Value>(Path::new(socket), &path, &nothing);
    match runtime.block_on(asked) {
        Ok(_) => Ok("200".to_owned()),
        Err(CallError::Remote { status, .. }) => Ok(status.to_string()),
        Err(error) => Err(error.into()),
    }
}

fn flood(socket: &Path) -> anyhow::Result<String> {
    let mut held = Vec::new();
    let mut out = std::io::stdout();
    for round in 0..1000 {
        // Half a header, so that the other end waits for more. One too many is closed.
        if let Ok(mut stream) = UnixStream::connect(socket) {
            drop(stream.write_all(b"POST /v1/status HTTP/1.1\r\nhost: "));
            held.push(stream);
        }
        if round == 999 {
            writeln!(out, "flooded")?;
            out.flush()?;
        }
    }
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(held.len().to_string())
}

fn command(device: &DeviceHost, uid: u32, gid: u32, operation: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(CALLER)
        .arg(device.directory().join("d.sock"))
        .args([uid.to_string(), gid.to_string(), operation.to_owned()]);
    command
}

fn ask(device: &DeviceHost, uid: u32, gid: u32, operation: &str) -> anyhow::Result<String> {
    let output = command(device, uid, gid, operation).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A device that other users can talk to.
fn shared(world: &mut World, config: &str) -> anyhow::Result<DeviceHost> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    if !map.contains("4294967295") {
        return Err(Skip("callers of other users take root".into()).into());
    }
    let mut device = world.device("client", &[])?;
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(world.directory(), open)?;
    device.stop()?;
    device.configure(config)?;
    device.start()?;
    Ok(device)
}

/// Everybody reads; root and members of the configured group change, by their process's group or by the
/// system's databases; nobody else does.
pub(crate) fn changes_are_for_root_and_the_operator_group() -> anyhow::Result<()> {
    let mut world = world()?;
    let (name, id) = DAEMON;
    let client = shared(&mut world, &format!("operator_group = \"{name}\"\n"))?;
    for operation in ["status", "peers", "posture"] {
        let status = ask(&client, NOBODY, NOBODY, operation)?;
        ensure!(status == "200", "{operation}: {status}");
    }
    for operation in ["up", "down", "repair", "leave"] {
        let status = ask(&client, NOBODY, NOBODY, operation)?;
        ensure!(status == "403", "{operation} by nobody: {status}");
    }
    ensure!(client.status()?.up, "what was refused was not done");
    for (uid, gid, why) in [
        (NOBODY, id, "the process's group"),
        (id, NOBODY, "a member, whatever the process's group is"),
        (0, NOBODY, "root"),
    ] {
        for operation in ["down", "up"] {
            let status = ask(&client, uid, gid, operation)?;
            ensure!(status == "200", "{operation}, {why}: {status}");
            ensure!(client.status()?.up == (operation == "up"));
        }
    }
    Ok(())
}

/// A user who takes a thousand connections and finishes no header gets a few; others are served at once.
pub(crate) fn a_flood_of_one_user_keeps_no_other_out() -> anyhow::Result<()> {
    let mut world = world()?;
    let client = shared(&mut world, "")?;
    let mut flood = command(&client, NOBODY, NOBODY, "flood")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = (|| {
        let mut word = [0; 8];
        let mut out = flood.stdout.take().context("its output")?;
        out.read_exact(&mut word)?;
        ensure!(&word == b"flooded\n");
        let watch = Stopwatch::start();
        ensure!(ask(&client, NOBODY - 1, NOBODY - 1, "status")? == "200");
        let took = watch.elapsed();
        ensure!(took < Duration::from_secs(1), "{took:?}");
        ensure!(ask(&client, 0, 0, "status")? == "200");
        // Control: the flooding user has no place left.
        ensure!(ask(&client, NOBODY, NOBODY, "status").is_err());
        let id = client.process().context("it runs")?.id();
        let open = std::fs::read_dir(format!("/proc/{id}/fd"))?.count();
        ensure!(open < 100 + CONNECTIONS_PER_USER, "{open} descriptors");
        // The deadline for headers gives its places back.
        wait_for("a place", PATIENCE, || {
            Ok(ask(&client, NOBODY, NOBODY, "status").ok())
        })
    })();
    drop(flood.stdin.take());
    drop(flood.kill());
    drop(flood.wait());
    outcome.map(drop)
}
