# SPDX-License-Identifier: GPL-2.0
"""A physical function that administers virtual ones, in another process (`tests/pci/admin.py`): all that `virtio_pci` exports for it.

`tests/modules/pci_functions.rs` lets the guest see the virtual functions, `tests/modules/admin_calls.rs` makes the calls.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from lab.guest import Guest, facts
from pci import config
from pci.admin import (
    EAGAIN, FOR_FUNCTIONS, FOR_ITSELF, OBJECTS, OWN, SRIOV, Answer, Command, Lie, Opcode, Owner, notify_info,
)
from pci.config import Capability
from pci.virtio import COMMON_AT, COMMON_SIZE, NO_VECTOR, PciDevice
from test_pci_sriov import UNLOCKED

Factory = Callable[..., Guest]

KERNEL = list(facts().kernels)[-1]
"""`full`, or `debug` in `make test-debug`: Debian's kernel has virtio on PCI built in."""

CORES = {"c": set(), "rust": {"virtio_pci", "virtio", "virtio_ring"}, "rust-pci": {"virtio_pci"}}

PCI = "/sys/bus/pci/devices"
DRIVER = "/sys/bus/pci/drivers/virtio-pci"

EIO, EBUSY, ENODEV, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, ETIMEDOUT = -5, -16, -19, -22, -2, -28, -95, -110
PROMPTLY = 4
"""Seconds within which a call ends whose answer will not come; the driver would wait longer for an answer."""


class Physical:
    """The physical function, and its two virtual ones."""

    def __init__(self, guest: Guest, device: PciDevice, owner: Owner, line: PciDevice) -> None:
        """`line` is another device, which has no vectors, and no capability to have virtual functions."""
        self.guest, self.device, self.owner, self.line = guest, device, owner, line
        self.slot, self.line_slot = (path.split("/")[-2] for path in guest.run(f"grep -l 0x1041 {PCI}/*/device").out.split())
        number = int(self.slot[8:10], 16)
        guest.run(f"modprobe pci_functions slot={number}; echo 1 >{PCI}/{self.slot}/remove; echo 1 >/sys/bus/pci/rescan; modprobe -a virtio_net admin_calls")
        self.first = number << 3 | 1

    def want(self, count: int) -> None:
        """Has virtual functions, without drivers."""
        self.guest.run(f"cd {PCI}/{self.slot}; echo 0 >sriov_drivers_autoprobe; echo 0 >sriov_numvfs; echo {count} >sriov_numvfs", timeout=30)

    def script(self, line: str, function: int = 0) -> str:
        """Shell commands for a call."""
        return f"exec 3<>/dev/admin_calls; echo {self.first + function} {line} >&3 && cat <&3"

    def call(self, line: str, function: int = 0, timeout: float = 20) -> list[str]:
        """Calls a function and returns what it gave."""
        return self.guest.run(self.script(line, function), timeout=timeout).out.split()

    def number(self, line: str, function: int = 0) -> int:
        """Calls a function that gives nothing, or whose result does not matter."""
        return int(self.call(line, function)[0])

    def begin(self, *lines: str) -> None:
        """Calls functions, each in a process of its own, and waits until the device has all of them."""
        self.guest.run("\n".join(f"({self.script(line)}) >/tmp/call{number} 2>&1 &" for number, line in enumerate(lines)))
        self.guest.wait_for(lambda: len(self.owner.kept) == len(lines), 10, "the device has not all commands")

    def end(self, count: int) -> list[list[str]]:
        """What came of them, as soon as they are back."""
        def back() -> bool:
            return self.guest.run(f"cat /tmp/call[0-{count - 1}] | wc -l; grep -L . /tmp/call*", check=False).out.split()[1:] == []

        self.guest.wait_for(back, PROMPTLY, "a call has not ended")
        return [self.guest.run(f"cat /tmp/call{number}; rm /tmp/call{number}").out.split() for number in range(count)]

    def answer(self, command: Command, answer: Answer) -> None:
        """Answers a command that was kept."""
        with self.device.lock:
            self.owner.kept.remove(command)
            self.device.use(self.owner.queues, command.buffer, self.owner.fill(command, answer))

    def lie(self, lie: Lie | None) -> None:
        """Has the device lie from now on, or be honest."""
        with self.device.lock:
            self.owner.lie = lie or (lambda command, answer: answer)

    def rebind(self) -> str:
        """Takes the driver of the virtio device away and brings it back, which resets the device; the error, or nothing."""
        self.guest.run(f"cd /sys/bus/virtio/drivers/virtio_net; test ! -e virtio0 || echo virtio0 >unbind", timeout=30)
        return self.guest.run("echo virtio0 >/sys/bus/virtio/drivers/virtio_net/bind", check=False, timeout=30).out.rpartition(": ")[2].strip()

    def log(self) -> str:
        """What the kernel said since the last time."""
        return self.guest.run("dmesg -c").out


