"""Releases of recipes/docker.toml to update between: what the archives have now, and what they still have of before."""

import functools
import re
import shutil
import subprocess

from bench_common import GARBOARD, HERE, OUT, run

# Of the name of a kernel's package what differs from one to the next.
ABI = re.compile(r"\d+\.\d+\.\d+\+deb\d+(\.\d+)?")


def build(directory, version, lock=None):
    """Builds a release of recipes/docker.toml with the packages of this lock, else with the newest, and gives its lock."""
    recipe = directory / f"{version}.toml"
    recipe.write_text(f'name = "docker"\nextends = "{HERE}/recipes/docker.toml"\n')
    if lock:
        recipe.with_suffix(".lock").write_text(lock)
    else:
        # `older` is to find what is on offer now.
        shutil.rmtree(OUT / "cache/indexes", ignore_errors=True)
    run(GARBOARD, "build", recipe, "--version", version, "--out", directory / version, "--format", "raw", "--quiet")
    return recipe.with_suffix(".lock").read_text()


def packages(lock):
    """What stands before the packages of a lock, and the block of each."""
    head, *blocks = re.split(r"(?m)^(?=\[\[package\]\])", lock)
    return head, {field("name", block): block for block in blocks}


def field(name, block):
    return re.search(rf'^{name} = "?(.*?)"?$', block, re.M)[1]


def older(lock):
    """The lock as it could have been some time ago: with what the archives still have of before, in the suite the kernel, in the security archive
    the rest. What is on offer differs from day to day, and right after a point release suite and security updates are the same."""
    head, blocks = packages(lock)
    offered = {}
    for index in (OUT / "cache/indexes").glob("*"):
        for paragraph in index.read_text().split("\n\n"):
            package = dict(re.findall(r"^(Package|Version|Filename|Size|SHA256): (.*)", paragraph, re.M))
            if len(package) == 5:
                offered.setdefault(ABI.sub("*", package["Package"]), []).append(package)

    def is_older(one, other):
        return subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0

    def before(name, block):
        shape = ABI.sub("*", name)
        wanted = "pool/main/" if shape != name else "pool/updates/"
        found = [package for package in offered.get(shape, []) if package["Filename"].startswith(wanted) and is_older(package["Version"], field("version", block))]
        if not found:
            return block
        package = max(found, key=functools.cmp_to_key(lambda one, other: -1 if is_older(one["Version"], other["Version"]) else 1))
        suite = "trixie" if shape != name else "trixie-security"
        return "\n".join([
            "[[package]]", f'name = "{package["Package"]}"', f'version = "{package["Version"]}"', f'architecture = "{field("architecture", block)}"',
            f'suite = "{suite}"', f'path = "{package["Filename"]}"', f'size = {package["Size"]}', f'sha256 = "{package["SHA256"]}"',
            block[block.index("\n\n"):],
        ])

    return head + "".join(before(name, block) for name, block in blocks.items())


def with_one_package(old, new, prefix):
    """The old lock with one package of the new one, of those with such a name that changed the one with the largest package; and its name."""
    _, olds = packages(old)
    head, news = packages(new)
    changed = [name for name in olds if name.startswith(prefix) and name in news and news[name] != olds[name]]
    chosen = max(changed, key=lambda name: int(field("size", news[name])))
    olds[chosen] = news[chosen]
    return head + "".join(olds.values()), chosen
