"""Cores, memory and files, out of kernel files that a test has written."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.machine import Machine, check_cpu, check_memory, check_open_files, read_machine
from gpuscalp.doctor.streams import socket_count

GIB = 1 << 30
GOOD = Machine(4, None, 0.5, 8 * GIB, 1_024, 4_096)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"core_count": 1}, "warn"),
        ({"quota_cores": 0.5}, "warn"),
        ({"quota_cores": 3.0}, "ok"),
        ({"load_1min": 3.9}, "warn"),
        ({"load_1min": None}, "ok"),
        ({"quota_cores": 2.0, "load_1min": 1.9}, "warn"),
    ],
)
def test_cores_are_judged_with_quota_and_load(change, status):
    assert check_cpu(replace(GOOD, **change)).status == status


@pytest.mark.parametrize(
    ("available", "status"), [(8 * GIB, "ok"), (GIB // 2, "warn"), (GIB // 8, "fail"), (None, "skip")]
)
def test_memory_is_judged_by_what_can_be_had(available, status):
    assert check_memory(replace(GOOD, memory_bytes=available)).status == status


@pytest.mark.parametrize(
    ("soft", "hard", "status", "fix"),
    [
        (1_024, 1_024, "ok", None),
        (72, 4_096, "ok", None),
        (71, 4_096, "fail", "ulimit -n 72"),
        (32, 32, "fail", "hard limit"),
    ],
)
def test_open_files_are_judged_by_the_sockets_of_the_feed(soft, hard, status, fix):
    check = check_open_files(replace(GOOD, files_soft=soft, files_hard=hard), socket_count=4)
    assert check.status == status
    assert fix is None or fix in (check.fix or "")


def test_sockets_are_counted_over_routes_limits_and_copies():
    feed = FeedConfig(streams=("aggTrade", "bookTicker", "depth@100ms"), redundancy=2, max_streams=10)
    # Eleven symbols: 11 streams of /market in two connections, 22 of /public in three, all of it twice.
    assert socket_count([f"S{index}USDT" for index in range(11)], feed) == 2 * (2 + 3)
    assert socket_count((), feed) == 0


def test_facts_are_read_from_a_container_of_version_2(tmp_path):
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    (proc / "loadavg").write_text("1.25 0.9 0.5 2/300 4711\n")
    (proc / "meminfo").write_text("MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n")
    (cgroup / "cpu.max").write_text("150000 100000\n")
    (cgroup / "memory.max").write_text("1000000000\n")
    (cgroup / "memory.current").write_text("700000000\n")
    (cgroup / "memory.stat").write_text("anon 1\nfile 500000000\ninactive_file 200000000\n")
    found = read_machine(proc, cgroup)
    assert (found.load_1min, found.quota_cores, found.memory_bytes) == (1.25, 1.5, 500_000_000)


def test_facts_are_read_from_a_container_of_version_1(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("400\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("500\n")
    found = read_machine(tmp_path / "nothing", tmp_path)
    assert (found.load_1min, found.quota_cores, found.memory_bytes) == (None, None, 0)


def test_no_limit_and_no_files_leave_the_facts_open(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    found = read_machine(tmp_path, tmp_path)
    assert (found.load_1min, found.quota_cores, found.memory_bytes) == (None, None, None)
    assert found.core_count == len(os.sched_getaffinity(0))


def test_limit_of_open_files_is_that_of_the_shell():
    told = subprocess.run(["sh", "-c", "ulimit -Sn; ulimit -Hn"], capture_output=True, text=True, check=True)
    soft, hard = told.stdout.split()
    found = read_machine()
    for word, number in ((soft, found.files_soft), (hard, found.files_hard)):
        assert word == "unlimited" or int(word) == number
