# SPDX-License-Identifier: GPL-2.0
"""The bus and core: what it makes of drivers and devices, and what user space sees of them.

`tests/modules/virtio_fake.rs` is a device, its transport and its driver in one, and writes down what the core has them do. Where C
is expected to do the same, the test has C as a control, in `make test-long`; where it does not, `Documentation/core.rst` says what it
does. That the core works below all drivers and with either ring is also shown by `test_ring.py` and `test_ring_life.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from balloon_books import inflate, settle, total_kib
from conftest import GUESTS
from lab.guest import Guest
from lab.guest.logs import log_dir
from test_ring import KERNEL, LAYERS, MODULES, PAIRWISE, Devices, boot

Factory = Callable[..., Guest]

CORES = {"rust": {"virtio", "virtio_ring"}, "c": set()}
CONTROL = [pytest.param("rust"), pytest.param("c", marks=pytest.mark.long)]
OURS = pytest.mark.parametrize("fake", ["rust"], indirect=True)
BOTH = pytest.mark.parametrize("fake", CONTROL, indirect=True)
DRIVER = "/sys/bus/virtio/drivers/virtio_fake"


# Drivers and devices on our bus


NUMBERS = "cd /sys/bus/virtio/devices; for device in *; do echo $device $(readlink $device); done"
"""Says which virtio device is where."""


def test_drivers(guests: Factory, tmp_path: Path) -> None:
    """If this fails a driver in C does not work on our core, or not a second time: unbound and bound, all modules loaded again."""
    devices = Devices(tmp_path, "pci")
    devices.disks(PAIRWISE[:2])
    devices.nets(PAIRWISE[2:4])
    devices.serials(PAIRWISE[4:6])
    devices.rngs(PAIRWISE[6:7])
    guest = boot(guests, "rust-core", qemu_options=devices.options)
    total = total_kib(guest)
    devices.check(guest)
    inflate(guest, 64, total)
    guest.run(
        "for i in 1 2 3; do for link in /sys/bus/virtio/devices/*/driver; do device=${link%/driver}; "
        "driver=$(realpath $link); echo ${device##*/} >$driver/unbind; echo ${device##*/} >$driver/bind; done; done"
    )
    settle(guest, 64, total)
    before = guest.run(NUMBERS).out
    guest.run(f"rmmod virtio_balloon {' '.join(MODULES)} virtio_pci virtio virtio_ring; modprobe -a virtio_pci virtio_balloon")
    assert guest.run(NUMBERS).out == before, "the devices should have their numbers again"
    devices.check(guest)
    settle(guest, 64, total)


SYSFS = """
cd /sys/bus/virtio; find . | sort; cat drivers_autoprobe
for device in devices/*; do
    cd -P $device; echo $PWD; stat -c '%A %s %F %n' *; readlink driver subsystem
    cat device vendor status modalias features uevent; cd /sys/bus/virtio
done"""
UEVENTS = """
uevent env >/tmp/events & pid=$!; sleep 0.5
rmmod virtio_rng; modprobe virtio_rng; rmmod virtio_balloon
for device in /sys/bus/virtio/devices/*; do echo change >$device/uevent; done
rmmod virtio_pci; sleep 0.5; kill $pid; grep -v ^SEQNUM /tmp/events"""


def test_sysfs_and_uevents(guests: Factory, tmp_path: Path) -> None:
    """If this fails udev, modprobe or a script that reads sysfs see something else than on the C core."""
    seen = {}
    for core, layers in CORES.items():
        devices = Devices(tmp_path, "pci")
        devices.disks(PAIRWISE[:2])
        devices.rngs(PAIRWISE[2:3])
        guest = boot(guests, "c", name=core, rust=layers, memory_mib=256, qemu_options=devices.options)
        guest.run("modprobe -a virtio_blk virtio_rng")
        seen[core] = guest.run(SYSFS).out, guest.run(UEVENTS).out
        guest.finish()
    files, events = seen["rust"]
    assert files.count("virtio:d") == 2 * len(guest_devices := ("5", "2", "2", "4")), files
    for kind in guest_devices:
        assert f"MODALIAS=virtio:d0000000{kind}v00001AF4\n" in events
    for action in ("add", "bind", "change", "unbind", "remove"):
        assert f"ACTION={action}\n" in events
    assert files == seen["c"][0]
    assert events == seen["c"][1]


@pytest.mark.long
@pytest.mark.parametrize("layers", [name for name in LAYERS if name != "rust"])
def test_hibernation_of_the_balloon(guests: Factory, layers: str) -> None:
    """If this fails the balloon, in Rust, does not stay inflated over hibernation on some core and ring."""
    guest = guests(kernel=KERNEL, driver="rust", rust=LAYERS[layers]).start()
    total = total_kib(guest)
    inflate(guest, 200, total)
    mark = guest.mark()
    assert guest.run("swapoff -a; echo disk >/sys/power/state", timeout=120, check=False).status != 0
    settle(guest, 200, total)
    guest.run("swapon /dev/nvme0n1")
    assert guest.hibernate() is None
    assert guest.traffic(mark).pages == 0
    assert (resumed := guest.resume(target_mib=50)) is not None and resumed.status == 0
    settle(guest, 50, total)


@pytest.mark.long
def test_device_that_refuses_features(guests: Factory) -> None:
    """If this fails a driver is given a device that does not agree to what was negotiated."""
    # The balloon declines ACCESS_PLATFORM, since its page numbers are not translated, and QEMU then insists on it.
    guest = guests(kernel=KERNEL, rust=CORES["rust"], swap_mib=0, memory_mib=256, balloon="virtio-balloon-pci,disable-legacy=on,iommu_platform=on").start()
    assert "device refuses features" in guest.run("dmesg").out
    status = int(guest.read("/sys/bus/virtio/devices/virtio0/status"), 16)
    assert status == 131, "ACKNOWLEDGE, DRIVER and FAILED"
    assert guest.run("ls /sys/bus/virtio/drivers/virtio_balloon").out.count("virtio0") == 0


# What the core does, step by step


class Fake:
    """A guest that loads the fake device."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def steps(self, lie: int = 0, meanwhile: str = "true") -> list[str]:
        """Loads the module, runs a script, removes the module, and returns what was done, and what virtio had to say."""
        result = self.guest.run(f"dmesg -c >/dev/null; modprobe virtio_fake lie={lie}; {meanwhile}; rmmod virtio_fake; dmesg")
        lines = [line for line in result.out.splitlines() if line.startswith("virtio") and "loading out-of-tree" not in line]
        return [line.removeprefix("virtio_fake: > ") for line in lines]


@pytest.fixture(scope="module")
def fake_guests() -> Iterator[dict[str, Guest]]:
    """The guests of the tests below, by core."""
    made: dict[str, Guest] = {}
    yield made
    for guest in made.values():
        guest.finish()


@pytest.fixture
def fake(request: pytest.FixtureRequest, fake_guests: dict[str, Guest]) -> Fake:
    """The fake device, on one of the cores."""
    core = request.param
    if core not in fake_guests:
        fake_guests[core] = Guest(
            f"fake-{core}", kernel=KERNEL, driver=None, balloon=False, rust=CORES[core], swap_mib=0, memory_mib=256, modules=["virtio_fake"],
            logs=log_dir("test_core", f"fake-{core}"), allow=["cut here", r"WARNING: \S*virtio_bus/exports.rs"],
        ).start()
    request.node.stash[GUESTS] = [fake_guests[core]]
    return Fake(fake_guests[core])


def features(*bits: int) -> str:
    """As the device writes them down."""
    value = sum(1 << bit for bit in bits)
    return f"{value >> 64:016x} {value & (1 << 64) - 1:016x}"


RINGS_AND_VERSION = (28, 32)
OFFERED = f"offers {features(0, 3, 7, 9, 70, 71, *RINGS_AND_VERSION)}"
CHOSEN = f"features {features(0, 3, 70, *RINGS_AND_VERSION)}"
REGISTER = ["register:", "reset", "status 1"]
NEGOTIATE = ["status 3", OFFERED, CHOSEN]
PROBE = ["probe", "a change"]
LIVE = ["scan", "config_changed", "register: 0"]
GATE = [*["a change", "config_changed"], *["a change", "a change"], "the driver listens again", "config_changed"]
UNREGISTER = ["unregister:", "remove", "reset", "status 1", "release"]
GIVEN_UP = ["unregister:", "release"]


def sleep(live: int, *negotiated: str) -> list[str]:
    """What sleep, with a change meanwhile, and a reset by the transport look like."""
    again = ["reset", "status 1", "status 3", *negotiated]
    return [
        *["freeze:", "freeze", "freeze: 0"], "a change",
        *["restore:", *again, "restore", f"status {live}", "config_changed", "restore: 0"],
        *["reset_prepare:", "reset_prepare", "reset_prepare: 0"],
        *["reset_done:", *again, "reset_done", f"status {live}", "reset_done: 0"],
    ]


def without_second_look(steps: list[str]) -> list[str]:
    """Leaves out that our core asks again for the features after sleep; C does not."""
    seen = False
    return [step for step in steps if not step.startswith("offers") or not seen and (seen := True)]


@BOTH
def test_life_of_a_device(fake: Fake) -> None:
    """If this fails drivers are called in another order than on the C core, or the status does not mirror it."""
    steps = without_second_look(fake.steps())
    assert steps == [
        *REGISTER, *NEGOTIATE, "validate", "status 11", *PROBE, "status 15", *LIVE, *GATE, *sleep(15, CHOSEN, "status 11"), *UNREGISTER,
    ]


@BOTH
def test_life_of_a_legacy_device(fake: Fake) -> None:
    """If this fails a legacy device gets features that only a modern one knows, or a status that it does not know."""
    offered, chosen = f"offers {features(0, 3, 7, 9, 28, 70, 71)}", f"features {features(0, 7, 28)}"
    steps = without_second_look(fake.steps(lie=7))
    assert steps == [
        *REGISTER, "status 3", offered, chosen, "validate", *PROBE, "status 7", *LIVE, *GATE, *sleep(7, chosen), *UNREGISTER,
    ]


@BOTH
def test_driver_that_declines(fake: Fake) -> None:
    """If this fails the device is not told that the driver declines a feature."""
    declined = CHOSEN.replace(features(0, 3, 70, *RINGS_AND_VERSION), features(0, 70, *RINGS_AND_VERSION))
    steps = without_second_look(fake.steps(lie=8))
    assert steps == [
        *REGISTER, *NEGOTIATE, "validate", declined, "status 11", *PROBE, "status 15", *LIVE, *GATE,
        *sleep(15, declined, "status 11"), *UNREGISTER,
    ]


@BOTH
def test_driver_that_will_not_sleep(fake: Fake) -> None:
    """If this fails a driver that vetoes sleep hears of no changes any more."""
    steps = fake.steps(lie=9)
    assert steps == [
        *REGISTER, *NEGOTIATE, "validate", "status 11", *PROBE, "status 15", *LIVE, *GATE,
        *["freeze:", "freeze", "freeze: -16"], "a change", "config_changed", *UNREGISTER,
    ]


@OURS
def test_features_are_asked_for_again(fake: Fake) -> None:
    """If this fails the two tests above leave out something else than one question after each reset."""
    assert fake.steps().count(OFFERED) == 3


# Devices that lie


@OURS
def test_features_refused(fake: Fake) -> None:
    """DEV-18, STAT-3: the device takes FEATURES_OK back. The second attempt must begin with a reset."""
    attempt = ["status 3", OFFERED, CHOSEN, "validate", "status 11", "virtio_fake virtio0: virtio: device refuses features: 3", "status 131"]
    steps = fake.steps(1, f"(echo virtio0 >{DRIVER}/bind) 2>/dev/null")
    assert steps == [*REGISTER, *attempt, "register: 0", "reset", "status 1", *attempt, *GIVEN_UP]


@OURS
def test_reset_that_never_ends(fake: Fake) -> None:
    """DEV-15: the device does not come back from a reset. It is left alone."""
    assert fake.steps(2) == [
        "register:", "reset", "virtio virtio0: the device does not finish its reset: status 0x4", "status 132", "register: -5", "release",
    ]


@OURS
def test_reset_asked_for_in_probe(fake: Fake) -> None:
    """DEV-17: the device breaks before it is live. Its driver does not get it."""
    assert fake.steps(3) == [
        *REGISTER, *NEGOTIATE, "validate", "status 11", "virtio_fake virtio0: the device asks for a reset: status 0x4b", "status 203",
        "virtio_fake virtio0: probe with driver virtio_fake failed with error -5", "register: 0", *GIVEN_UP,
    ]


@OURS
def test_device_that_goes_in_probe(fake: Fake) -> None:
    """DEV-16: the device is not there any more. Nothing is written to it after that, and a new attempt does not begin."""
    steps = fake.steps(4, f"(echo virtio0 >{DRIVER}/bind) 2>/dev/null")
    gone = "virtio_fake virtio0: the device has gone"
    assert steps == [*REGISTER, *NEGOTIATE, "validate", "status 11", gone, "register: 0", gone, *GIVEN_UP]


@OURS
def test_features_that_go(fake: Fake) -> None:
    """DEV-19: after sleep the device offers less than is in use. The driver must not go on as if nothing were."""
    steps = fake.steps(5)
    restore = steps[steps.index("restore:"):steps.index("restore: -19")]
    assert restore == [
        "restore:", "reset", "status 1", "status 3", OFFERED.replace("289", "281"),
        f"virtio_fake virtio0: the device does not offer features any more that are in use: {8:032x}", "status 131",
    ]
    assert steps[-5:] == UNREGISTER


@OURS
def test_reset_asked_for_when_live(fake: Fake) -> None:
    """DEV-17, STAT-4: the device breaks while it is used. Its queues break, with one line in the log, and the driver can be unbound."""
    steps = fake.steps(6)
    complaint = "virtio_fake virtio0: the device asks for a reset: status 0x4f; it cannot be used any more"
    assert steps[steps.index("reset_done: 0") + 1:] == ["a change", "config_changed", complaint, "a change", "config_changed", "broken: true", *UNREGISTER]


@OURS
def test_device_left_running(fake: Fake) -> None:
    """RST-3: a driver forgets to reset its device. The core does."""
    complaint = "virtio_fake virtio0: the driver did not reset the device: status 0xf"
    assert fake.steps(10)[-6:] == ["unregister:", "remove", complaint, "reset", "status 1", "release"]


@OURS
def test_feature_that_the_driver_does_not_know(fake: Fake) -> None:
    """If this fails a mistake in a driver stops the machine, as it does in C."""
    steps = fake.steps(11)
    assert "virtio_fake virtio0: the driver has no feature 9 in its tables" in steps
    assert "\n".join(LIVE) in "\n".join(steps)
