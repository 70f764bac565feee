"""What updates cost to download, beside the tools that are made for it, on the same bytes: root image and UKI, one after the other."""

import hashlib
import json
import re
import shutil

from bench_common import GARBOARD, MIB, OUT, run, table
from bench_releases import build, older, with_one_package

BLOCK = 4096


def files_of(directory, version):
    """The bytes of a release in one file, for the peers."""
    release = next((directory / version).glob("*.release"))
    root = json.loads((release / "parts.json").read_text())["root"]
    with open(release / root["file"], "rb") as image, open(directory / f"{version}.bin", "wb") as out:
        image.seek(root["offset"])
        left = root["size"]
        while left:
            piece = image.read(min(left, 16 * MIB))
            out.write(piece)
            left -= len(piece)
        out.write((release / "uki.efi").read_bytes())


def ours(directory, versions, unpatched=""):
    """What `publish` says of the way from the first of `versions` to the last, each but `unpatched` published with a patch from the one before; and
    bytes by chunks with what says where they are: the difference, else map and index."""
    first = directory / f"repo-{versions[0]}"
    shutil.rmtree(directory / "repo", ignore_errors=True)
    if first.exists():
        shutil.copytree(first, directory / "repo")
    for version in versions[1:] if first.exists() else versions:
        command = [GARBOARD, "publish", directory / version, "--repo", directory / "repo", "--channel", "stable", "--keys", directory / "keys"]
        # Progress, then the result.
        result = json.loads(run(*command, "--patches", int(version != unpatched), "--json").splitlines()[-1])
        if version == versions[0]:
            # It takes longest, and is the same for all.
            shutil.copytree(directory / "repo", first)
    costs = result["published"][-1]["costs"]
    told = next(told for told in costs["chunks_from"] if told["version"] == versions[0])
    return told, told["cost"]["bytes"] + (told["difference"] or costs["map_and_index"])


def rebuilt(directory, version, lock):
    """Builds a version once more in another place and publishes it over what is published: bytes of all files of the repository that are others then."""
    again, repo = directory / "again", directory / "repo"
    again.mkdir()
    build(again, version, lock)
    shutil.rmtree(repo, ignore_errors=True)
    shutil.copytree(directory / f"repo-{version}", repo)

    def files():
        return {file: hashlib.sha256(file.read_bytes()).digest() for file in repo.rglob("*") if file.is_file()}

    before = files()
    run(GARBOARD, "publish", again / version, "--repo", repo, "--channel", "stable", "--keys", directory / "keys")
    return sum(file.stat().st_size for file, digest in files().items() if before.get(file) != digest)


def xdelta3(directory, old, new):
    patch = directory / "xdelta3"
    run("xdelta3", "-f", "-e", "-9", "-S", "lzma", "-B", 2 << 30, "-s", old, new, patch)
    return patch.stat().st_size


def zstd(directory, old, new):
    patch = directory / "zstd"
    run("zstd", "-q", "-f", "-19", "--long=30", f"--patch-from={old}", new, "-o", patch)
    return patch.stat().st_size


def casync(directory, old, new):
    """Its index, and the chunks that the old one does not have."""
    stores = []
    for name, file in [("old", old), ("new", new)]:
        store = directory / f"casync-{name}"
        shutil.rmtree(store, ignore_errors=True)
        run("casync", "make", f"--store={store}", directory / f"{name}.caibx", file)
        stores.append({chunk.name: chunk.stat().st_size for chunk in store.rglob("*.cacnk")})
        shutil.rmtree(store)
    return sum(size for name, size in stores[1].items() if name not in stores[0]) + (directory / "new.caibx").stat().st_size


def zchunk(directory, old, new):
    """As its own tool counts it."""
    for name, file in [("old", old), ("new", new)]:
        run("zck", "-o", directory / f"{name}.zck", file)
    said = run("zck_delta_size", directory / "old.zck", directory / "new.zck")
    return int(re.search(r"download (\d+) of \d+ bytes", said)[1])


def bita(_, old, new):
    """Chunks that the old one does not have, as its own tool counts them, and the digests of all, which a client fetches first."""
    said = run("bita", "diff", old, new)
    chunks = int(re.findall(r"\(unique (\d+)\)", said)[1])
    return int(re.findall(r"not in other: .*?compressed size: .*?\((\d+) bytes\)", said)[1]) + chunks * 64


