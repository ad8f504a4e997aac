#!/bin/bash
# What do set-ups and pushes cost the server's core, with holdline over AF_XDP and with an epoll server on the kernel's?
#
#     cargo build --release && bench/af-xdp-clients.sh [PROGRAM]        as root
#
# In each round 16,000 kernel-socket clients connect to holdline and then to bench/rival/rival.c over the same veth
# pair, and get the same 64 bytes twenty times each (a broadcast; the next one begins when every client has the last).
# Then bench/bare/reflector.c reflects, for a second each, frames that the other end's driver bounces, and datagrams of
# a kernel socket, which the driver has to copy out of what the kernel's stack has made, as it has to for the clients'.
# Clients and the driver of their end (threaded NAPI) have the first core, the server and the driver of its end the
# second. holdline's program is off the interface while the other serves. The first core is the clients', so rates are
# theirs as much as a server's. Three rounds have the drivers as they are, which look at every frame as it comes; three
# have them wait 50 us after a look, as a card that moderates its interrupts does.
#
# What the pair lost all the same (see bench/pair/stage.sh) stands in each line.
#
# Busy is the time on the processor (schedstat) of all threads of the server's process, of the NAPI thread of its end
# and of ksoftirqd of its core. Packets are those that the clients' end sent and got, a pair being one each way.
set -euo pipefail
here=$(dirname "$0")
source "$here/../tests/linux/stage.sh"
source "$here/pair/stage.sh"
enter cc ethtool taskset tc python3 nsenter
[[ $(id -u) == 0 ]] || skip "AF_XDP needs root"

pair crowd hall 100000
cc -O2 -o "$folder/rival" "$here/rival/rival.c"
cc -O2 -o "$folder/reflector" "$here/bare/reflector.c"

ip address add 10.86.0.1/24 dev crowd
ip neighbor add 10.86.0.4 lladdr 02:00:00:00:00:04 dev crowd
sysctl -qw net.ipv4.ip_local_port_range="1024 65535"
"${inside[@]}" sh -c 'ip address add 10.86.0.3/24 dev hall
    sysctl -qw net.core.somaxconn=65535 net.ipv4.tcp_max_syn_backlog=65535 net.ipv4.tcp_syncookies=0'

drive <<'PYTHON'
import os, select, socket, statistics, subprocess, sys, time

from busy import drivers, ran, text, threads_named

program, folder, keeper = sys.argv[1:]
CLIENTS, PUSHES, ROUNDS = 16000, 20, 3
INSIDE = ["nsenter", f"--net=/proc/{keeper}/ns/net"]

def pin_drivers():
    for end, core in (("crowd", 0), ("hall", 1)):
        for thread in drivers(end):
            os.sched_setaffinity(thread, {core})
            # As whatever this runs, so that `nice` keeps what else the machine does out of all of it alike.
            os.setpriority(os.PRIO_PROCESS, thread, os.nice(0))

def around():
    return sum(ran(thread) for thread in drivers("hall") + threads_named("ksoftirqd/1"))

def packets():
    return sum(int(text(f"/sys/class/net/crowd/statistics/{way}_packets")) for way in ("rx", "tx")) / 2

def lost():
    """Frames that found a ring full, of both ends: the twelfth number of each is of those sent."""
    return sum(int(line.split()[12]) for process, name in (("self", "crowd:"), (keeper, "hall:"))
               for line in text(f"/proc/{process}/net/dev").splitlines() if line.strip().startswith(name))

class Span:
    def __init__(self, process, crowd):
        self.process, self.crowd = process, crowd
        self.busy, self.napi, self.crowd_busy = ran(process) + around(), around(), self.at_clients()
        self.packets, self.lost, self.begun = packets(), lost(), time.monotonic()

    def at_clients(self):
        return ran(self.crowd) + sum(ran(thread) for thread in drivers("crowd") + threads_named("ksoftirqd/0"))

    def end(self):
        passed, self.count = time.monotonic() - self.begun, packets() - self.packets
        busy, napi = ran(self.process) + around() - self.busy, around() - self.napi
        return passed, busy, self.count, napi, lost() - self.lost, self.at_clients() - self.crowd_busy

def ready(process, line):
    assert select.select([process], [], [], 60)[0], f"after 60 s: no {line!r}"
    got = process.readline().strip()
    assert got == line, f"expected {line!r}, got {got!r}"

