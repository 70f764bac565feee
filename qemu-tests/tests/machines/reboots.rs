//! When a machine may reboot: inhibitors of every kind, hooks, a shutdown that is put off, a FleetLock server that says when, and
//! one that we are; users who are warned, containers that are stopped. `make test-long`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use qemu_tests::{Guest, Setup};
use serde_json::Value;

mod drain;
mod killed;
mod users;

fn machine(recipe: &str, settings: &str) -> Guest {
    let lines: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    let mut host = Setup::of(recipe).user_data(&format!("#cloud-config\ngarboard:\n  reboot:\n{lines}")).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    host
}

fn why(host: &Guest, text: &str) {
    host.eventually(&format!("sudo locksmithctl why | tee /dev/stderr | grep -qF '{text}'"));
}

/// Waits for its next start, and until it answers again.
fn rebooted(host: &mut Guest, starts: usize) {
    host.wait_for_starts(starts);
    host.wait_for_ssh();
}

/// When a unit said something in a boot (0: this one, -1: the one before), in seconds since 1970; the first time.
fn said_at(host: &Guest, boot: i32, unit: &str, text: &str) -> f64 {
    let log = host.ok(&format!("sudo journalctl -b {boot} -u {unit} -o json --no-pager"));
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["MESSAGE"].as_str().is_some_and(|message| message.contains(text)));
    let at = line.as_ref().and_then(|line| line["__REALTIME_TIMESTAMP"].as_str()?.parse::<f64>().ok());
    at.unwrap_or_else(|| panic!("'{text}' is not in the log of {unit}:\n{log}")) / 1e6
}

/// A command that holds an inhibitor, left behind on the machine.
fn inhibit(host: &Guest, options: &str, why: &str) {
    let command = format!("systemd-inhibit --what=shutdown {options} --why=\"{why}\" sleep 600");
    host.ok(&format!("sudo sh -c '{command} </dev/null >/dev/null 2>&1 & echo $! >/run/inhibiting'"));
    host.eventually(&format!("sudo systemd-inhibit --list | tee /dev/stderr | grep -q '{why}'"));
}

/// Takes the one lasting inhibitor away, which may let a reboot go that ends the connection.
fn uninhibit(host: &Guest) {
    let id =
        host.ok("sudo locksmithctl inhibitors --json | tr ',{}' '\\n\\n\\n' | sed -n 's/.*\"id\": *\"\\([^\"]*\\)\".*/\\1/p' | head -n 1");
    let _ = host.run(&format!("sudo locksmithctl uninhibit {id}"));
}

/// While nothing changes the daemon sleeps, and it is small.
fn is_quiet(host: &Guest) {
    // What starts with the machine, as the clock that chrony sets, is a change; and a connection to etcd that was of use then is closed within a
    // minute after.
    let script = "sleep 90; p=$(pgrep -x reboot-locksmit); count() { awk '/ctxt_switches/ {n += $2} END {print n}' /proc/$p/status; }; a=$(count); sleep 30; \
                  echo $(($(count) - a)) $(awk '/^VmRSS/ {print $2}' /proc/$p/status)";
    let said = host.ok(script);
    eprintln!("reboot-locksmith: wake-ups in 30 s, KiB resident: {said}");
    let (wakes, resident) = said.split_once(' ').unwrap();
    assert_eq!(wakes, "0", "wake-ups while nothing changes");
    assert!(resident.parse::<u32>().unwrap() < 8 * 1024, "{resident} KiB resident");
}

