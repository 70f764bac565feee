"""What publishing an update takes, and what it takes a host to apply it, each way in which it may come."""

import http.server
import json
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench_common import GARBOARD, HERE, MIB, OUT, measured, run, table
from bench_releases import build, older, with_one_package

MEMORY_LIMIT = 64 * MIB
AGENT = "service::on_files::the_agent_on_files"


class Repository(http.server.ThreadingHTTPServer):
    """The files of a directory over TLS, with ranges; counts what it sends of packs, patches and differences."""

    daemon_threads = True

    def __init__(self, directory, certificate):
        super().__init__(("127.0.0.1", 0), Answer)
        self.directory, self.sent = Path(directory), 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # What has not left the server was not fetched.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Agents that are killed break their connections."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        file = self.server.directory / self.path.lstrip("/")
        if ".." in self.path or not file.is_file():
            self.send_error(404)
            return
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with file.open("rb") as content:
            content.seek(first)
            left = last + 1 - first
            while left > 0:
                piece = content.read(min(left, 256 << 10))
                self.wfile.write(piece)
                left -= len(piece)
                if file.suffix in (".pack", ".patch", ".table", ".difference", ".index"):
                    self.server.sent += len(piece)

    def log_message(self, *_):
        """Nothing: the table is all that is printed."""


