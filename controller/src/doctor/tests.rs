//! Whether what is wrong is found, and what is right is called so.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gatereeve_runtime::keyfile;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::OverlayPrefixes;

use super::{Check, Standing, examine};
use crate::config::Config;
use crate::state_dir::StateDir;
use crate::state_dir::settings::Settings;
use crate::upgrade::FORMAT;

const NOW: UnixMillis = UnixMillis(1_800_000_100_000);

fn place(root: &Path) -> (StateDir, Config) {
    let dir = StateDir::new(root.join("state"));
    dir.create().unwrap();
    keyfile::load_or_create_seed(&dir.network_key()).unwrap();
    keyfile::load_or_create_seed(&dir.tls_key()).unwrap();
    FORMAT.write(dir.root(), FORMAT.current).unwrap();
    let settings = Settings {
        name: "test".into(),
        advertise: vec!["127.0.0.1:8443".into()],
        prefixes: OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        },
    };
    settings.save(&dir.settings()).unwrap();
    let config = Config {
        sandbox: false,
        state_dir: dir.root().to_owned(),
        socket: root.join("none.sock"),
        admin_group: None,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        log_json: false,
    };
    (dir, config)
}

fn standing(checks: &[Check], name: &str) -> Standing {
    let found: Vec<_> = checks.iter().filter(|check| check.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {checks:?}");
    found[0].standing
}

fn examined(config: &Config, now: UnixMillis) -> Vec<Check> {
    examine(config, &Err("nobody is there".to_owned()), now)
}

#[test]
fn a_healthy_state_without_a_controller_has_no_problem() {
    let root = tempfile::tempdir().unwrap();
    let (_, config) = place(root.path());
    let checks = examined(&config, NOW);
    assert!(
        checks
            .iter()
            .all(|check| check.standing < Standing::Problem),
        "{checks:?}"
    );
    for name in [
        "state",
        "format",
        "modes",
        "journal",
        "clock",
        "disk",
        "advertised",
        "port",
    ] {
        assert_eq!(standing(&checks, name), Standing::Ok, "{name}");
    }
    assert_eq!(standing(&checks, "controller"), Standing::Warning);
    assert_eq!(standing(&checks, "backup"), Standing::Warning);
}

#[test]
fn each_thing_that_is_wrong_is_a_problem_of_its_own_name() {
    let root = tempfile::tempdir().unwrap();
    let (dir, config) = place(root.path());
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let problems = |config: &Config, now| -> Vec<&'static str> {
        let checks = examined(config, now);
        let wrong = checks
            .iter()
            .filter(|check| check.standing == Standing::Problem);
        wrong.map(|check| check.name).collect()
    };
    assert_eq!(problems(&config, NOW), Vec::<&str>::new());

    mode(dir.root(), 0o750);
    assert_eq!(problems(&config, NOW), ["modes"]);
    mode(dir.root(), 0o700);
    mode(&dir.tls_key(), 0o640);
    assert_eq!(problems(&config, NOW), ["modes"]);
    mode(&dir.tls_key(), 0o600);

    assert_eq!(problems(&config, UnixMillis(1000)), ["clock"]);

    let segment = crate::journal::scan::segment_path(&dir.journal(), 1);
    std::fs::write(&segment, [7; 400]).unwrap();
    assert_eq!(problems(&config, NOW), ["journal"]);
    std::fs::remove_file(&segment).unwrap();

    FORMAT.write(dir.root(), FORMAT.current + 1).unwrap();
    assert_eq!(problems(&config, NOW), ["format"]);
    FORMAT.write(dir.root(), FORMAT.current).unwrap();

    let good = std::fs::read(dir.settings()).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    std::fs::write(
        dir.settings(),
        text.replace("127.0.0.1:8443", "no-such-name.invalid:8443"),
    )
    .unwrap();
    assert_eq!(problems(&config, NOW), ["advertised"]);
    std::fs::write(dir.settings(), good).unwrap();

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = vec![taken.local_addr().unwrap()];
    let elsewhere = Config {
        listen,
        ..config.clone()
    };
    assert_eq!(problems(&elsewhere, NOW), ["port"]);

    let nothing = Config {
        state_dir: root.path().join("nothing"),
        ..config.clone()
    };
    assert_eq!(problems(&nothing, NOW), ["state"]);
    assert_eq!(problems(&config, NOW), Vec::<&str>::new());
}

/// Root looks at what the service's user may have put there.
#[test]
fn what_was_put_in_place_of_the_state_is_not_followed_and_not_waited_for() {
    const SECRET: &str = "root:$6$secret:20000::::::";
    let root = tempfile::tempdir().unwrap();
    let (dir, config) = place(root.path());
    let secret = root.path().join("shadow");
    std::fs::write(&secret, SECRET).unwrap();
    let found = |name: &str| {
        let checks = examined(&config, NOW);
        assert!(!format!("{checks:?}").contains("secret"), "{checks:?}");
        standing(&checks, name)
    };
    assert_eq!(found("advertised"), Standing::Ok, "the control");

    let aside = root.path().join("config");
    std::fs::rename(dir.settings(), &aside).unwrap();
    std::os::unix::fs::symlink(&secret, dir.settings()).unwrap();
    assert_eq!(found("settings"), Standing::Problem);
    // It shows what it reads where it is no link: the refusal is what keeps it.
    std::fs::remove_file(dir.settings()).unwrap();
    std::fs::write(dir.settings(), SECRET).unwrap();
    assert!(format!("{:?}", examined(&config, NOW)).contains("secret"));
    std::fs::rename(&aside, dir.settings()).unwrap();

    for path in [dir.lock(), dir.last_backup(), dir.checkpoints()] {
        for make in [
            &(|path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap())
                as &dyn Fn(&Path),
            &|path: &Path| {
                let mode = nix::sys::stat::Mode::S_IRUSR;
                nix::unistd::mkfifo(path, mode).unwrap();
            },
        ] {
            make(&path);
            let journal = found("journal");
            let is_checkpoints = path == dir.checkpoints();
            assert_eq!(journal == Standing::Problem, is_checkpoints, "{path:?}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    std::fs::rename(dir.journal(), root.path().join("journal")).unwrap();
    std::fs::write(root.path().join("journal/00000000000000000001.log"), SECRET).unwrap();
    std::os::unix::fs::symlink(root.path().join("journal"), dir.journal()).unwrap();
    assert_eq!(found("journal"), Standing::Problem);
}
