# SPDX-License-Identifier: GPL-2.0
"""Our sources in a kernel tree, and as patches: `make intree`, `make patches`. Of the tree there are the files that are changed; the
kernel that is built so has tests of its own, `make test-intree`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from lab import intree, intree_kernel, patches, paths, series
from lab.errors import LabError
from lab.guest import facts
from lab.progress import Steps

LINUX = list(facts().kernels.values())[0].source
INDEX = "======\nVirtio\n======\n\n.. toctree::\n   :maxdepth: 1\n\n   virtio\n   writing_virtio_drivers\n"
OPTIONS = ("VIRTIO", "VIRTIO_ANCHOR", "VIRTIO_PCI", "VIRTIO_PCI_LIB", "VIRTIO_MMIO", "VIRTIO_BALLOON", "VIRTIO_INPUT")
OWN = ("VIRTIO_RNG_RUST", "VIRTIO_RUST_KUNIT_TEST")
CONFIG = paths.CHECKOUT / "lab" / "config"
KUNIT = f"{series.FOLDER}/tests/kunit"
OURS = {"virtio.o", "virtio_ring.o", "virtio_mmio.o", "virtio_pci.o", "virtio_balloon.o"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The part of a kernel tree that matters. The page is not in the lab's source, and that of Linux as far as it matters."""
    folder = tmp_path / "linux"
    for name in ("Makefile", series.MAKEFILE, series.KCONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(LINUX / name, folder / name)
    (folder / series.INDEX).parent.mkdir(parents=True)
    (folder / series.INDEX).write_text(INDEX)
    return folder


@pytest.fixture
def whole(tree: Path) -> Path:
    """A tree with our sources whose other files are links into the lab's: enough to configure a kernel."""
    intree.install(tree)
    link(LINUX, tree)
    return tree


def link(source: Path, target: Path) -> None:
    """Links whatever is in a folder and not in the other one."""
    for entry in source.iterdir():
        there = target / entry.name
        if there.is_dir():
            link(entry, there)
        elif not there.exists():
            there.symlink_to(entry)


def configured(tree: Path, fragment: str) -> set[str]:
    """The lines of the configuration that the kernel makes of some."""
    out = tree.parent / "objects"
    out.mkdir(exist_ok=True)
    (out / ".config").write_text(fragment)
    command = ["make", "-C", tree, f"O={out}", "ARCH=x86_64", intree_kernel.VARIANTS["rust"].toolchain, "olddefconfig"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set((out / ".config").read_text().splitlines())


def contents(tree: Path) -> dict[str, bytes]:
    """All files of a tree."""
    return {str(path.relative_to(tree)): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file() and ".git" not in path.parts}


def git(tree: Path, *arguments: str) -> str:
    """Runs git in a tree as somebody."""
    command = ["git", "-C", str(tree), "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects(makefile: Path, rust: bool) -> set[str]:
    """What drivers/virtio/Makefile makes with all options on."""
    settings = [f"CONFIG_{name}=y" for name in (*OPTIONS, *(["VIRTIO_RUST", *OWN] if rust else []))]
    command = ["make", "-s", "-f", "-", "all", f"src={makefile.parent}", *settings]
    text = f"include {makefile}\nall:\n\t@echo $(obj-y)\n"
    return set(subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout.split())


def test_again(tree: Path) -> None:
    """If this fails a second run breaks the tree, or makes the kernel build files anew that are as they were."""
    assert intree.install(tree) > 100
    before = contents(tree)
    times = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert intree.install(tree) == 0
    assert contents(tree) == before
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == times


def test_update(tree: Path) -> None:
    """If this fails a second run leaves what was changed or removed in the meantime, or takes an object of the build away."""
    intree.install(tree)
    before = contents(tree)
    (tree / series.FOLDER / "virtio.rs").write_text("// old\n")
    (tree / series.FOLDER / "kernel_ext/gone.rs").write_text("// old\n")
    (tree / series.FOLDER / "virtio.o").write_text("object")
    assert intree.install(tree) == 2
    assert contents(tree) == before | {f"{series.FOLDER}/virtio.o": b"object"}


def test_control() -> None:
    """If this fails the kernel `c` is no control of the kernel `rust`: more differs than the language, or not even that."""
    rust, control = (set(intree_kernel.VARIANTS[name].fragment().splitlines()) for name in ("rust", "c"))
    assert rust - control == {"CONFIG_VIRTIO_RUST=y"}
    assert control - rust == {"# CONFIG_VIRTIO_RUST is not set"}
    assert intree_kernel.VARIANTS["rust"].toolchain == intree_kernel.VARIANTS["c"].toolchain


def test_debug_has_detectors() -> None:
    """If this fails the kernel `rust-debug` looks for no errors, or is another one than `rust` in what it does not do for that."""
    rust, debug = (set(intree_kernel.VARIANTS[name].fragment().splitlines()) for name in ("rust", "rust-debug"))
    assert rust - debug == set()
    detectors = set((paths.CONFIG / "debug.config").read_text().splitlines())
    assert debug - rust == {line for line in detectors if "CONFIG_" in line} - rust != set()


def test_every_source(tree: Path) -> None:
    """If this fails a source is missing in the tree, and the kernel does not build."""
    intree.install(tree)
    others = {paths.BUILD, paths.CHECKOUT / "lab", paths.CHECKOUT / "tests"}
    sources = [path.relative_to(paths.CHECKOUT) for path in paths.CHECKOUT.rglob("*.rs") if not others & set(path.parents)]
    assert len(sources) > 100
    assert [path for path in sources if not (tree / series.FOLDER / path).exists()] == []


def test_choice(tree: Path) -> None:
    """If this fails CONFIG_VIRTIO_RUST does not choose: an object is made of both languages or none, or another one is lost."""
    all_of_c = objects(tree / series.MAKEFILE, False)
    intree.install(tree)
    assert objects(tree / series.MAKEFILE, False) == all_of_c >= OURS
    assert objects(tree / series.MAKEFILE, True) == all_of_c - OURS | {"rust/"}
    made = re.findall(r"^obj-\S+ \+= (\S+)$", (tree / series.FOLDER / "Kbuild").read_text(), re.MULTILINE)
    assert OURS <= set(made)
    for name in made:
        assert (tree / series.FOLDER / name).with_suffix(".rs").exists()


def test_options(whole: Path) -> None:
    """If this fails kunit.py does not find the suites, or one of our options can say `y` where the bus is a module, and the kernel
    does not link."""
    suites = (whole / KUNIT / ".kunitconfig").read_text()
    assert set(suites.splitlines()) - configured(whole, suites) == set()
    built = objects(whole / series.FOLDER / "Kbuild", True)
    assert {f"tests/kunit/{path.stem}.o" for path in (whole / KUNIT).glob("*_kunit.rs")} <= built

    full = (CONFIG / "full.config").read_text()
    fragment = intree_kernel.merged(full, "CONFIG_VIRTIO_RUST=y\n# CONFIG_HW_RANDOM_VIRTIO is not set\n", "".join(f"CONFIG_{name}=y\n" for name in OWN))
    made = configured(whole, fragment)
    assert {"CONFIG_VIRTIO=m", "CONFIG_VIRTIO_RUST=y", *(f"CONFIG_{name}=m" for name in OWN)} - made == set()


@pytest.mark.parametrize(("text", "said"), [
    pytest.param(None, "there is no such folder", id="no-folder"), pytest.param("", "no source tree of a kernel", id="no-kernel"),
    pytest.param("VERSION = 7\nPATCHLEVEL = 2\n", "Linux 7.2; these sources are for 7.3", id="other-kernel"),
])
def test_refusals(tree: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str) -> None:
    """If this fails something that is no kernel of our series is written to, or the user is not told why not."""
    if text is None:
        shutil.rmtree(tree)
    else:
        (tree / "Makefile").write_text(text)
    monkeypatch.setenv("KSRC", str(tree))
    with pytest.raises(LabError, match=said) as error:
        intree.named_tree()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [series.MAKEFILE, series.KCONFIG, series.INDEX])
def test_strange_files(tree: Path, name: str) -> None:
    """If this fails a tree with another virtio than Linux's is left half changed."""
    (tree / name).write_text("# something else\n")
    before = contents(tree)
    with pytest.raises(LabError, match=f"{name} .*it is not that of Linux"):
        intree.install(tree)
    assert contents(tree) == before


def test_patches(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails the patches do not apply, are not what `make intree` does, or touch the working tree of whoever asks for them."""
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "base")
    monkeypatch.setenv("KSRC", str(tree))
    monkeypatch.setattr(patches, "OUT", tmp_path / "patches")
    made = patches.write(Steps(1))
    assert len(made) == len(series.SERIES) + 1
    assert "***" not in made[0].read_text()
    assert git(tree, "status", "--porcelain") == ""
    applied = tmp_path / "applied"
    git(tree, "worktree", "add", "-q", str(applied), "main", "--detach")
    git(applied, "am", "-q", *map(str, made[1:]))
    assert git(applied, "rev-parse", "HEAD^{tree}") == git(tree, "rev-parse", f"{patches.BRANCH}^{{tree}}")
    intree.install(tree)
    assert contents(applied) == contents(tree)
    check_style(made)


def check_style(made: list[Path]) -> None:
    """Asserts that the kernel's own check finds no error in patches."""
    command = ["perl", LINUX / "scripts/checkpatch.pl", "--no-tree", "--strict", "--terse", "--show-types", "--no-summary", *made]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    assert not [line for line in said.splitlines() if "ERROR:" in line], said


def test_objects_move_one_by_one(tree: Path) -> None:
    """If this fails a patch makes an object from Rust before its source is there, or none does."""
    original = contents(tree)
    for count in range(1, len(series.SERIES) + 1):
        state = series.state(original.get, count)
        (tree / series.MAKEFILE).write_bytes(state[series.MAKEFILE])
        moved = OURS - objects(tree / series.MAKEFILE, True)
        made = set(re.findall(r"^obj-\S+ \+= (\w+\.o)$", state[f"{series.FOLDER}/Kbuild"].decode(), re.MULTILINE))
        assert moved == made
        assert all(f"{series.FOLDER}/{name[:-2]}.rs" in state for name in moved)
    assert moved == OURS