@pytest.fixture
def physical(request: pytest.FixtureRequest, guests: Factory, ours: str) -> Iterator[Physical]:
    """A guest with such a device and two virtual functions."""
    owner = Owner()
    with PciDevice(owner, msix=True, queue_size=64) as device, PciDevice(Owner(), msix=False, queue_size=64) as line:
        guest = guests(
            kernel=KERNEL, rust=CORES[ours], driver=None, balloon=False, swap_mib=0, memory_mib=256, shared_memory=True, 
            qemu_options=[*device.options, *line.options],
            modules=["virtio_net", "virtio_vfio_pci", "pci_functions", "admin_calls"], kernel_options=["suspend.pm_test_delay=0"],
            allow=UNLOCKED if ours == "rust" else [*UNLOCKED, "cut here", "WARNING: .*virtio_dev_remove"],
        ).start()
        physical = Physical(guest, device, owner, line)
        physical.want(2)
        yield physical
        device.wrong.gone = False
        physical.lie(None)
        if ours != "c":
            assert device.violations == [] and owner.violations == []


HONEST = pytest.mark.parametrize("ours", ["rust", pytest.param("rust-pci", marks=pytest.mark.long), pytest.param("c", marks=pytest.mark.long)])
HOSTILE = pytest.mark.parametrize("ours", ["rust", pytest.param("rust-pci", marks=pytest.mark.long)])
"""C waits for ever, or believes what it is told."""


@HONEST
def test_honest(physical: Physical, ours: str) -> None:
    """If this fails a virtual function cannot be administered, or not as with C."""
    guest, owner = physical.guest, physical.owner
    interrupts(physical)
    assert owner.used[SRIOV] == FOR_FUNCTIONS
    assert ours == "c" or owner.used[OWN] == FOR_ITSELF, "commands for the device itself should be agreed upon, too"
    assert owner.limit == OBJECTS
    legacy(physical)
    objects(physical, ours)
    parts(physical)
    vfio(physical)
    sleeps(physical)
    without_the_capability(physical)


def interrupts(physical: Physical) -> None:
    """The queue has a vector of its own, or shares that of the configuration, or the line: whatever the device takes."""
    vectors: list[tuple[dict[str, int], list[str]]] = [
        ({}, ["virtio0-config", "virtio0-input.0", "virtio0-output.0", "virtio0-avq.2"]),
        ({"queue_msix_vector": 3}, ["virtio0-config", "virtio0-input.0", "virtio0-output.0"]),
        ({"queue_msix_vector": 2}, ["virtio0-config", "virtio0-virtqueues"]),
        ({"config_msix_vector": 0}, ["virtio0"]),
        ({}, ["virtio0-config", "virtio0-input.0", "virtio0-output.0", "virtio0-avq.2"]),
    ]
    for refused, names in vectors:
        for name, least in refused.items():
            physical.device.wrong.lies[name] = lambda value, least=least: NO_VECTOR if value >= least else value
        assert physical.rebind() == ""
        assert re.findall(r"virtio0\S*", physical.guest.run("cat /proc/interrupts").out) == names
        assert physical.call("legacy_common_io_read 4 1") == ["0", "04ee"]
        physical.device.wrong.lies.clear()


def legacy(physical: Physical) -> None:
    """Registers of the legacy interface, read and written."""
    assert physical.call("has_legacy_io") == ["true"]
    assert physical.call("legacy_common_io_read 4 4") == ["0", "04050607ee"]
    assert physical.call("legacy_device_io_read 2 1", 1) == ["0", "66ee"]
    assert physical.number("legacy_common_io_write 18 7b", 1) == 0
    assert physical.number("legacy_device_io_write 6 0102") == 0
    assert physical.owner.functions[1].common[18] == 0x7B
    assert physical.owner.functions[0].device[6:8] == b"\1\2"
    assert physical.call("legacy_common_io_read 23 2")[0] == str(EINVAL)
    assert physical.call("legacy_io_notify_info 2") == ["0", "2", "16"]
    assert physical.call("legacy_io_notify_info 1") == ["0", "0", str(0x4000)]
    assert physical.number("legacy_io_notify_info 3") == ENOENT
    assert physical.number("mode_set 0", -1) == ENODEV, "the physical function is none of its virtual ones"
    assert physical.call("has_legacy_io", -1) == ["false"]