class MemoryLimit:
    """A control group that ends whoever takes more memory, file pages that are not yet written included."""

    def __init__(self, limit):
        self.directory = None
        own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
        places = [("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("", "/sys/fs/cgroup", "memory.max")]
        for controller, root, file in places:
            directory = Path(root + own.get(controller, "/none")) / f"garboard-bench-{os.getpid()}"
            try:
                directory.mkdir()
                (directory / file).write_text(str(limit))
                self.directory = directory
                return
            except OSError:
                if directory.exists():
                    directory.rmdir()

    def command(self, command):
        """The same command, limited."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', self.directory / "cgroup.procs", *command] if self.directory else command

    def remove(self):
        if self.directory:
            self.directory.rmdir()


def agent_program():
    """The agent's own tests: one of them is the agent as a process on files."""
    command = ["cargo", "test", "--quiet", "--workspace", "--lib", "--no-run", "--message-format=json"]
    artifacts = [json.loads(line) for line in run(*command, cwd=HERE).splitlines() if line.startswith("{")]
    return next(it["executable"] for it in artifacts if it.get("executable") and it["target"]["name"] == "update_agent")


class Host:
    """A disk with an older version in slot a, in a file, and the agent that brings 1.1.0 into slot b."""

    def __init__(self, directory, program, server, image):
        self.directory, self.image = directory, image
        self.command = [program, "--ignored", "--exact", AGENT, "--nocapture"]
        self.environment = {"GARBOARD_AGENT_DIRECTORY": str(directory), "GARBOARD_AGENT_SERVER": server, "GARBOARD_AGENT_IMAGE": "docker"}
        self.environment |= {"SSL_CERT_FILE": str(directory.parent / "tls.pem"), "PATH": os.environ["PATH"]}

    def reset(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        run("cp", "--sparse=always", self.image, self.directory / "disk.raw")
        shutil.copy(self.directory.parent / "keys/root.json", self.directory / "root.json")
        run("sync")

    def update(self, limit=None):
        """The figures of one update; ends the bench when it fails."""
        output = run(*(limit.command(self.command) if limit else self.command), env=self.environment)
        return {name: float(value) for name, value in re.findall(r"(\w+)=([0-9.]+)", re.search(r"agent: (update=.*)", output)[1])}

    def update_killed(self, server, points):
        """One update, killed whenever so many more bytes were sent; how often that was."""
        for kills, point in enumerate(points):
            before = server.sent
            agent = subprocess.Popen(self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while agent.poll() is None and server.sent - before < point:
                time.sleep(0.002)
            if agent.poll() is not None:
                if agent.returncode != 0:
                    sys.exit("bench: the agent that was killed before did not go on")
                return kills
            agent.kill()
            agent.wait()
            time.sleep(0.2)
        self.update()
        return len(points)


def bench_update(rounds):
    """Publishing a release that is not the first, and what it takes the agent to install it: in full, by chunks, by a patch, and by a borrowed one."""
    directory = OUT / "update"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    # No channel lists 0.9.0, so a host that runs it fetches all.
    new = build(directory, "1.1.0")
    old = older(new)
    between, package = with_one_package(old, new, "docker")
    for version, lock in [("0.9.0", old), ("1.0.0", old), ("1.0.1", between)]:
        build(directory, version, lock)
    run(GARBOARD, "keys", "init", "--dir", directory / "keys")
    repo = directory / "repo"

    def publish(version, patches, repo):
        command = [GARBOARD, "publish", directory / version, "--repo", repo, "--channel", "stable", "--keys", directory / "keys"]
        run("/usr/bin/time", "-o", OUT / "time", "-f", "%e %U %S %M", *command, "--patches", patches)
        wall, user, system, peak = [float(figure) for figure in (OUT / "time").read_text().split()]
        return f"{wall:.1f} s ({user + system:.1f} s of processor time), {peak / 1024:.0f} MiB"

    rows = [["`garboard publish` of `docker`: the first release", publish("1.0.0", 0, repo), ""]]
    chunks_repo, borrowing_repo = directory / "repo-chunks", directory / "repo-borrowing"
    for copy in [chunks_repo, borrowing_repo]:
        shutil.copytree(repo, copy)
    rows.append(["`garboard publish` of `docker`: 1.1.0, without patches", publish("1.1.0", 0, chunks_repo), "60 s, 1024 MiB"])
    rows.append(["`garboard publish` of `docker`: 1.1.0, with a patch from 1.0.0", publish("1.1.0", 1, repo), "180 s, 1536 MiB"])
    # Nobody lends what changed in it, so operations for 1.0.0 are made beside the patch.
    publish("1.0.1", 0, borrowing_repo)
    filled = f"`garboard publish` of `docker`: 1.1.0, with a patch from 1.0.1 ({package} is new there), and operations for {package} of 1.0.0"
    rows.append([filled, publish("1.1.0", 1, borrowing_repo), "180 s, 1536 MiB"])

    parts = json.loads(next((directory / "1.1.0").glob("*.release/parts.json")).read_text())
    root = parts["root"]
    where = [f"skip={root['offset']}", f"count={root['size']}", "iflag=skip_bytes,count_bytes", "bs=1M", "status=none"]
    image = next((directory / "1.1.0").glob("*.release")) / root["file"]
    run("dd", f"if={image}", f"of={directory}/root", *where)
    names = ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    key = directory / "tls.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, "-keyout", key, "-out", directory / "cert.pem")
    key.write_text(key.read_text() + (directory / "cert.pem").read_text())

    server, program = Repository(repo, key), agent_program()

    def running(version, name, url):
        return Host(directory / f"host-{name}", program, url, next((directory / version).glob("*.raw")))

    host = running("0.9.0", "full", server.url)
    # Each with its server, its runs, and how many bytes one took.
    ways = {"a patch": server, "a patch of other versions' operations": Repository(borrowing_repo, key), "chunks": Repository(chunks_repo, key)}
    sparing = {way: (running("1.0.0", f"sparing-{number}", from_.url), from_, []) for number, (way, from_) in enumerate(ways.items())}
    limit = MemoryLimit(MEMORY_LIMIT)
    peer, free, held, sizes = [], [], [], {}
    for _ in range(rounds):
        (directory / "copy").unlink(missing_ok=True)
        run("sync")
        peer.append(measured("dd", f"if={directory}/root", f"of={directory}/copy", "bs=1M", "conv=fsync", "status=none")[0])
        host.reset()
        server.sent = 0
        free.append(host.update())
        whole = server.sent
        if limit.directory:
            host.reset()
            held.append(host.update(limit))
        for way, (updated, from_, runs) in sparing.items():
            updated.reset()
            from_.sent = 0
            runs.append(updated.update(limit if limit.directory else None))
            sizes[way] = from_.sent
    limit.remove()
    for updated in [host, *(updated for updated, _, _ in sparing.values())]:
        run(GARBOARD, "inspect", updated.directory / "disk.raw", "--verify")

    host.reset()
    server.sent = 0
    kills = host.update_killed(server, [step * MIB for step in [3, 8, 15, 22, 37, 50]])
    again = server.sent - whole

    def middle(runs, figure):
        return statistics.median(run[figure] for run in runs)

    dd, read_back = statistics.median(peer), middle(free, "read_back")
    size = root["size"] / MIB
    may = max(1.5 * dd, 3) + read_back
    rows += [
        [f"`dd` of the same root image, {size:.0f} MiB, with fsync", f"{dd:.2f} s", ""],
        ["reading the slot back and hashing it, once", f"{read_back:.2f} s", ""],
        ["full update over TLS: fetched, verified, written, read back, committed", f"{middle(free, 'update'):.2f} s ({middle(free, 'ran'):.2f} s of processor time)", f"{may:.2f} s"],
        ["the same in a control group of 64 MiB", f"{middle(held, 'update'):.2f} s" if held else "SKIPPED: no memory control group can be made here", ""],
        ["peak resident memory of that, file pages of the program included", f"{middle(held or free, 'peak_kib') / 1024:.1f} MiB", "64 MiB"],
        ["anonymous memory before and right after an update", f"{middle(free, 'idle_kib') / 1024:.1f}, {middle(free, 'after_kib') / 1024:.1f} MiB", ""],
        ["resident at rest, after an update, all counted", f"{middle(free, 'rest_kib') / 1024:.1f} MiB", "8 MiB"],
    ]
    for way, (_, _, runs) in sparing.items():
        rows += [
            [f"update by {way}, {sizes[way] / MIB:.1f} MiB instead of {whole / MIB:.1f}, in a control group of 64 MiB", f"{middle(runs, 'update'):.2f} s", f"{2 * middle(free, 'update'):.2f} s"],
            ["peak resident memory of that", f"{middle(runs, 'peak_kib') / 1024:.1f} MiB", "64 MiB"],
        ]
    rows += [
        [f"a full update killed {kills} times: fetched twice for each", f"{again / MIB / max(kills, 1):.1f} MiB", "8 MiB"],
    ]
    return table(f"Updates of `docker`: medians of {rounds}", ["what", "is", "limit"], rows)
