#!/bin/bash
# What does a million idle connections cost the server's core while keepalive probes them, and what the link alone?
#
#     cargo build --release && bench/idle-million.sh [PROGRAM] [CLIENTS] [KEEPALIVE]        as root
#
# `holdline load` opens 1,000,000 connections over AF_XDP on one end of a veth pair to holdline on the other, evenly
# spread over the 300 seconds of a keepalive interval, so that from then on as many probes leave in each second as
# connections were opened: 3,333. Those of a minute are measured. Clients and the driver of their end (threaded NAPI)
# have the first core, the server and the driver of its end the second. Then bench/bare/reflector.c lets as many frames
# go in a second by the same end, as many at a time as holdline's clock hand finds on average, and gets them back. It
# takes eight minutes; with fewer clients and as much shorter an interval there are as many probes.
#
# Busy is the time on the processor (schedstat) of all threads of the server's process and of the NAPI thread of its
# end.
set -euo pipefail
here=$(dirname "$0")
source "$here/../tests/linux/stage.sh"
source "$here/pair/stage.sh"
enter cc ethtool taskset tc python3 nsenter
[[ $(id -u) == 0 ]] || skip "AF_XDP needs root"

pair peers quiet 10000
cc -O2 -o "$folder/reflector" "$here/bare/reflector.c"

drive "${2:-1000000}" "${3:-300}" <<'PYTHON'
import json, os, subprocess, sys, time

from busy import drivers, ran, text

program, folder, keeper, clients, interval = sys.argv[1:]
clients, interval = int(clients), int(interval)
INSIDE = ["nsenter", f"--net=/proc/{keeper}/ns/net", "taskset", "-c", "1"]
CONTROL = f"{folder}/control"
MINUTE, STEPS_PER_S = 60, max(20, min(1000, clients / 4 / 4096))

def pin_drivers():
    for end, core in (("peers", 0), ("quiet", 1)):
        for thread in drivers(end):
            os.sched_setaffinity(thread, {core})
            # As a soft interrupt would, it runs at once.
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))

def driver():
    return sum(ran(thread) for thread in drivers("quiet"))

def stats():
    asked = subprocess.run([program, "stats", "--json", "--control", CONTROL], check=True, stdout=subprocess.PIPE)
    return json.loads(asked.stdout)

def memory(process):
    fields = dict(line.split(":") for line in text(f"/proc/{process}/status").splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024

def idle(server):
    before = memory(server.pid)
    crowd = subprocess.Popen(
        ["taskset", "-c", "0", program, "load", "--link", "af-xdp:peers", "--address", "10.86.1.1/16",
         "--addresses-each", "16", "--to", "10.86.0.2:7000", "--clients", str(clients),
         "--rate", str(-(-clients // interval)), "--seconds", str(interval + 2 * MINUTE)], stdout=subprocess.DEVNULL)
    begun = time.monotonic()
    time.sleep(1)
    pin_drivers()
    # The last are opened, and the first have been probed.
    time.sleep(begun + interval * 1.15 - time.monotonic())
    first, busy, napi, began = stats(), ran(server.pid), driver(), time.monotonic()
    time.sleep(MINUTE)
    busy, napi, took, last = ran(server.pid) - busy, driver() - napi, time.monotonic() - began, stats()
    held = (memory(server.pid) - before) / last["connections"]["total"]
    crowd.kill()
    crowd.wait()
    count = lambda *path: [told[path[0]][path[1]] for told in (first, last)]
    grown = lambda *path: (count(*path)[1] - count(*path)[0]) / took
    print(f"{last['connections']['total']} connections, {held:.0f} B each; in a second "
          f"{grown('rules', 'KeepaliveProbe'):.0f} probes, {grown('frames', 'in'):.0f} frames in and "
          f"{grown('frames', 'out'):.0f} out", flush=True)
    print(f"holdline: {(busy + napi) / took * 100:.2f} % of its core, {napi / took * 100:.2f} of them its end's driver")
    lost = last["link"]["receive_ring_full"] + last["link"]["fill_ring_empty"] + last["link"]["no_socket"]
    assert last["connections"]["total"] == clients and lost == 0, last["link"]
    return grown("rules", "KeepaliveProbe"), (busy + napi) / took

def serve():
    server = subprocess.Popen(
        [*INSIDE, program, "serve", "--link", "af-xdp:quiet", "--address", "10.86.0.2/16", "--listen", "7000",
         "--max-connections", str(clients + 1000), "--keepalive", str(interval), "--control", CONTROL],
        stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if line.strip() == "ready":
            return server
    sys.exit("the server did not start")

def bare(probes):
    """The share of the core that a loop pays for as many frames out and in."""
    bounce = subprocess.Popen([f"{folder}/reflector", "bounce", "peers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    bounce.stdout.readline()
    pin_drivers()
    at_once = max(1, round(probes / STEPS_PER_S))
    before, begun = driver(), time.monotonic()
    probe = subprocess.Popen([*INSIDE, f"{folder}/reflector", "probe", "quiet", "20", str(at_once),
                              str(1000 * at_once / probes)], stdout=subprocess.PIPE, text=True)
    came = float(probe.stdout.read())
    _, _, usage = os.wait4(probe.pid, 0)
    busy, took = usage.ru_utime + usage.ru_stime + driver() - before, time.monotonic() - begun
    bounce.stdin.close()
    bounce.wait()
    print(f"the bare loop: {came:.0f} frames back in a second, {at_once} at a time, {busy / took * 100:.2f} % of its "
          "core")
    return busy / took

os.sched_setaffinity(0, {0})
server = serve()
try:
    probes, share = idle(server)
finally:
    server.kill()
    server.wait()
time.sleep(1)
link = bare(probes)
print(f"the link alone is {link / share * 100:.0f} % of what holdline pays")
PYTHON
