#!/usr/bin/env python3
"""Records the captures of this folder: two Linux kernels in network namespaces of their own, a wire that may lose.

    sudo python3 pcap/record.py FOLDER [NAME ...]

Each end is a TUN device in its own namespace, so that the kernel hands out whole packets with complete checksums. What
goes between them passes through this process, which notes what the server's end sees: packets to it that were not
lost, and all that it sends. Needs root, python3, `ip`, `unshare`, `sysctl` and, for http, curl.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

CLIENT, SERVER, PORT = "10.5.0.1", "10.5.0.2", 7000
LINKTYPE_RAW, MAGIC_NANOSECONDS = 101, 0xA1B23C4D


def connect():
    for _ in range(50):
        try:
            return socket.create_connection((SERVER, PORT), timeout=10)
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nobody listens")


def listen():
    listener = socket.create_server((SERVER, PORT), backlog=16)
    listener.settimeout(15)
    return listener


def accept():
    with listen() as listener:
        connection, _ = listener.accept()
    connection.settimeout(15)
    return connection


def read_all(connection):
    received = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            return received
        received += piece


def serve_echo():
    with accept() as connection:
        while piece := connection.recv(65536):
            connection.sendall(piece)


def ask_echo():
    with connect() as connection:
        for line in (b"one\n", b"two and a half\n", b"three\n" * 50):
            connection.sendall(line)
            connection.recv(65536)
            time.sleep(0.05)


def serve_http():
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "4000")
            self.end_headers()
            self.wfile.write(b"h" * 4000)

        def log_message(self, *_):
            pass

    HTTPServer((SERVER, PORT), Handler).handle_request()


def ask_http():
    time.sleep(0.3)
    subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://{SERVER}:{PORT}/"], check=True, timeout=15)


def take():
    with accept() as connection:
        read_all(connection)


def give(count):
    def run():
        with connect() as connection:
            connection.sendall(b"g" * count)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    return run


def send(count):
    def run():
        with accept() as connection:
            connection.sendall(b"s" * count)
    return run


def fetch():
    with connect() as connection:
        read_all(connection)


def serve_reset():
    with accept() as connection:
        try:
            read_all(connection)
        except ConnectionResetError:
            pass


def ask_reset():
    connection = connect()
    connection.sendall(b"and then")
    time.sleep(0.05)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def fetch_slowly():
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    time.sleep(0.3)
    connection.connect((SERVER, PORT))
    time.sleep(1)
    read_all(connection)
    connection.close()


def serve_half_closed():
    with accept() as connection:
        read_all(connection)
        time.sleep(0.05)
        connection.sendall(b"r" * 2000)


def serve_idle():
    with accept() as connection:
        read_all(connection)


def ask_idle():
    with connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connection.sendall(b"here")
        time.sleep(3.3)


def close_together(connection):
    connection.sendall(b"x")
    connection.recv(1)
    time.sleep(0.3)
    connection.close()


def serve_urgent():
    with accept() as connection:
        read_all(connection)


def ask_urgent():
    with connect() as connection:
        connection.sendall(b"before")
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(b"after")
        time.sleep(0.05)


def serve_many():
    with listen() as listener:
        connections = [listener.accept()[0] for _ in range(5)]
    for connection in connections:
        connection.sendall(connection.recv(100))
        connection.close()


def ask_many():
    connections = [connect() for _ in range(5)]
    for index, connection in enumerate(connections):
        connection.sendall(b"number %d" % index)
    for connection in connections:
        read_all(connection)
        connection.close()


def data_to(direction, ordinal, action):
    """Does `action` to the packet with payload that is the `ordinal`-th in its direction."""
    return lambda way, payload, flags, counts: action if way == direction and payload and counts == ordinal else None


def control(direction, wanted, action):
    """Does `action` to the first packet without payload whose control bits are `wanted`."""
    done = []

    def rule(way, payload, flags, _counts):
        if way == direction and not payload and flags == wanted and not done:
            done.append(True)
            return action
        return None
    return rule


def last_ack():
    """Loses the client's ACK of the server's FIN."""
    seen = []

    def rule(way, payload, flags, _counts):
        if way == "down" and flags & 1:
            seen.append(True)
        if way == "up" and seen and flags == 16 and not payload and len(seen) < 2:
            seen.append(True)
            return "lose"
        return None
    return rule


# Name: client, server, what the wire does, sysctls of the client.
SCENARIOS = {
    "echo": (ask_echo, serve_echo, None, []),
    "http": (ask_http, serve_http, None, []),
    "reset": (ask_reset, serve_reset, None, []),
    "loss-up": (give(12_000), take, data_to("up", 3, "lose"), []),
    "loss-down": (fetch, send(12_000), data_to("down", 3, "lose"), []),
    "reorder": (give(8_000), take, data_to("up", 2, "delay"), []),
    "zero-window": (fetch_slowly, send(5_000), None, []),
    "half-close": (give(100), serve_half_closed, None, []),
    "keepalive": (ask_idle, serve_idle, None, []),
    "syn-ack-lost": (ask_echo, serve_echo, control("down", 18, "lose"), []),
    "last-ack-lost": (give(10), take, last_ack(), []),
    "together": (lambda: close_together(connect()), lambda: close_together(accept()), "slow", []),
    "urgent": (ask_urgent, serve_urgent, None, []),
    "many": (ask_many, serve_many, None, []),
    "bare": (ask_echo, serve_echo, None, ["tcp_timestamps", "tcp_window_scaling", "tcp_sack"]),
}


def open_tun(address, peer):
    device = os.open("/dev/net/tun", os.O_RDWR)
    # IFF_TUN | IFF_NO_PI
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"wire0", 0x1001))
    for command in (f"link set lo up", f"address add {address} peer {peer} dev wire0", "link set wire0 mtu 1500 up"):
        subprocess.run(["ip", *command.split()], check=True)
    return device


def run_end(name, role, descriptor):
    """One end: a TUN, whose packets go to and come from the wire, and the socket calls of the scenario."""
    client, server, _, switched_off = SCENARIOS[name]
    for key in switched_off if role == "client" else []:
        subprocess.run(["sysctl", "-q", "-w", f"net.ipv4.{key}=0"], check=True)
    addresses = (CLIENT, SERVER) if role == "client" else (SERVER, CLIENT)
    device, wire = open_tun(*addresses), socket.socket(fileno=descriptor)

    def pump():
        while True:
            for ready in select.select([device, wire], [], [])[0]:
                if ready is wire:
                    os.write(device, wire.recv(65536) or os._exit(0))
                else:
                    wire.send(os.read(device, 65536))

    wire.send(b"ready")
    threading.Thread(target=pump, daemon=True).start()
    (client if role == "client" else server)()
    # What the kernel still has to say, until the parent hangs up.
    wire.send(b"done")
    time.sleep(30)


def look_at(packet):
    header = (packet[0] & 15) * 4
    tcp = packet[header:]
    return len(tcp) - (tcp[12] >> 4) * 4, tcp[13] & 0x17


class Wire:
    def __init__(self, rule, path):
        self.rule, self.file = rule, open(path, "wb")
        self.counts, self.delayed, self.last = {"up": 0, "down": 0}, [], time.monotonic()
        self.file.write(struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, 65535, LINKTYPE_RAW))

    def note(self, packet):
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        self.file.write(struct.pack("<IIII", seconds, nanoseconds, len(packet), len(packet)) + packet)

    def deliver(self, way, packet, target):
        if way == "up":
            self.note(packet)
        target.send(packet)

    def carry(self, way, packet, target):
        if packet[0] >> 4 != 4 or packet[9] != 6:
            return
        self.last = time.monotonic()
        payload, flags = look_at(packet)
        self.counts[way] += payload > 0
        if way == "down":
            self.note(packet)
        if self.rule == "slow":
            threading.Timer(0.05, self.deliver, (way, packet, target)).start()
            return
        action = self.rule and self.rule(way, payload, flags, self.counts[way])
        if action == "lose":
            return
        if action == "delay":
            self.delayed.append((way, packet, target))
            return
        self.deliver(way, packet, target)
        while self.delayed:
            self.deliver(*self.delayed.pop())


def record(name, folder):
    ends, children = {}, []
    for role in ("server", "client"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = ["unshare", "--net", sys.executable, __file__, "--end", name, role, str(theirs.fileno())]
        children.append(subprocess.Popen(command, pass_fds=[theirs.fileno()]))
        theirs.close()
        ends[role] = ours
        assert ours.recv(100) == b"ready"
    wire, done, until = Wire(SCENARIOS[name][2], os.path.join(folder, f"{name}.pcap")), set(), time.monotonic() + 40
    while time.monotonic() < until and not (len(done) == 2 and time.monotonic() - wire.last > 0.6):
        for ready in select.select(list(ends.values()), [], [], 0.1)[0]:
            packet, is_client = ready.recv(65536), ready is ends["client"]
            if packet == b"done":
                done.add(is_client)
            elif packet:
                wire.carry("up" if is_client else "down", packet, ends["server" if is_client else "client"])
    # Both ends are processes of our own making; they have nothing more to say.
    for child in children:
        child.kill()
        child.wait()
    wire.file.close()
    assert len(done) == 2, f"{name} did not end"


if __name__ == "__main__":
    if sys.argv[1] == "--end":
        run_end(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        for chosen in sys.argv[2:] or SCENARIOS:
            record(chosen, sys.argv[1])
            print(chosen)