/// Mode `block`, a lasting inhibitor, `delay`, a hook; then a shutdown at a time.
#[test]
#[ignore = "five boots: scripts/test-long"]
fn a_machine_reboots_only_when_nobody_minds() {
    let mut host = machine("tiny", "strategy: reboot\ninhibit_delay: 8s\n");
    is_quiet(&host);

    // Somebody's command forbids it, to everybody, until it ends.
    inhibit(&host, "--who=db", "failing over");
    let listed = host.ok("sudo systemd-inhibit --list");
    assert!(listed.contains("db") && listed.contains("failing over") && listed.contains("block"), "{listed}");
    for command in ["systemctl reboot", "reboot", "shutdown -r now", "systemctl poweroff"] {
        let refused = host.run(&format!("sudo {command}"));
        assert!(refused.code == 1 && refused.err.contains("failing over") && refused.err.contains("db"), "{command}: {}", refused.err);
    }
    // What is marked by the hook says that it ran, and for what.
    host.ok(
        "printf '#!/bin/sh\\necho \"$1 $GARBOARD_REASON\" >> /media/state/hooks\\n' | sudo tee /etc/garboard/pre-reboot.d/10-mark >/dev/null; \
         sudo chmod 755 /etc/garboard/pre-reboot.d/10-mark",
    );
    host.ok("sudo locksmithctl send-need-reboot");
    why(&host, "failing over");
    host.ok("sudo locksmithctl inhibit --why='until the audit is over' --for 1h");
    host.ok("sudo sh -c 'kill $(pgrep -P $(cat /run/inhibiting)) $(cat /run/inhibiting)'");
    host.eventually("! sudo systemd-inhibit --list | grep -q 'failing over'");
    why(&host, "until the audit is over");
    assert_eq!(host.starts(), 1);

    // A lasting one outlives a reboot that somebody forces.
    let _ = host.run("sudo systemctl reboot -i");
    rebooted(&mut host, 2);
    let listed = host.ok("sudo locksmithctl inhibitors --json");
    assert!(listed.contains("until the audit is over"), "{listed}");
    host.ok("sudo locksmithctl send-need-reboot");
    why(&host, "until the audit is over");
    let before = host.ok("sudo cat /media/state/hooks 2>/dev/null || true");
    assert_eq!(before, "", "no hook ran for a reboot that was forced");
    // The configuration directory may be on state or not: the hook is there as it was.
    uninhibit(&host);
    rebooted(&mut host, 3);
    let hooks = host.ok("sudo cat /media/state/hooks");
    assert!(hooks.starts_with("pre-reboot asked for by hand"), "{hooks}");

    // Who only wants a delay is waited for, and no longer than its time.
    inhibit(&host, "--mode=delay", "writing down");
    let start = std::time::Instant::now();
    let said = host.run("sudo systemctl reboot");
    eprintln!("after {:?}: {}{}", start.elapsed(), said.out, said.err);
    assert!(said.err.contains("writing down") || said.out.contains("writing down"), "{}{}", said.out, said.err);
    rebooted(&mut host, 4);

    // At a time; called off; by the daemon's own request.
    host.ok("sudo shutdown -r +60");
    why(&host, "is scheduled");
    host.ok("sudo shutdown -c");
    host.eventually("! sudo locksmithctl why | grep -q 'is scheduled'");
    // Forbidden when its time comes, it waits, and goes when nobody minds any more.
    host.ok("sudo locksmithctl inhibit --why='not yet' --for 1h");
    host.ok("sudo shutdown -r +1");
    std::thread::sleep(std::time::Duration::from_secs(80));
    assert_eq!((host.starts(), host.ok("pgrep -fc '[s]hutdown-wait'").as_str()), (4, "1"));
    uninhibit(&host);
    rebooted(&mut host, 5);
}

/// The power button and Ctrl-Alt-Del ask as a command does, and say who forbids it; a command that says `-i` does not ask.
#[test]
#[ignore = "for make test-long"]
fn the_power_button_minds_inhibitors() {
    let mut host = machine("tiny", "strategy: reboot\n");
    inhibit(&host, "--who=db", "failing over");
    host.tap_power_button();
    let line = host.wait_for("the power button was pressed: ");
    assert!(line.contains("does not poweroff now: db forbids it: failing over"), "{line}");
    host.ok("sudo kill -INT 1");
    let line = host.wait_for("ctrl-alt-del was pressed: ");
    assert!(line.contains("does not reboot now: db forbids it: failing over"), "{line}");
    host.eventually("test $(sudo journalctl -b -u power-key -o cat --no-pager | tee /dev/stderr | grep -c 'failing over') -ge 2");
    assert_eq!((host.starts(), host.ok("systemctl is-system-running || true").as_str()), (1, "running"));
    host.ok("sudo sh -c 'kill $(pgrep -P $(cat /run/inhibiting)) $(cat /run/inhibiting)'");
    host.eventually("! sudo systemd-inhibit --list | grep -q 'failing over'");
    // Who asks for a moment is waited for, which is in the log.
    inhibit(&host, "--mode=delay", "writing down");
    host.tap_power_button();
    host.eventually("sudo journalctl -b -u power-key -o cat --no-pager | tee /dev/stderr | grep -q 'waiting up to .* writing down'");
    host.wait_for("garboard: going down (poweroff): the power button was pressed");
    host.wait_until_off();
}

/// A server that speaks FleetLock, as much of it as clients see.
struct FleetLock {
    url: String,
    allow: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    steady: Arc<Mutex<Vec<String>>>,
}

impl FleetLock {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://10.0.2.2:{}", listener.local_addr().unwrap().port());
        let server = Self { url, allow: Arc::default(), refused: Arc::default(), steady: Arc::default() };
        let (allow, refused, steady) = (Arc::clone(&server.allow), Arc::clone(&server.refused), Arc::clone(&server.steady));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut bytes = [0; 4096];
                let mut request = String::new();
                // The body's end is the object's.
                while !request.ends_with('}') {
                    match stream.read(&mut bytes) {
                        Ok(count @ 1..) => request.push_str(&String::from_utf8_lossy(&bytes[..count])),
                        _ => break,
                    }
                }
                let good = request.to_ascii_lowercase().contains("fleet-lock-protocol: true");
                let status = if !good {
                    "400 Bad Request"
                } else if request.starts_with("POST /v1/steady-state") {
                    steady.lock().unwrap().push(request);
                    "200 OK"
                } else if allow.load(Ordering::SeqCst) {
                    "200 OK"
                } else {
                    refused.fetch_add(1, Ordering::SeqCst);
                    "409 Conflict"
                };
                let body = if status.starts_with("200") { "" } else { r#"{"kind":"failed_lock","value":"not now"}"# };
                let length = body.len();
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            }
        });
        server
    }
}