def objects(physical: Physical, ours: str) -> None:
    """Objects for parts of states, as many as there can be, for functions of either number."""
    assert physical.call("has_dev_parts") == ["true"]
    assert physical.number("obj_create 1 0") == EOPNOTSUPP
    assert physical.number("obj_create 0 2") == EINVAL
    for number in range(OBJECTS):
        assert physical.call(f"obj_create 0 {number % 2}", number % 2) == ["0", str(number)]
    assert physical.number("obj_create 0 0") == ENOSPC
    assert physical.number("obj_destroy 1 2") == EINVAL
    assert physical.number("obj_destroy 0 2") == 0
    assert physical.number("obj_destroy 0 2") == ENOENT
    assert physical.call("obj_create 0 1") == ["0", "2"]
    for number in range(OBJECTS):
        assert physical.number(f"obj_destroy 0 {number}", number % 2) == 0
    assert physical.owner.objects == {}


def parts(physical: Physical) -> None:
    """Parts of a function's state, in lists of many entries, more than the kernel has in one piece of memory."""
    function = physical.owner.functions[0]
    function.parts = bytes(index * 7 & 0xFF for index in range(50_000))
    assert physical.call("obj_create 0 0") == ["0", "0"]
    assert physical.number("dev_parts_metadata_get 0 0 1") == EOPNOTSUPP
    assert physical.call("dev_parts_metadata_get 0 0 0") == ["0", "50000"]
    assert physical.number("dev_parts_get 0 0 0 100") == EOPNOTSUPP
    assert physical.call("dev_parts_get 0 0 1 20") == ["0", "20", function.parts[:20].hex()]
    physical.guest.run(f"({physical.script('dev_parts_get 0 0 1 50100')}) >/tmp/parts")
    assert physical.guest.run("cut -c 1-7 /tmp/parts; wc -c </tmp/parts").out.split() == ["0", "50000", str(8 + 100_200)]
    assert physical.guest.run("tail -c 224 /tmp/parts").out.strip() == function.parts[-12:].hex() + "ee" * 100
    assert physical.number("dev_parts_set 00") == EINVAL, "only while it is stopped"
    assert physical.number("mode_set 1") == 0 and function.stopped
    expected, function.parts = function.parts, b""
    header = "00" * 8
    physical.guest.run(f"""
        (echo -n '{physical.first} dev_parts_set {header}'; tail -c +9 /tmp/parts | head -c 100000) >/tmp/line
        exec 3<>/dev/admin_calls
        dd if=/tmp/line bs=1M >&3 2>/dev/null && cat <&3 >/tmp/result
    """)
    assert physical.guest.read("/tmp/result") == "0"
    assert function.parts == expected
    assert physical.number("mode_set 0") == 0 and not function.stopped
    assert physical.number("obj_destroy 0 0") == 0


def vfio(physical: Physical) -> None:
    """The kernel's own driver of virtual functions asks where notifications go. (VFIO itself wants an IOMMU, which is not there.)"""
    guest, owner = physical.guest, physical.owner
    guest.run("modprobe virtio_vfio_pci")
    owner.commands.clear()
    slot = guest.run(f"basename $(readlink -f {PCI}/{physical.slot}/virtfn1)").out.strip()
    guest.run(f"echo virtio_vfio_pci >{PCI}/{slot}/driver_override")
    result = guest.run(f"echo {slot} >/sys/bus/pci/drivers/virtio_vfio_pci/bind", check=False)
    assert "Invalid argument" in result.out, result.out
    assert [(command.opcode, command.member) for command in owner.commands] == [(Opcode.NOTIFY_INFO, 2)]
    guest.run("rmmod virtio_vfio_pci")


def sleeps(physical: Physical) -> None:
    """The queue comes back with the others when the device has slept; what was agreed and created before is gone."""
    guest, owner = physical.guest, physical.owner
    assert physical.call("obj_create 0 0") == ["0", "0"]
    guest.run("echo devices >/sys/power/pm_test; echo freeze >/sys/power/state; echo none >/sys/power/pm_test", timeout=60)
    assert owner.used[SRIOV] == FOR_FUNCTIONS and owner.objects == {}
    assert physical.call("obj_create 0 0") == ["0", "0"]
    assert physical.call("legacy_common_io_read 4 1") == ["0", "04ee"]


