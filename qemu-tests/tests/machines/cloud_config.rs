//! Each source of a cloud-config, and what a cloud-config can ask for.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use qemu_tests::Setup;

const WIDE: &str = r#"#cloud-config
hostname: wide
groups:
  - builders: [core]
users:
  - default
  - name: ada
    gecos: Ada
    groups: [sudo, builders]
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: ["KEY"]
write_files:
  - path: /etc/plain
    content: |
      plain $private_ipv4_is_not_a_token
    permissions: 0640
    owner: root:builders
  - path: /etc/encoded
    encoding: b64
    content: ZW5jb2RlZA==
  - path: /etc/zipped
    encoding: gz+b64
    content: H4sIAAAAAAACA6vKLChITQEAV2jC4gYAAAA=
    permissions: '0755'
coreos:
  units:
    - name: hello.service
      command: start
      enable: true
      content: |
        [Unit]
        Description=Says hello
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        EnvironmentFile=/etc/environment
        ExecStart=/bin/sh -c 'echo hello from %n; env | grep COREOS_PRIVATE_IPV4'
        [Install]
        WantedBy=local.target
      drop_ins:
        - name: 10-more.conf
          content: |
            [Service]
            ExecStartPost=/bin/touch /run/hello-ran
bootcmd:
  - [touch, "/run/boot cmd"]
runcmd:
  - echo "run $(hostname)" > /var/lib/runcmd
"#;

#[test]
fn nocloud_gives_everything() {
    let setup = Setup::of("tiny");
    let text = WIDE.replace("KEY", setup.public_key());
    let mut host = setup.user_data(&text).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("hostname"), "wide");
    assert_eq!(host.ok("cat /etc/hostname"), "wide");
    // sudo looks the host's name up, and complains when it cannot.
    assert_eq!(host.run("sudo true").err, "");
    assert_eq!(host.run_as("ada", "sudo id -u").out.trim(), "0");
    assert!(host.ok("id -nG ada").split(' ').any(|group| group == "builders"));
    assert_eq!(host.ok("stat -c '%a %U:%G' /etc/plain"), "640 root:builders");
    assert_eq!(host.ok("sudo cat /etc/plain"), "plain $private_ipv4_is_not_a_token");
    assert_eq!(host.ok("cat /etc/encoded"), "encoded");
    assert_eq!(host.ok("cat /etc/zipped; stat -c ' %a' /etc/zipped"), "zipped 755");
    host.eventually("systemctl is-active hello.service");
    host.ok("test -e /run/hello-ran && test -e '/run/boot cmd'");
    host.eventually("journalctl -u hello --no-pager | grep 'hello from hello.service'");
    assert_eq!(host.eventually("cat /var/lib/runcmd"), "run wide");
    assert_eq!(host.ok("systemctl is-enabled hello.service"), "enabled");

    // The same instance again: files and units stay, `runcmd` does not run a second time.
    host.ok("sudo rm /var/lib/runcmd; sudo systemctl poweroff --no-block || true");
    host.wait_until_off();
    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    host.eventually("systemctl is-active hello.service");
    assert_eq!(host.run("cat /var/lib/runcmd").code, 1);
}

#[test]
fn a_config_drive_and_firmware_items_work_too() {
    let setup = Setup::of("tiny").without_seed();
    let key = setup.public_key().to_owned();
    let mut host = setup.disk(|path| config_drive(path, &key)).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("hostname"), "drive");
    assert_eq!(host.ok("cat /etc/from"), "config drive");
    drop(host);

    let setup = Setup::of("tiny").without_seed();
    let text = format!("#cloud-config\nhostname: firmware\nssh_authorized_keys:\n  - {}\n", setup.public_key());
    let mut host = setup.fw_cfg("opt/org.garboard/config", &text).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("hostname"), "firmware");
}

/// An ext4-free way to a labelled file system with long names: FAT, by mtools.
fn config_drive(path: &Path, key: &str) {
    File::create(path).unwrap().set_len(4 << 20).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    let image = path.to_str().unwrap();
    run("mkfs.vfat", &["-n", "config-2", image]);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let meta = write("meta_data.json", &format!("{{\"uuid\": \"u-1\", \"hostname\": \"drive\", \"public_keys\": {{\"k\": \"{key}\"}}}}"));
    let user = write("user_data", "#cloud-config\nwrite_files:\n  - path: /etc/from\n    content: config drive\n");
    run("mmd", &["-i", image, "::openstack", "::openstack/latest"]);
    run("mcopy", &["-i", image, &meta, &user, "::openstack/latest/"]);
}
