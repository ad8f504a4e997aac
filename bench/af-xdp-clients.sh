#!/bin/bash
# What do set-ups and pushes cost the server's core, with holdline over AF_XDP and with an epoll server on the kernel's?
#
#     cargo build --release && bench/af-xdp-clients.sh [PROGRAM]        as root
#
# Three rounds; in each, 16,000 kernel-socket clients connect to holdline and then to bench/rival/rival.c over the same
# veth pair, and get the same 64 bytes ten times each (a broadcast; the next one begins when every client has the last).
# Then bench/bare/reflector.c reflects for 2 seconds. Clients and the driver of their end (threaded NAPI) have the first
# core, the server and the driver of its end the second. holdline's program is off the interface while the other serves.
# The first core is the clients', so rates are theirs as much as a server's.
#
# Busy is the time on the processor (schedstat) of all threads of the server's process, of the NAPI thread of its end
# and of ksoftirqd of its core. Packets are those that the clients' end sent and got, a pair being one each way.
set -euo pipefail
source "$(dirname "$0")/../tests/linux/stage.sh"
enter cc ethtool taskset python3 nsenter
[[ $(id -u) == 0 ]] || skip "AF_XDP needs root"

here=$(dirname "$0")
cc -O2 -o "$folder/rival" "$here/rival/rival.c"
cc -O2 -o "$folder/reflector" "$here/bare/reflector.c"

cat > "$folder/drive.py" <<'PYTHON'
import glob, os, select, statistics, subprocess, sys, time

program, folder, keeper = sys.argv[1:]
CLIENTS, PUSHES, ROUNDS = 16000, 10, 3
INSIDE = ["nsenter", f"--net=/proc/{keeper}/ns/net"]

def text(path):
    with open(path) as file:
        return file.read().strip()

def threads_named(start):
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            found += [int(path.split("/")[2])] if text(path).startswith(start) else []
        except OSError:
            pass
    return found

def pin_drivers():
    for name, core in (("napi/crowd-", 0), ("napi/hall-", 1)):
        threads = threads_named(name)
        assert threads, f"there is no thread {name}"
        for thread in threads:
            os.sched_setaffinity(thread, {core})

def ran(process):
    """Nanoseconds that its threads were on a processor."""
    return sum(int(text(path).split()[0]) for path in glob.glob(f"/proc/{process}/task/*/schedstat"))

def around():
    return sum(ran(thread) for thread in threads_named("napi/hall-") + threads_named("ksoftirqd/1"))

def packets():
    return sum(int(text(f"/sys/class/net/crowd/statistics/{way}_packets")) for way in ("rx", "tx")) / 2

class Span:
    def __init__(self, process):
        self.process, self.busy, self.napi = process, ran(process) + around(), around()
        self.packets, self.begun = packets(), time.monotonic()

    def end(self):
        passed, self.count = time.monotonic() - self.begun, packets() - self.packets
        return passed, (ran(self.process) + around() - self.busy) / 1e9, self.count, (around() - self.napi) / 1e9

def ready(process, line):
    assert select.select([process], [], [], 60)[0], f"after 60 s: no {line!r}"
    got = process.readline().strip()
    assert got == line, f"expected {line!r}, got {got!r}"