def without_the_capability(physical: Physical) -> None:
    """RFB-10, PCI-22: a device without the capability has a queue but no virtual functions; one without the registers is refused."""
    guest, line = physical.guest, physical.line
    for length, outcome in ((60, "refused"), (COMMON_SIZE, "used")):
        line.set_list(line.capabilities(common=Capability(config.COMMON, 0, COMMON_AT, length)))
        physical.log()
        guest.run(f"echo {physical.line_slot} >{DRIVER}/bind", timeout=20)
        if outcome == "refused":
            assert "common cfg size(60) does not match the feature VIRTIO_F_ADMIN_VQ" in physical.log()
            assert guest.run("test -e /sys/class/net/eth1", check=False).status != 0
        else:
            features = guest.read(f"{PCI}/{physical.line_slot}/virtio*/features")
            assert features[37] == "0" and features[41] == "1"
            assert isinstance(line.model, Owner) and line.model.used[SRIOV] == FOR_FUNCTIONS
            assert guest.run(f"test -e {PCI}/{physical.line_slot}/sriov_numvfs", check=False).status != 0
        guest.run(f"echo {physical.line_slot} >{DRIVER}/unbind", timeout=20)
        assert line.violations == []


@dataclass(frozen=True)
class Row:
    """A lie, a call, and what must come of it."""

    name: str
    lie: Callable[[], Lie]
    line: str
    result: list[str]
    log: str | None = None
    """What the log must say."""


def says(**changes: object) -> Callable[[], Lie]:
    """Something else in the answer."""
    return lambda: lambda command, answer: Answer(**{**answer.__dict__, **changes})


def busy(times: int) -> Callable[[], Lie]:
    """The device wants to be asked again."""

    def make() -> Lie:
        left = iter(range(times))
        return lambda command, answer: Answer(EAGAIN) if next(left, None) is not None else answer

    return make


def places(*entries: tuple[int, int, int]) -> Callable[[], Lie]:
    """Other places for notifications."""
    return says(result=notify_info(*entries))


READ, MODE, SIZE, NOTIFY = "legacy_common_io_read 4 4", "mode_set 1", "dev_parts_metadata_get 0 0 0", "legacy_io_notify_info 2"
GOOD, NOWHERE = ["0", "2", "4094"], [str(ENOENT), "238", "238"]
UNTOUCHED = "ee" * 5

LIES = [
    Row("ADM-6: EBUSY", says(status=16, qualifier=9), MODE, [str(EBUSY)], r"status\(0x10\) qualifier\(0x9\)"),
    Row("ADM-6: an unknown status", says(status=0x1234), MODE, [str(EINVAL)], r"status\(0x1234\)"),
    Row("ADM-6: a status that programs should never see", says(status=512), MODE, [str(EINVAL)]),
    Row("ADM-6: all ones", says(status=0xFFFF, qualifier=0xFFFF), READ, [str(EINVAL), UNTOUCHED]),
    Row("an answer of 0 bytes", says(length=0), MODE, [str(EIO)], r"too short"),
    Row("an answer of 7 bytes", says(length=7), MODE, [str(EIO)], r"too short"),
    Row("DEV-3: an answer of 4 GiB", says(length=0xFFFFFFFF), READ, ["0", "04050607ee"]),
    Row("ADM-12: half of a register", says(result=b"\4\5", length=10), READ, [str(EIO), UNTOUCHED], r"too short"),
    Row("ADM-12: more than the register, not said", says(length=8), READ, [str(EIO), UNTOUCHED], r"too short"),
    Row("half of a size", says(result=b"\1\2"), SIZE, [str(EIO), "238"], r"too short"),
    Row("a size of 4 GiB", says(result=b"\xff" * 8), SIZE, ["0", str(0xFFFFFFFF)]),
    Row("DEV-3: parts of 4 GiB", says(result=bytes(range(16)), length=0xFFFFFFFF), "dev_parts_get 0 0 1 16", ["0", "16", bytes(range(16)).hex()]),
    Row("no parts", says(result=b""), "dev_parts_get 0 0 1 4", ["0", "0", "ee" * 4]),
    Row("ADM-14: asks for patience three times", busy(3), READ, ["0", "04050607ee"]),
    Row("ADM-14: asks for patience for ever", busy(1000), MODE, [str(-EAGAIN)]),
    Row("ADM-18: no such BAR", places((2, 6, 0), (2, 255, 0), (2, 1, 0), (2, 2, 0xFFE)), NOTIFY, GOOD),
    Row("ADM-18: an odd place", places((2, 2, 0x11), (2, 2, 0xFFE)), NOTIFY, GOOD),
    Row("ADM-18: behind the BAR", places((2, 2, 0x1000), (2, 2, 0xFFFFFFFFFFFFFFFE), (2, 2, 0xFFE)), NOTIFY, GOOD),
    Row("ADM-18: unknown flags", places((3, 2, 0), (0xFE, 2, 0), (2, 2, 0xFFE)), NOTIFY, GOOD),
    Row("ADM-18: behind the end of the list", places((1, 0, 0), (0, 0, 0), (2, 2, 0xFFE)), NOTIFY, NOWHERE),
    Row("ADM-18: only bad places", places(*[(2, 0, 0)] * 4), NOTIFY, NOWHERE),
]


