# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the guest tests. They run inside the lab's build root: `make test`, or `python3 -m lab` for single tests.

A test that asks for `kernel` runs once for each kernel of the lab. One that asks for `driver` as well runs on each of them with our
driver, and on the first one, unless that is the kernel `debug`, with the C driver, the control. Where C is known to do something
else, say so with `@pytest.mark.c_differs("what it does")`: the test must then fail with the C driver. The control is a long test,
unless the mark says `everyday=True`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("device.rig")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.guest import Guest, facts  # noqa: E402
from lab.guest.logs import log_dir, run_dir  # noqa: E402

if TYPE_CHECKING:
    from device import Rig

GUESTS = pytest.StashKey[list[Guest]]()
FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel", action="append", help="run on this kernel of the lab only (may be repeated)")
    parser.addoption("--rounds", type=int, default=5, help="how often tests/debug plugs a device, and a fifth of how often it binds and loads; a release takes 200")
    parser.addoption("--driver", action="append", choices=["rust", "c"], help="run with this balloon driver only (may be repeated)")
    parser.addoption("--below", action="append", default=[], help="put this module of ours, too, below the drivers (may be repeated)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "everyday(parameter, values): which values of a parameter are tried on each kernel; the others are in `make test-long`"
    )
    config.addinivalue_line("markers", "c_differs(what, everyday=False): the C driver is known to fail this test, because it does `what`")
    try:
        known = facts().kernels
    except RuntimeError as error:
        raise pytest.UsageError(str(error)) from error
    for name in config.getoption("--kernel") or []:
        if name not in known:
            raise pytest.UsageError(f"the lab has no kernel {name}, it has: {', '.join(known)}")


def pytest_report_header() -> list[str]:
    kernels = ", ".join(f"{kernel.name} ({kernel.release})" for kernel in facts().kernels.values())
    return [f"guest kernels: {kernels}; accel: {facts().accel}; logs: {run_dir()}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kernels = metafunc.config.getoption("--kernel") or list(facts().kernels)
    drivers = metafunc.config.getoption("--driver") or ["rust", "c"]
    if "driver" in metafunc.fixturenames and "kernel" in metafunc.fixturenames:
        differs = metafunc.definition.get_closest_marker("c_differs")
        control = [] if differs and differs.kwargs.get("everyday") else [pytest.mark.long]
        if differs:
            control.append(pytest.mark.xfail(strict=True, reason=f"C {differs.args[0]}"))
        marks = {"rust": [], "c": control}
        pairs = [(kernel, driver) for kernel in kernels for driver in drivers if driver == "rust" or kernel == kernels[0] != "debug"]
        metafunc.parametrize(
            ("kernel", "driver"),
            [pytest.param(kernel, driver, id=f"{kernel}-{driver}", marks=marks[driver]) for kernel, driver in pairs],
        )
    elif "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", kernels)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests that share a rig in one process, and leaves what is not for every day to `make test-long`."""
    for item in items:
        if "rigs" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(f"rigs-{item.callspec.params['kernel']}"))
        if not _is_everyday(item):
            item.add_marker(pytest.mark.long)


def _is_everyday(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("everyday")
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if marker is None or marker.args[0] not in parameters:
        return True
    name, chosen = marker.args
    return parameters[name] in chosen.get(parameters["kernel"], [parameters[name]])


@pytest.fixture
def guests(request: pytest.FixtureRequest) -> Iterator[Callable[..., Guest]]:
    """A factory of guests: takes what `Guest` takes, gives a guest that is not started yet.

    When the test is over the guests are stopped; a kernel that had complained fails the test even then.
    """
    made: list[Guest] = request.node.stash.setdefault(GUESTS, [])

    def make(name: str = "guest", **options: object) -> Guest:
        options["rust"] = {*options.get("rust", ()), *request.config.getoption("--below")}
        guest = Guest(name, logs=log_dir(request.node.nodeid.partition("::")[2], name), **options)
        made.append(guest)
        return guest

    yield make
    errors = []
    for guest in made:
        try:
            if request.node.stash.get(FAILED, False):
                guest.stop()
            else:
                guest.finish()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def guest(guests: Callable[..., Guest], kernel: str, driver: str) -> Guest:
    """A started guest of 1 GiB with a balloon, for the kernel and the driver of the test."""
    return guests(kernel=kernel, driver=driver).start()


@pytest.fixture(scope="module")
def rigs() -> Iterator[dict[tuple[str, str], Rig]]:
    """The rigs of a module, by kernel and ring format; see `lent_rig()`."""
    made: dict[tuple[str, str], Rig] = {}
    yield made
    for rig in made.values():
        rig.close()


@contextmanager
def lent_rig(
    request: pytest.FixtureRequest, rigs: dict[tuple[str, str], Rig], key: tuple[str, str], make: Callable[[Path], Rig]
) -> Iterator[Rig]:
    """Lends a test the rig of a kernel and a ring format, made with the folder for its logs if there is none yet.

    A test that fails leaves none to the next one.
    """
    if key not in rigs:
        rigs[key] = make(log_dir(request.module.__name__, "-".join(key)))
    rig = rigs[key]
    request.node.stash[GUESTS] = [rig.guest]
    failed = request.session.testsfailed
    try:
        rig.begin()
        yield rig
        if request.session.testsfailed == failed:
            rig.end()
            failed = -1
    finally:
        if failed >= 0:
            rigs.pop(key).close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Names the guests' logs in every failure."""
    report = yield
    if report.failed or hasattr(report, "wasxfail"):
        item.stash[FAILED] = True
    if report.failed:
        for guest in item.stash.get(GUESTS, []):
            report.sections.append((f"guest {guest.name}: {guest.logs}/console.log, qmp.log", guest.console.tail(15)))
    return report
