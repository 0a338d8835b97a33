"""Gives fronts their turns with wrk and h2load, and reads what each turn cost from /proc. Called by edge-and-nginx.sh."""

import argparse
import json
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
import tempfile

TICK_MICROSECONDS = 1_000_000 // os.sysconf("SC_CLK_TCK")
SMALL = "/_matrix/client/v3/account/whoami"
LARGE = "/_matrix/client/v3/sync"


def tree(pid):
    """The process and those below it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as children:
            for child in children.read().split():
                found += tree(int(child))
    return found


def cpu(pid):
    """User and system time in microseconds."""
    total = 0
    for one in tree(pid):
        with open(f"/proc/{one}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * TICK_MICROSECONDS


def memory(pid):
    """What the processes have in memory, shared pages divided among them, in bytes."""
    total = 0
    for one in tree(pid):
        with open(f"/proc/{one}/smaps_rollup") as rollup:
            total += int(re.search(r"^Pss:\s+(\d+) kB", rollup.read(), re.M)[1]) * 1024
    return total


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def wrk(url, seconds, *options):
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", *options, url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", text)
    if bad:
        raise SystemExit(f"{url}: {bad[0]}")
    requests = int(re.search(r"(\d+) requests in", text)[1])
    return requests, milliseconds(re.search(r"^\s+99%\s+(\S+)", text, re.M)[1])


def h2load(url, seconds, *options):
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["h2load", "-t1", "-c16", "-m10", f"-D{seconds}", f"--log-file={log.name}", *options, url]
        subprocess.run(command, check=True, capture_output=True)
        # Each line: when it began, its status, and how long it took in microseconds.
        answers = [line.split() for line in log]
    bad = [status for _, status, _ in answers if not status.startswith("2")]
    if bad:
        raise SystemExit(f"{url}: answered {bad[0]}")
    times = sorted(int(took) for _, _, took in answers)
    return len(times), times[len(times) * 99 // 100] / 1000


LOADS = {
    "h1 small": lambda url, seconds: wrk(url + SMALL, seconds),
    "h2 small": lambda url, seconds: h2load(url + SMALL, seconds),
    "h1 16 KB": lambda url, seconds: wrk(url + LARGE, seconds),
    "h2 16 KB": lambda url, seconds: h2load(url + LARGE, seconds),
    "TLS handshake": lambda url, seconds: wrk(url + SMALL, seconds, "-H", "Connection: close"),
}


def idle_connections(port, count, protocol):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    connections = []
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", port))
        connection = context.wrap_socket(plain, server_hostname="localhost")
        if protocol == "http/1.1":
            connection.sendall(f"GET {SMALL} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        else:
            path, host = SMALL.encode(), b"localhost"
            block = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01" + bytes([len(host)]) + host
            frame = len(block).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + block
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5) + frame)
        seen = b""
        while b"is_guest" not in seen:
            part = connection.recv(65536)
            if not part:
                raise SystemExit(f"port {port} closed an idle connection")
            seen += part
        connections.append(connection)
    return connections


def weigh(fronts, count):
    """Bytes of memory that one idle connection takes, by front and protocol. The first connections after a start are
    the honest ones, so each front is weighed with HTTP/1.1 and then, on top of it, with half as many of HTTP/2."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    weights = {}
    for name, (port, pid) in fronts.items():
        held = []
        for protocol, connections in (("http/1.1", count), ("h2", count // 2)):
            before = memory(pid)
            held += idle_connections(port, connections, protocol)
            weights.setdefault(protocol, {})[name] = (memory(pid) - before) / connections
            print(f"{name}: {memory(pid) / 1e6:.0f} MB with {len(held)} connections", flush=True)
        for connection in held:
            connection.close()
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--idle", type=int, required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("fronts", nargs="+", metavar="NAME=PORT:PID")
    arguments = parser.parse_args()
    fronts = {}
    for front in arguments.fronts:
        name, port, pid = re.fullmatch(r"(.+)=(\d+):(\d+)", front).groups()
        fronts[name] = (int(port), int(pid))
    result = {"idle connection, KiB": {}, "loads": {}}
    if arguments.idle:
        for protocol, weights in weigh(fronts, arguments.idle).items():
            result["idle connection, KiB"][protocol] = {name: round(w / 1024, 1) for name, w in weights.items()}
            print(f"idle {protocol:9}", *(f"{name} {w / 1024:6.1f} KiB " for name, w in weights.items()), flush=True)
    for load, run in LOADS.items():
        turns = {name: [] for name in fronts}
        for _ in range(arguments.rounds):
            for name, (port, pid) in fronts.items():
                before = cpu(pid)
                requests, slow = run(f"https://localhost:{port}", arguments.seconds)
                turns[name].append(((cpu(pid) - before) / requests, requests / arguments.seconds, slow))
        medians = {
            name: {
                "cpu_us": round(statistics.median(cost for cost, _, _ in turn), 1),
                "per_s": round(statistics.median(rate for _, rate, _ in turn)),
                "p99_ms": round(statistics.median(slow for _, _, slow in turn), 2),
            }
            for name, turn in turns.items()
        }
        result["loads"][load] = medians
        ours = medians["edge"]["cpu_us"]
        print(
            f"{load:13}",
            *(f"{name} {m['cpu_us']:6.1f} µs {m['per_s']:6}/s p99 {m['p99_ms']:6.2f} ms " for name, m in medians.items()),
            *(f"edge/{name} {ours / m['cpu_us']:.2f}" for name, m in medians.items() if name != "edge"),
            flush=True,
        )
    with open(arguments.json, "w") as file:
        json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