@HOSTILE
def test_hostile(physical: Physical) -> None:
    """If this fails a device that lies gets hold of memory, hangs a caller, or is believed."""
    assert physical.call("obj_create 0 0") == ["0", "0"]
    problems = []
    for row in LIES:
        physical.log()
        physical.lie(row.lie())
        result = physical.call(row.line)
        log = physical.log()
        print(f"{row.name}: {result}; {log.strip()}")
        if result != row.result:
            problems.append(f"{row.name}: {result} instead of {row.result}: {log}")
        if row.log and not re.search(row.log, log):
            problems.append(f"{row.name}: no /{row.log}/ in the log: {log}")
    physical.lie(None)
    assert problems == []
    assert physical.call(READ) == ["0", "04050607ee"]
    several_at_once(physical)
    no_answer_before_a_reset(physical)
    unknown_buffer(physical)
    too_much(physical)
    less_than_all(physical)
    registers(physical)
    gone(physical)


def several_at_once(physical: Physical) -> None:
    """Commands are answered in another order, and each caller gets its own answer."""
    physical.lie(lambda command, answer: None)
    physical.begin(*(f"legacy_common_io_read {at} 1" for at in range(4)))
    physical.lie(None)
    assert physical.call("legacy_common_io_read 9 1") == ["0", "09ee"], "others should not be in the way"
    for command in list(reversed(physical.owner.kept)):
        physical.answer(command, Answer(result=bytes([command.data[0] + 0x40])))
    assert physical.end(4) == [["0", f"{0x40 + at:02x}ee"] for at in range(4)]


def no_answer_before_a_reset(physical: Physical) -> None:
    """The device is reset while it owes answers: nobody waits any longer, and the next driver has a good queue."""
    physical.lie(lambda command, answer: None)
    physical.begin(READ, MODE, "dev_parts_get 0 0 1 40000")
    physical.lie(None)
    assert physical.rebind() == ""
    assert [result[0] for result in physical.end(3)] == [str(EIO)] * 3
    assert physical.call(READ) == ["0", "04050607ee"]
    assert physical.call("obj_create 0 0") == ["0", "0"], "objects go with the reset"


def unknown_buffer(physical: Physical) -> None:
    """DEV-1: the queue is broken by a buffer that nobody sent; callers get an error until the device is reset."""
    physical.lie(lambda command, answer: None)
    physical.begin(READ)
    physical.lie(None)
    ring = physical.device.ring(physical.owner.queues)
    assert ring is not None
    with physical.device.lock:
        ring.use((63, 8, 1))
        physical.device.interrupt(physical.owner.queues)
    assert physical.end(1)[0][0] == str(EIO)
    assert physical.number(MODE) == EIO
    assert physical.rebind() == ""
    assert physical.call(READ) == ["0", "04050607ee"]