def measure(server, host, push):
    pin_drivers()
    crowd = subprocess.Popen(["taskset", "-c", "0", f"{folder}/rival", "crowd", str(CLIENTS), host, "7000"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    span = Span(server.pid)
    ready(crowd.stdout, "connected")
    set_up = span.end()
    # A server that lost a client's last ACK has it only when it has repeated its SYN-ACK.
    time.sleep(4)
    span = Span(server.pid)
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
    push = lambda: subprocess.run([program, "broadcast", "--control", control, "x" * 64], check=True,
                                  stdout=subprocess.DEVNULL)
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

def bare():
    """Microseconds for a packet each way."""
    bounce = subprocess.Popen([f"{folder}/reflector", "bounce", "crowd"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    ready(bounce.stdout, "ready")
    pin_drivers()
    before = around()
    reflector = subprocess.Popen([*INSIDE, "taskset", "-c", "1", f"{folder}/reflector", "reflect", "hall", "2", "128"],
                                 stdout=subprocess.PIPE, text=True)
    a_second = float(reflector.stdout.read())
    _, _, usage = os.wait4(reflector.pid, 0)
    busy = usage.ru_utime + usage.ru_stime + (around() - before) / 1e9
    bounce.stdin.close()
    bounce.wait()
    return busy * 1e6 / (a_second * 2)

os.sched_setaffinity(0, {0})
median = statistics.median
figures, least = {"holdline": [], "Linux": []}, []
for number in range(ROUNDS):
    for name, server in (("holdline", holdline), ("Linux", linux)):
        figures[name].append(server())
    least.append(bare())
    for name in figures:
        (took, busy, count, driver), (push_took, push_busy, push_count, push_driver) = figures[name][-1]
        pushes = CLIENTS * PUSHES
        print(f"round {number}, {name:8}: {CLIENTS / took:7.0f} set-ups a second, {busy * 1e6 / CLIENTS:5.2f} us each, "
              f"{driver * 1e6 / CLIENTS:.2f} of them the driver's, {count / CLIENTS:.2f} pairs; "
              f"{pushes / push_took:7.0f} pushes a second, {push_busy * 1e6 / pushes:5.2f} us each, "
              f"{push_driver * 1e6 / pushes:.2f} of them the driver's, {push_count / pushes:.2f} pairs", flush=True)
    print(f"round {number}, bare    : {least[-1]:.2f} us a pair")

pair = median(least)
print(f"\nmedians of {ROUNDS} rounds; the bare reflector pays {pair:.2f} us for a packet each way")
each = {}
for what, place, number in (("set-up", 0, CLIENTS), ("push", 1, CLIENTS * PUSHES)):
    for name in figures:
        spans = [figure[place] for figure in figures[name]]
        rate = median(number / span[0] for span in spans)
        each[name] = median(span[1] * 1e6 / number for span in spans)
        pairs = median(span[2] / number for span in spans)
        print(f"{what:7} {name:9} {rate:9.0f} a second, {each[name]:6.2f} us busy, {each[name] / (pairs * pair):5.2f} "
              f"times the reflector's for {pairs:.2f} pairs")
    print(f"{what:7} Linux pays {each['Linux'] / each['holdline']:.2f} times what holdline pays")
PYTHON

# The file system that shows the devices of this namespace.
if [[ -z ${HOLDLINE_MOUNTED:-} ]]; then
    rm -r "$folder"
    HOLDLINE_MOUNTED=yes exec unshare --mount "$0" "$program"
fi
mount -t sysfs sysfs /sys
unshare --net sleep 900 &
started_now keeper
inside=(nsenter --net="/proc/$keeper/ns/net")
ip link add crowd type veth peer name hall
for name in crowd hall; do
    ethtool -K "$name" gro on
    # A veth that may get segments to cut leaves its NAPI out, and the sender's core does all the work.
    ethtool -K "$name" tso off
    ip link set "$name" up
    echo 1 > "/sys/class/net/$name/threaded"
done
until_true "there is no second namespace" ip link set hall netns "$keeper"
ip link set lo up
ip address add 10.86.0.1/24 dev crowd
ip link set crowd up
sysctl -qw net.ipv4.ip_local_port_range="1024 65535"
"${inside[@]}" sh -c 'ip link set lo up; ip address add 10.86.0.3/24 dev hall; ip link set hall up
    sysctl -qw net.core.somaxconn=65535 net.ipv4.tcp_max_syn_backlog=65535 net.ipv4.tcp_syncookies=0'
"${inside[@]}" unshare --mount sh -c 'mount -t sysfs s /sys && echo 1 > /sys/class/net/hall/threaded'
python3 "$folder/drive.py" "$program" "$folder" "$keeper"