def measure(server, host, push):
    pin_drivers()
    crowd = subprocess.Popen(["taskset", "-c", "0", f"{folder}/rival", "crowd", str(CLIENTS), host, "7000"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    span = Span(server.pid, crowd.pid)
    ready(crowd.stdout, "connected")
    set_up = span.end()
    time.sleep(1)
    span = Span(server.pid, crowd.pid)
    for _ in range(PUSHES):
        push()
        ready(crowd.stdout, "received")
    pushed = span.end()
    crowd.stdin.close()
    crowd.wait()
    time.sleep(0.5)
    return set_up, pushed

def ethtool(*words):
    subprocess.run(["ethtool", "-K", "crowd", *words], check=True, stdout=subprocess.DEVNULL)

def holdline():
    ethtool("tx", "off")
    control = f"{folder}/control"
    server = subprocess.Popen(
        [*INSIDE, "taskset", "-c", "1", program, "serve", "--link", "af-xdp:hall", "--address", "10.86.0.2/24",
         "--listen", "7000", "--max-connections", "50000", "--control", control], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if line.strip() == "ready":
            break
    time.sleep(0.5)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(control)
    def push():
        connection.sendall(b"POST /broadcast HTTP/1.1\r\nHost: holdline\r\nContent-Length: 64\r\n\r\n" + b"x" * 64)
        answer = connection.recv(4096)
        assert b" 202 " in answer, answer
    try:
        return measure(server, "10.86.0.2", push)
    finally:
        server.kill()
        server.wait()

def linux():
    ethtool("tx", "on", "tso", "off")
    server = subprocess.Popen([*INSIDE, "taskset", "-c", "1", f"{folder}/rival", "serve", "7000"],
                              stdin=subprocess.PIPE, text=True)
    time.sleep(0.5)
    def push():
        server.stdin.write("\n")
        server.stdin.flush()
    try:
        return measure(server, "10.86.0.3", push)
    finally:
        server.kill()
        server.wait()

def bare(way, whom, seeds):
    """Microseconds for a packet each way, and how many there were in a second, of those that come in a way."""
    ethtool("tx", "off")
    sender = subprocess.Popen(["taskset", "-c", "0", f"{folder}/reflector", way, whom], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    if way == "bounce":
        ready(sender.stdout, "ready")
    pin_drivers()
    before = around()
    reflector = subprocess.Popen([*INSIDE, "taskset", "-c", "1", f"{folder}/reflector", "reflect", "hall", "1", seeds],
                                 stdout=subprocess.PIPE, text=True)
    a_second = float(reflector.stdout.read())
    _, _, usage = os.wait4(reflector.pid, 0)
    busy = usage.ru_utime + usage.ru_stime + around() - before
    sender.kill()
    sender.wait()
    return busy * 1e6 / a_second, a_second

def moderate(microseconds):
    """How long the drivers of both ends wait after a look at their rings."""
    elsewhere = [*INSIDE, "unshare", "--mount"]
    for name, inside, first in (("crowd", [], "true"), ("hall", elsewhere, "mount -t sysfs s /sys")):
        place = f"/sys/class/net/{name}"
        command = (f"{first} && echo 2 > {place}/napi_defer_hard_irqs && "
                   f"echo {microseconds * 1000} > {place}/gro_flush_timeout")
        subprocess.run([*inside, "sh", "-c", command], check=True)

def rounds(label):
    figures = {"holdline": [], "Linux": []}
    least = {"bounced frames": [], "a kernel's datagrams": []}
    for number in range(ROUNDS):
        for name, server in (("holdline", holdline), ("Linux", linux)):
            figures[name].append(server())
            for what, count, span in zip(("set-ups", "pushes"), COUNTS, figures[name][-1]):
                took, busy, pairs, driver, gone, theirs = span
                print(f"{label} {number}, {name:8}: {count / took:7.0f} {what} a second, {busy * 1e6 / count:5.2f} us "
                      f"each, {driver * 1e6 / count:5.2f} of them the driver's, and {theirs * 1e6 / count:5.2f} of the "
                      f"clients' core; {pairs / count:.2f} pairs, {gone} lost", flush=True)
        least["bounced frames"].append(bare("bounce", "crowd", "128"))
        least["a kernel's datagrams"].append(bare("ask", "10.86.0.4", "0"))
        for what, values in least.items():
            print(f"{label} {number}, reflected: {values[-1][1]:7.0f} pairs of {what} a second, {values[-1][0]:.2f} us "
                  f"each", flush=True)
    print(f"\nmedians, {label}")
    for what, values in least.items():
        print(f"a bare reflector of {what} pays {median(value[0] for value in values):.2f} us a pair")
    for what, place, count in (("set-up", 0, COUNTS[0]), ("push", 1, COUNTS[1])):
        for name in figures:
            spans = [figure[place] for figure in figures[name]]
            rate = median(count / span[0] for span in spans)
            each = median(span[1] * 1e6 / count for span in spans)
            pairs, theirs = (median(span[which] / count for span in spans) for which in (2, 5))
            times = [median(span[1] * 1e6 / span[2] / value[0] for span, value in zip(spans, values))
                     for values in least.values()]
            print(f"{what:7} {name:9} {rate:8.0f} a second, {each:5.2f} us busy, the clients' core "
                  f"{theirs * 1e6:5.2f}; {pairs:.2f} pairs: {times[0]:.2f} times the reflector's of bounced frames, "
                  f"{times[1]:.2f} of a kernel's datagrams")
        ratio = median(theirs[place][1] / ours[place][1] for ours, theirs in zip(figures["holdline"], figures["Linux"]))
        print(f"{what:7} Linux pays {ratio:.2f} times what holdline pays")
    print()

COUNTS = CLIENTS, CLIENTS * PUSHES
median = statistics.median
os.sched_setaffinity(0, {0})
rounds("each frame")
moderate(50)
rounds("moderated")
PYTHON