def too_much(physical: Physical) -> None:
    """A result of 1 MB fits into a queue of 64, and not into one of 16. The log is not filled."""
    script = f"({physical.script('dev_parts_get 0 0 1 1000000')}) | cut -c 1-10"
    physical.lie(lambda command, answer: Answer(result=bytes(1_000_000)) if command.opcode == Opcode.PARTS_GET else answer)
    assert physical.guest.run(script).out == "0 1000000 \n"
    physical.lie(None)
    physical.device.wrong.lies["queue_size"] = lambda size: min(size, 16)
    assert physical.rebind() == ""
    assert physical.guest.run(script).out.startswith(f"{ENOSPC} 238")
    assert physical.call(READ) == ["0", "04050607ee"]
    physical.device.wrong.lies.clear()
    assert physical.rebind() == ""
    physical.log()
    physical.lie(lambda command, answer: Answer(-EINVAL))
    physical.guest.run(f"for number in $(seq 20); do ({physical.script(MODE)}); done")
    physical.lie(None)
    log = physical.log()
    assert log.count("status(0x16)") == 16 and log.count("no more of this until a reset") == 1, log


def less_than_all(physical: Physical) -> None:
    """ADM-3, ADM-4: commands that the device does not list are not sent, those that nobody knows are not agreed upon."""
    legacy = sum(1 << opcode for opcode in range(2, 7))

    def lists(commands: int) -> Lie:
        return lambda command, answer: Answer(result=commands.to_bytes(8, "little")) if command.opcode == Opcode.LIST_QUERY else answer

    physical.lie(lists(legacy | 1 << 63))
    assert physical.rebind() == ""
    assert physical.owner.used == {SRIOV: legacy}
    assert physical.call("has_legacy_io") == ["true"] and physical.call("has_dev_parts") == ["false"]
    assert physical.number(MODE) == EOPNOTSUPP and physical.number("obj_create 0 0") == EOPNOTSUPP
    physical.lie(lambda command, answer: Answer(-EINVAL) if command.opcode == Opcode.LIST_QUERY else answer)
    assert physical.rebind() == ""
    assert physical.owner.used == {}
    assert physical.call("has_legacy_io") == ["false"] and physical.number(READ) == EOPNOTSUPP
    physical.lie(lambda command, answer: Answer(result=bytes([0, 9])) if command.opcode == Opcode.CAP_GET else answer)
    assert physical.rebind() == ""
    assert physical.call("has_dev_parts") == ["false"], "without objects there are no parts"
    physical.lie(None)


def registers(physical: Physical) -> None:
    """PCI-22, PCI-26: what the device says about the queue cannot be; it is refused, and used when it is good again."""
    for name, value, error, line in (
        ("admin_queue_num", 0, "Invalid argument", r"0 queues for administration from 2 on"),
        ("admin_queue_index", 1, "Invalid argument", r"queues for administration from 1 on"),
        ("admin_queue_index", 700, "No such file or directory", r""),
    ):
        physical.log()
        physical.device.wrong.lies[name] = lambda _, value=value: value
        assert physical.rebind() == error, name
        assert re.search(line, physical.log())
        physical.device.wrong.lies.clear()
    assert physical.rebind() == ""
    assert physical.call(READ) == ["0", "04050607ee"]


def gone(physical: Physical) -> None:
    """DEV-16: the device is pulled out while it owes answers."""
    physical.lie(lambda command, answer: None)
    physical.begin(READ, MODE)
    physical.device.wrong.gone = True
    began = time.monotonic()
    physical.guest.run(f"echo {physical.slot} >{DRIVER}/unbind", timeout=30)
    assert time.monotonic() - began < PROMPTLY
    assert [result[0] for result in physical.end(2)] == [str(EIO)] * 2
    physical.device.honest()
    physical.lie(None)
    physical.device.reset()
    physical.guest.run(f"echo {physical.slot} >{DRIVER}/bind", timeout=30)
    physical.want(2)
    assert physical.call(READ) == ["0", "04050607ee"]


@HOSTILE
@pytest.mark.long
def test_mute(physical: Physical) -> None:
    """If this fails a device that does not answer is waited for without end, or is not used when it answers again."""
    physical.lie(lambda command, answer: None)
    began = time.monotonic()
    assert physical.call(MODE, timeout=60) == [str(ETIMEDOUT)]
    assert time.monotonic() - began >= 25, "the device has too little time"
    assert physical.number(MODE) == EIO, "the next one should not wait"
    physical.lie(None)
    assert physical.number(MODE) == EIO
    physical.answer(physical.owner.kept[0], Answer())
    assert physical.call(READ) == ["0", "04050607ee"]
    physical.lie(lambda command, answer: None)
    assert physical.rebind() == "", "the device itself works"
    assert physical.call("has_legacy_io") == ["false"] and physical.number(MODE) == EOPNOTSUPP
    physical.lie(None)
    assert physical.rebind() == ""
    assert physical.call(READ) == ["0", "04050607ee"]