/// Our daemon as the client of somebody's server: it waits while that says no, and tells it when the host is back.
#[test]
#[ignore = "two boots: scripts/test-long"]
fn a_machine_obeys_a_fleet_lock_server() {
    let server = FleetLock::start();
    let mut host = machine("tiny", &format!("strategy: fleet-lock\ngroup: workers\nfleet_lock: {}\n", server.url));
    host.ok("sudo locksmithctl send-need-reboot");
    why(&host, "not now");
    assert!(server.refused.load(Ordering::SeqCst) > 0);
    assert_eq!(host.starts(), 1);
    let asked = server.steady.lock().unwrap().len();
    server.allow.store(true, Ordering::SeqCst);
    rebooted(&mut host, 2);
    host.eventually("sudo locksmithctl why | grep -q 'No reboot is wanted'");
    let begin = std::time::Instant::now();
    while server.steady.lock().unwrap().len() == asked {
        assert!(begin.elapsed().as_secs() < 120, "the lock was not given back");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let back = server.steady.lock().unwrap().last().cloned().unwrap();
    assert!(back.contains("\"group\":\"workers\"") && back.contains("client_params"), "{back}");
}

/// Our daemon as the server: what Zincati sends is served from the lock that our own hosts take. And a container's inhibitor.
#[test]
#[ignore = "Docker and etcd: scripts/test-long"]
fn clients_of_fleet_lock_and_containers_are_served() {
    let host = machine("docker", "fleet_lock_server: {listen: \"0.0.0.0:9090\"}\n");
    let ask = |act: &str, id: &str, header: &str| {
        let body = format!("{{\"client_params\":{{\"id\":\"{id}\",\"group\":\"default\"}}}}");
        let answer = host.ok(&format!(
            "curl -sS -m 20 -w ' %{{http_code}}' -X POST {header} -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:9090/v1/{act}"
        ));
        eprintln!("{act} {id}: {answer}");
        answer
    };
    let header = "-H 'fleet-lock-protocol: true'";
    host.eventually("sudo locksmithctl status | grep -q 'Available: 1'");
    is_quiet(&host);
    assert!(ask("pre-reboot", "zincati-1", header).ends_with(" 200"));
    assert!(ask("pre-reboot", "zincati-1", header).ends_with(" 200"), "again is no other");
    let refused = ask("pre-reboot", "zincati-2", header);
    assert!(refused.contains("\"kind\"") && refused.ends_with(" 409"), "{refused}");
    assert!(host.ok("sudo locksmithctl status").contains("zincati-1"));
    assert!(host.run("sudo locksmithctl lock other").code != 0, "our own are held up by it");
    assert!(ask("pre-reboot", "zincati-2", "").ends_with(" 400"), "without the header");
    assert!(ask("steady-state", "zincati-1", header).ends_with(" 200"));
    assert!(host.ok("sudo locksmithctl status").contains("Available: 1"));
    assert!(ask("pre-reboot", "zincati-2", header).ends_with(" 200"));
    assert!(ask("steady-state", "zincati-2", header).ends_with(" 200"));

    // A container holds an inhibitor through the socket that is mounted into it, until it ends.
    host.ok("mkdir -p ctx && printf 'FROM scratch\\nENV PATH=/usr/bin:/usr/sbin\\n' > ctx/Dockerfile && docker build -q -t local/base ctx");
    let talk = "(echo '\\''{\"why\": \"rebalancing\", \"who\": \"shard 7\"}'\\''; sleep 600) | curl -sN --unix-socket /run/garboard/inhibit/socket telnet://localhost";
    host.ok(&format!(
        "docker run -d --name shard --stop-timeout 1 -v /run/garboard/inhibit:/run/garboard/inhibit -v /usr:/usr:ro -v /lib64:/lib64:ro -v /lib:/lib:ro \
         -v /bin:/bin:ro local/base sh -c '{talk}'"
    ));
    host.eventually("sudo systemd-inhibit --list | grep -q rebalancing");
    let refused = host.run("sudo systemctl reboot");
    assert!(refused.code == 1 && refused.err.contains("rebalancing") && refused.err.contains("shard 7"), "{}", refused.err);
    host.ok("docker stop shard");
    host.eventually("! sudo systemd-inhibit --list | grep -q rebalancing");
}