def block_index(_, old, new):
    """RAUC's adaptive updates: an index of SHA-256 of all blocks, and blocks of 4 KiB, as they are, that are nowhere in the old slot."""

    def blocks(path):
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                yield hashlib.sha256(block).digest()

    have, wanted = set(blocks(old)), list(blocks(new))
    return len(set(wanted) - have) * BLOCK + len(wanted) * 32


def bench_downloads(_):
    directory = OUT / "downloads"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    run(GARBOARD, "keys", "init", "--dir", directory / "keys")
    new = build(directory, "1.1.0")
    old = older(new)
    mixed, library = with_one_package(old, new, "lib")
    for version, lock in [("1.0.0", old), ("1.0.0.1", old), ("1.0.1", mixed), ("1.0.1.1", mixed), ("1.1.0.1", new)]:
        build(directory, version, lock)
    for version in ["1.0.0", "1.0.1", "1.1.0"]:
        files_of(directory, version)
    # Peer, whether it works from one version to the next or from any to the latest.
    peers = {"`xdelta3 -9 -S lzma -B2G`": xdelta3, "casync": casync, "zchunk": zchunk, "bita": bita, "blocks of 4 KiB and their index": block_index}

    def row(what, size, limit="", wanted=""):
        return [what, f"{size:,}" if size else "none", limit, wanted]

    def rows(version, between, more, limits):
        before, after = directory / "1.0.0.bin", directory / f"{version}.bin"
        sizes = {name: peer(directory, before, after) for name, peer in (peers | more).items()}
        told, chunks = ours(directory, ["1.0.0", version])
        behind, _ = ours(directory, ["1.0.0", between, version])
        # As if all had changed once more in between: no patch is made of these bytes, and the last release raises only the version.
        twice, _ = ours(directory, ["1.0.0", version, f"{version}.1"], version)
        out = [row(name, size) for name, size in sizes.items()]
        peer = next(name for name in sizes if limits[0] in name)
        by_patch = lambda what, size, limit: row(f"Garboard, by patch{what}", size, f"{size / sizes[peer]:.2f} of {limits[0]}" if size else "", f"at most {limit}")
        out.append(by_patch("", told["patch"], limits[1]))
        if told["patch_with_kernel"]:
            out.append(by_patch(", the kernel rebuilt", told["patch_with_kernel"], "0.60"))
        chunked = {name: size for name, size in sizes.items() if name in ["casync", "zchunk", "bita", "blocks of 4 KiB and their index"]}
        best = min(chunked, key=chunked.get)
        against = lambda what, size, limit: out.append(row(f"Garboard, {what}", size, f"{size / chunked[best]:.2f} of {best}" if size else "", limit))
        wanted = f"at most {limits[2]}"
        against("two releases behind: by patches of other versions", behind["patch"], wanted)
        if behind["patch_with_kernel"]:
            against("the same, the kernel rebuilt", behind["patch_with_kernel"], wanted)
        against("two releases behind, of whose changes nobody makes a patch", twice["patch"], wanted)
        against(f"by chunks alone, where the publisher makes no patches, in {told['cost']['requests']} requests", chunks, f"{wanted}, 400 requests")
        return out

    head = ["", "bytes", "is", "limit"]
    kernel = rows("1.1.0", "1.0.1", {"`zstd -19 --patch-from`": zstd}, ("zstd", "0.75", "0.95"))
    one = rows("1.0.1", "1.0.0.1", {}, ("xdelta3", "0.80", "0.60"))
    raised, chunks = ours(directory, ["1.0.0", "1.0.0.1"])
    again = rebuilt(directory, "1.0.0", old)
    most = f"at most {64 << 10:,}"
    same = [
        row("only the version: by patch", raised["patch"], "", most),
        row("only the version: by chunks, with the difference", chunks, "", most),
        ["the same version built and published again: files of the repository that are others, all together", f"{again:,}", "", f"at most {10 << 10:,}"],
    ]
    return "\n".join([
        table("An update of `docker`: what the archives have of before, and what they have now, another kernel among them", head, kernel),
        table(f"The same with one library changed: {library}", head, one),
        table("The same inputs", head, same),
    ])
