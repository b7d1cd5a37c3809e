# truth.py CONFIG NAME...: what an ordinary program sees of its sockets. A test runs this with and without switching and
# compares: for each NAME a line of JSON {"name": NAME, "seen": {...}, "switched": {...}}: "seen" must be the same,
# "switched" says which sockets were the host's.
# CONFIG, JSON: peers (IPv4, IPv6), nobody (addresses that answer nothing), unreachable (of which the host says so),
# echo, closed, http, reset (ports of the peers), directory.
import asyncio
import ctypes
import errno
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

config = json.loads(sys.argv[1])
PEERS = config["peers"]
libc = ctypes.CDLL(None, use_errno=True)
seen = {}
switched = {}


def cookie(s):
    return s.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE


OWN_COOKIE = cookie(socket.socket())


def is_host(s):
    return cookie(s) != OWN_COOKIE


def name_of(code):
    return errno.errorcode.get(code, code) if code else 0


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def sockaddr(address, port):
    if ":" in address:
        return struct.pack("=H", 10) + struct.pack(">HI", port, 0) + socket.inet_pton(10, address) + bytes(4)
    return struct.pack("=H", 2) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)


def raw_connect(s, address, port):
    """connect(2) as it is: Python's own tries again after EINTR, and waits by poll() if it has a time limit."""
    sa = sockaddr(address, port)
    return name_of(0 if libc.connect(s.fileno(), sa, len(sa)) == 0 else ctypes.get_errno())


def tcp(address):
    return socket.socket(family_of(address))


def says(s, data=b"hello"):
    """What an echo server answers."""
    s.settimeout(5)
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        part = s.recv(65536)
        if not part:
            break
        got += part
    return got == data


def timed(f, seconds, more=5):
    """@returns what f() returns, and whether it took so long: not less, and not much more on a busy machine"""
    at = time.monotonic()
    result = f()
    took = time.monotonic() - at
    return result, "in time" if seconds - 0.05 < took < seconds + more else took


def connects():
    """Connections by blocking and non-blocking sockets of both families, and their names."""
    for i, peer in enumerate(PEERS + ["::ffff:" + PEERS[0]]):
        for blocking in (True, False):
            key = "%s %s" % (("IPv4", "IPv6", "mapped")[i], "blocking" if blocking else "non-blocking")
            s = tcp(peer)
            s.setblocking(blocking)
            first = raw_connect(s, peer, config["echo"])
            if first == "EINPROGRESS":
                select.select([], [s], [], 5)
            switched[key] = is_host(s)
            second = raw_connect(s, peer, config["echo"])
            third = raw_connect(s, peer, config["echo"])
            seen[key] = {
                "calls": [first, second, third],
                "error": name_of(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)),
                "echo": says(s, os.urandom(300_000)),
                "peer": s.getpeername(),
                "own": s.getsockname()[0],
                "family": s.family,
                "blocking": s.getblocking(),
            }


def flags():
    """Close-on-exec and O_NONBLOCK stay what they are."""
    for cloexec in (True, False):
        for blocking in (True, False):
            s = socket.socket()
            s.set_inheritable(not cloexec)
            s.setblocking(blocking)
            raw_connect(s, PEERS[0], config["echo"])
            key = "cloexec %s, blocking %s" % (cloexec, blocking)
            switched[key] = is_host(s)
            seen[key] = [s.get_inheritable(), os.get_blocking(s.fileno())]


def failures():
    """Refused and unreachable destinations: by which call, and by which error."""
    for what in ("refused", "unreachable"):
        for i in (0, 1):
            for blocking in (True, False):
                address = PEERS[i] if what == "refused" else config["unreachable"][i]
                s = tcp(address)
                s.setblocking(blocking)
                calls = [raw_connect(s, address, config["closed"])]
                if calls[0] == "EINPROGRESS":
                    select.select([], [s], [], 5)
                    if what == "refused":
                        # Else the answer is waited for by a test of its own: kernels differ in whether they tell at once.
                        calls.append(name_of(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
                seen["%s IPv%d blocking=%s" % (what, 6 if i else 4, blocking)] = calls


def retries():
    """The same socket again: after a refusal, after AF_UNSPEC, while connected, after the end."""
    for i, peer in enumerate(PEERS):
        for blocking in (True, False):
            s = tcp(peer)
            s.setblocking(blocking)
            calls = []

            def call(port):
                code = raw_connect(s, peer, port)
                calls.append(code)
                if code == "EINPROGRESS":
                    select.select([], [s], [], 5)
                    calls.append(name_of(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))

            call(config["closed"])
            while calls[-1] in ("ECONNREFUSED", "ECONNABORTED") and len(calls) < 8:
                call(config["echo"])
            seen["after a refusal %d %s" % (i, blocking)] = [calls[0], calls[-1], says(s)]
            s.setblocking(blocking)
            calls = [name_of(0 if libc.connect(s.fileno(), bytes(16), 16) == 0 else ctypes.get_errno())]
            call(config["echo"])
            seen["after AF_UNSPEC %d %s" % (i, blocking)] = [calls[0], calls[-1], says(s)]


def silence():
    """A destination that answers nothing: time limits and signals."""
    nobody = config["nobody"][0]
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
    seen["SO_SNDTIMEO"] = timed(lambda: raw_connect(s, nobody, 80), 0.3)
    switched["SO_SNDTIMEO"] = is_host(s)
    seen["SO_SNDTIMEO, again"] = timed(lambda: raw_connect(s, nobody, 80), 0.3)

    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    s = socket.socket()
    seen["EINTR"] = timed(lambda: raw_connect(s, nobody, 80), 0.4)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    seen["EINTR, again"] = timed(lambda: raw_connect(s, nobody, 80), 0.2)

    # SA_RESTART: the call goes on until the socket gives up by itself.
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, 18, 700)  # TCP_USER_TIMEOUT; looked at when a SYN is due again, after 1 s
    seen["SA_RESTART"] = timed(lambda: raw_connect(s, nobody, 80), 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seen["select says"] = [len(one) for one in select.select([s], [s], [], 0)]

    # Another thread ends the wait.
    for how in (socket.SHUT_RDWR, socket.SHUT_WR):
        s = socket.socket()
        ended = []
        thread = threading.Thread(target=lambda: ended.append(raw_connect(s, nobody, 80)), daemon=True)
        thread.start()
        for _ in range(200):  # until the thread has begun to connect
            time.sleep(0.05)
            try:
                s.shutdown(how)
                break
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
        thread.join(5)
        seen["shutdown %d" % how] = ended

    class Alarm(Exception):
        pass

    def alarm(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    s = socket.socket()
    at = time.monotonic()
    try:
        s.connect((nobody, 80))
        seen["alarm"] = "connected"
    except Alarm:
        took = time.monotonic() - at
        seen["alarm"] = "in time" if 0.49 < took < 5 else took


def timeouts():
    """The kernel gives up."""
    for i, nobody in enumerate(config["nobody"]):
        s = tcp(nobody)
        s.setsockopt(socket.IPPROTO_TCP, 18, 500)
        seen["blocking %d" % i] = timed(lambda: raw_connect(s, nobody, 80), 1)
        s = tcp(nobody)
        s.setsockopt(socket.IPPROTO_TCP, 18, 500)
        s.setblocking(False)
        code = raw_connect(s, nobody, 80)
        ready = select.select([s], [s], [], 5)
        seen["non-blocking %d" % i] = [code, len(ready[1]), name_of(s.getsockopt(1, socket.SO_ERROR))]


def storm():
    """Threads that connect while a signal comes every millisecond."""
    right = []

    def work(peer):
        for _ in range(config["connections"]):
            s = tcp(peer)
            s.connect((peer, config["echo"]))
            right.append(says(s, b"x"))
            s.close()

    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    threads = [threading.Thread(target=work, args=(PEERS[i & 1],)) for i in range(8)]
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        time.sleep(0.01)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seen["right"] = [right.count(True), right.count(False)]


# The options that src/switch/socket-options.ts copies: level, option, value to set; two that are not copied by value.
SET = [
    (1, 2, 1), (1, 9, 1), (1, 10, 1), (1, 12, 4), (1, 13, (1, 7)), (1, 15, 1), (1, 18, 3), (1, 20, ("t", 4)),
    (1, 21, ("t", 5)), (1, 29, 1), (1, 47, ("q", 50_000_000)), (1, 60, 1), (1, 7, 50_000), (1, 8, 60_000),
    (6, 1, 1), (6, 2, 900), (6, 3, 1), (6, 4, 77), (6, 5, 11), (6, 6, 3), (6, 7, 4), (6, 8, 9), (6, 10, 40_000),
    (6, 13, b"reno"), (6, 16, 1), (6, 18, 9000), (6, 25, 30_000), (6, 36, 1), (6, 37, 10),
    (0, 1, 0x20), (0, 2, 33), (0, 10, 3), (0, 11, 1), (0, 21, 1), (0, 24, 1), (0, 51, 40_000 | 50_000 << 16),
]  # fmt: skip
SET6 = [(41, 16, 44), (41, 23, 3), (41, 25, 1), (41, 67, 0x20), (41, 70, 0), (41, 72, 1), (41, 73, 1)]
# What may differ: the device, indices of interfaces and processors, memory in use, cookies, what comes of the path
# (maximum segment size and MTU, TCP_INFO, timestamps), and what is not a value that was set.
NOT_COMPARED = {
    *((1, n) for n in (25, 49, 55, 56, 57, 62, 71)),
    *((6, n) for n in (2, 11, 24, 26, 35)),
    *((0, n) for n in (14, 41, 52)),
    *((41, n) for n in (24, 61)),
}
# Of a socket without set values these follow the path too.
TUNED = {"1 7", "1 8", "6 10"}


def value_of(v):
    if isinstance(v, bytes):
        return v
    if isinstance(v, int):
        return struct.pack("=I", v & 0xFFFFFFFF)
    if v[0] == "t":
        return struct.pack("ll", v[1], 0)
    if v[0] == "q":
        return struct.pack("=Q", v[1])
    return struct.pack("=ii", *v)


def readable(s):
    out = {}
    for level in (0, 1, 6, 41):
        for option in range(0, 90):
            if (level, option) in NOT_COMPARED:
                continue
            try:
                out["%d %d" % (level, option)] = s.getsockopt(level, option, 32).hex()
            except OSError:
                pass  # which error depends on the owner of the namespace
    return out


def options():
    """Options that were set before connect(): each alone, then all together; all that can be read is compared."""
    for peer in PEERS:
        every = SET + (SET6 if ":" in peer else [])
        all_of_them = tcp(peer)
        refusals = []
        for level, option, value in every:
            s = tcp(peer)
            for one in (s, all_of_them):
                try:
                    one.setsockopt(level, option, value_of(value))
                except OSError as e:
                    refusals.append("%d %d %s" % (level, option, name_of(e.errno)))
            s.connect((peer, config["echo"]))
            key = "%s %d %d" % (peer, level, option)
            switched[key] = is_host(s)
            seen[key] = [s.getsockopt(level, option, 32).hex(), (level, option) in NOT_COMPARED]
            s.close()
        all_of_them.connect((peer, config["echo"]))
        switched[peer] = is_host(all_of_them)
        seen[peer] = readable(all_of_them)
        seen["refused " + peer] = refusals
        plain = tcp(peer)
        plain.connect((peer, config["echo"]))
        switched["untouched " + peer] = is_host(plain)
        seen["untouched " + peer] = {k: v for k, v in readable(plain).items() if k not in TUNED}


def others():
    """What is not TCP, and TCP that stays inside."""
    for peer in PEERS:
        s = socket.socket(family_of(peer), socket.SOCK_DGRAM)
        s.connect((peer, config["echo"]))
        s.settimeout(5)
        s.send(b"datagram")
        seen["UDP " + peer] = s.recv(100).decode()
        switched["UDP " + peer] = is_host(s)
    a = socket.socket(socket.AF_UNIX)
    path = tempfile.mktemp(dir=config["directory"])
    a.bind(path)
    a.listen()
    b = socket.socket(socket.AF_UNIX)
    b.connect(path)
    b.send(b"unix")
    seen["UNIX"] = a.accept()[0].recv(10).decode()
    a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.bind("\0" + path)
    b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    b.connect("\0" + path)
    b.send(b"abstract")
    seen["abstract"] = a.recv(10).decode()
    os.unlink(path)
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.bind((0, 0))
    s.connect((0, 0))
    seen["netlink"] = True
    for address in ("127.0.0.1", "::1"):
        listener = socket.socket(family_of(address))
        listener.bind((address, 0))
        listener.listen()
        s = socket.socket(family_of(address))
        s.connect(listener.getsockname()[:2])
        s.send(b"loopback")
        seen["loopback " + address] = listener.accept()[0].recv(10).decode()
        switched["loopback " + address] = is_host(s)
    for peer in PEERS:
        s = tcp(peer)
        s.bind(("::" if ":" in peer else "0.0.0.0", 25678 + (":" in peer)))
        s.connect((peer, config["echo"]))
        seen["bound " + peer] = [s.getsockname()[1], says(s)]
        switched["bound " + peer] = is_host(s)
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        s.connect((PEERS[0], config["echo"]))
        seen["MPTCP"] = [says(s), s.getsockopt(1, 38)]
        switched["MPTCP"] = is_host(s)
    except OSError as e:
        seen["MPTCP"] = name_of(e.errno)
    # Its protocol is IPPROTO_TCP too.
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    s.connect((PEERS[0], config["echo"]))
    seen["raw"] = [s.getsockopt(1, 3), s.getpeername()[0]]
    switched["raw"] = is_host(s)
    s = socket.socket()
    s.setsockopt(6, 30, 1)  # TCP_FASTOPEN_CONNECT
    s.connect((PEERS[0], config["echo"]))
    seen["TCP_FASTOPEN_CONNECT"] = says(s)
    switched["TCP_FASTOPEN_CONNECT"] = is_host(s)
    for s, call in (
        (socket.socket(), lambda s: s.bind(("127.0.0.1", 80))),
        (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), lambda s: s.bind(("127.0.0.1", 80))),
        (socket.socket(), lambda s: s.bind(("203.0.113.99", 8080))),
        (socket.socket(), lambda s: s.listen(-1)),
    ):
        try:
            call(s)
            seen.setdefault("binds", []).append(s.getsockname())
        except OSError as e:
            seen.setdefault("binds", []).append(name_of(e.errno))
    seen["binds"][-1] = seen["binds"][-1][0]
    # Without a capability.
    pid = os.fork()
    if pid == 0:
        header = struct.pack("=Ii", 0x20080522, 0)
        libc.syscall({"x86_64": 126, "aarch64": 91}[platform.machine()], header, bytes(24))
        try:
            socket.socket().bind(("127.0.0.1", 81))
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    seen["port 81 without a capability"] = name_of(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def arguments():
    """Calls that are wrong."""
    codes = []
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
    six = socket.socket(socket.AF_INET6)
    sa = sockaddr(PEERS[0], config["echo"])
    for call in (
        lambda: libc.connect(999, sa, 16),
        lambda: libc.connect(-1, sa, 16),
        lambda: libc.connect(s.fileno(), ctypes.c_void_p(8), 16),
        lambda: libc.connect(s.fileno(), None, 16),
        lambda: libc.connect(s.fileno(), sa, -1),
        lambda: libc.connect(s.fileno(), sa, 129),
        lambda: libc.connect(s.fileno(), sa, 0),
        lambda: libc.connect(s.fileno(), sa, 15),
        lambda: libc.connect(0, sa, 16),
        lambda: libc.bind(999, sa, 16),
        lambda: libc.bind(s.fileno(), ctypes.c_void_p(8), 16),
        lambda: libc.bind(s.fileno(), sa, 3),
        lambda: libc.listen(999, 1),
        lambda: libc.listen(0, 1),
        lambda: libc.connect(s.fileno(), struct.pack("=H", 10) + sa[2:] + bytes(12), 28),
        lambda: libc.connect(s.fileno(), struct.pack("=H", 99) + sa[2:], 16),
        lambda: libc.connect(six.fileno(), sockaddr("::1", 1), 20),
        lambda: libc.connect(s.fileno(), sockaddr("224.0.0.1", 80), 16),
        lambda: libc.connect(s.fileno(), sockaddr("255.255.255.255", 80), 16),
    ):
        at = time.monotonic()
        codes.append(name_of(0 if call() == 0 else ctypes.get_errno()))
        if time.monotonic() - at > 5:
            codes.append("late")
    seen["errors"] = codes
    # Longer addresses than needed are right.
    s = socket.socket()
    seen["long"] = [libc.connect(s.fileno(), sa + bytes(112), 128), says(s)]
    switched["long"] = is_host(s)
    s = socket.socket(10)
    seen["short"] = [libc.connect(s.fileno(), sockaddr(PEERS[1], config["echo"]), 24), says(s)]
    switched["short"] = is_host(s)


def sets():
    """epoll: before and after connect(), level- and edge-triggered, blocking and not; asyncio; poll in a thread."""
    for before in (True, False):
        for blocking in (True, False):
            for edge in (0, select.EPOLLET):
                s = socket.socket()
                s.setblocking(blocking)
                e = select.epoll()
                mask = select.EPOLLIN | select.EPOLLOUT | edge
                if before:
                    e.register(s.fileno(), mask)
                    e.poll(0)
                raw_connect(s, PEERS[0], config["echo"])
                if not before:
                    e.register(s.fileno(), mask)
                key = "before=%s blocking=%s edge=%s" % (before, blocking, bool(edge))
                events = e.poll(2)
                events = [m for _, m in events if m & select.EPOLLOUT and not m & (select.EPOLLHUP | select.EPOLLERR)]
                s.setblocking(True)
                s.send(b"x")
                got = []
                end = time.monotonic() + 2
                while time.monotonic() < end and not got:
                    got = [m for _, m in e.poll(0.2) if m & select.EPOLLIN]
                try:
                    e.modify(s.fileno(), select.EPOLLIN)
                    e.unregister(s.fileno())
                    lost = False
                except FileNotFoundError:
                    lost = True
                seen[key] = {"writable": bool(events), "readable": bool(got), "registration lost": lost}
                switched[key] = is_host(s)

    async def stream():
        reader, writer = await asyncio.open_connection(PEERS[0], config["echo"])
        data = os.urandom(500_000)
        writer.write(data)
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(), 5)
        switched["asyncio"] = is_host(writer.get_extra_info("socket"))
        writer.close()
        return got == data

    seen["asyncio"] = asyncio.run(stream())

    async def many():
        results = await asyncio.gather(*[stream() for _ in range(20)])
        return results.count(True)

    seen["asyncio, 20"] = asyncio.run(many())


def shared():
    """Sockets that other threads and processes have too."""
    s = socket.socket()
    d = s.dup()
    s.connect((PEERS[0], config["echo"]))
    seen["dup before: the one that connects"] = says(s)
    d.close()
    seen["dup closed"] = says(s)
    s = socket.socket()
    s.connect((PEERS[0], config["echo"]))
    d = s.dup()
    s.close()
    seen["dup after"] = says(d)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if says(d) else 1)
    seen["fork after"] = os.waitpid(pid, 0)[1]

    # Closed by another thread during connect(): the number is free at once, and the call ends at some time.
    s = socket.socket()
    s.setsockopt(6, 18, 1000)
    number = s.fileno()
    codes = []
    sa = sockaddr(config["nobody"][0], 80)

    def wait():
        codes.append(name_of(0 if libc.connect(number, sa, 16) == 0 else ctypes.get_errno()))

    t = threading.Thread(target=wait)
    t.start()
    time.sleep(0.2)
    s.close()
    other = os.open("/dev/null", os.O_RDONLY)
    os.dup2(other, number)
    t.join(8)
    seen["closed meanwhile"] = [t.is_alive(), codes, os.readlink("/proc/self/fd/%d" % number)]

    # Many at a time, all blocking.
    count = config["waiting"]
    done = []

    def one():
        s = socket.socket()
        s.setsockopt(6, 18, 1500)
        done.append(raw_connect(s, config["nobody"][0], 80))
        s.close()

    threading.stack_size(128 * 1024)
    threads = [threading.Thread(target=one) for _ in range(count)]
    for t in threads:
        t.start()
    s = socket.socket()
    s.connect((PEERS[0], config["echo"]))
    seen["while many wait"] = says(s)
    for t in threads:
        t.join()
    seen["many"] = sorted(set(map(str, done))) + [len(done)]


def processes():
    """Programs that guard themselves, and namespaces within."""
    connect = "import socket\ns=socket.create_connection((%r,%d),5)\ns.send(b'x')\nprint(s.recv(1).decode(),end='')" % (
        PEERS[0],
        config["echo"],
    )
    script = "import ctypes\nctypes.CDLL(None).prctl(4,0,0,0,0)\n" + connect  # PR_SET_DUMPABLE
    for what, argv in {
        "plain": [sys.executable, "-c", connect],
        "not dumpable": [sys.executable, "-c", script],
        "user namespace": ["unshare", "-Ur", sys.executable, "-c", connect],
        "PID namespace": ["unshare", "-Urpf", "--mount-proc", sys.executable, "-c", connect],
        "mount": ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs t /tmp && echo -n mounted"],
    }.items():
        done = subprocess.run(argv, capture_output=True, text=True)
        seen[what] = done.stdout or done.stderr
    # Landlock's rules for renaming are not ours.
    with tempfile.TemporaryDirectory(dir=config["directory"]) as top:
        os.mkdir(top + "/a")
        os.mkdir(top + "/b")
        open(top + "/a/f", "w").close()
        try:
            os.rename(top + "/a/f", top + "/b/f")
            os.link(top + "/b/f", top + "/a/g")
            seen["rename"] = True
        except OSError as e:
            seen["rename"] = name_of(e.errno)


CODE32 = bytes.fromhex(
    "53 55 49 89 f8 41 8b 00 41 8b 58 04 41 8b 48 08 41 8b 50 0c 41 8b 70 10 41 8b 78 14 41 8b 68 18 cd 80 5d 5b 48 98 c3"
)


def int80():
    """connect() of 32-bit programs: by its number, and by socketcall."""
    if platform.machine() != "x86_64":
        return
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    page = libc.mmap(None, 8192, 7, 0x62, -1, 0)
    ctypes.memmove(page, CODE32, len(CODE32))
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(page)
    memory = page + 4096

    def call(*words):
        return function(ctypes.addressof((ctypes.c_uint32 * 7)(*words)))

    pid = os.fork()
    if pid == 0:
        os._exit(0 if call(20) > 0 else 1)
    if os.waitpid(pid, 0)[1] != 0:
        return
    sa = sockaddr(PEERS[0], config["echo"])
    ctypes.memmove(memory, sa, 16)
    for what in ("connect", "socketcall"):
        s = socket.socket()
        ctypes.memmove(memory + 64, struct.pack("=3I", s.fileno(), memory, 16), 12)
        code = call(362, s.fileno(), memory, 16) if what == "connect" else call(102, 3, memory + 64)
        seen[what] = [code, says(s) if code == 0 else None]
        listener = socket.socket()
        ctypes.memmove(memory + 128, sockaddr("127.0.0.1", 0), 16)
        ctypes.memmove(memory + 64, struct.pack("=3I", listener.fileno(), memory + 128, 16), 12)
        code = call(361, listener.fileno(), memory + 128, 16) if what == "connect" else call(102, 2, memory + 64)
        ctypes.memmove(memory + 64, struct.pack("=2I", listener.fileno(), 5), 8)
        again = call(363, listener.fileno(), 5) if what == "connect" else call(102, 4, memory + 64)
        s = socket.socket()
        s.settimeout(2)
        seen[what + ", bind and listen"] = [code, again, name_of(s.connect_ex(listener.getsockname()))]
    ctypes.memmove(memory + 64, struct.pack("=3I", 999, memory, 16), 12)
    seen["errors"] = [call(362, 999, memory, 16), call(102, 3, memory + 64), call(102, 3, 8), call(102, 99, memory)]


def fast_open():
    """MSG_FASTOPEN is refused in such a way that programs connect() instead."""
    s = socket.socket()
    try:
        s.sendto(b"x", 0x20000000, (PEERS[0], config["echo"]))
        switched["MSG_FASTOPEN"] = True
    except OSError as e:
        switched["MSG_FASTOPEN"] = name_of(e.errno)
    s.close()


def serve():
    """Listens on port 7001 and echoes, until it is killed."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(41, 26, 0)
    listener.setsockopt(1, 2, 1)
    listener.bind(("::", 7001))
    listener.listen()
    print("ready", flush=True)
    while True:
        s, _ = listener.accept()
        while data := s.recv(65536):
            s.sendall(data)
        s.close()


def fetch():
    """A download by a program whose sockets are in an epoll set before they connect, as nginx's are."""
    s = socket.socket()
    s.setblocking(False)
    e = select.epoll()
    e.register(s.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    s.connect_ex((PEERS[0], config["http"]))
    request = sys.argv[3].encode()
    got = b""
    while True:
        for _, mask in e.poll(5):
            if mask & select.EPOLLOUT and request:
                s.send(request)
                request = b""
            if mask & select.EPOLLIN:
                try:
                    while part := s.recv(1 << 20):
                        got += part
                    sys.stdout.buffer.write(got.split(b"\r\n\r\n", 1)[1])
                    return
                except BlockingIOError:
                    pass


for wanted in sys.argv[2:]:
    seen, switched = {}, {}
    if wanted in ("serve", "fetch"):
        globals()[wanted]()
        break
    try:
        globals()[wanted]()
    except Exception as e:
        at = e.__traceback__.tb_next
        while at.tb_next:
            at = at.tb_next
        seen["FAILED"] = "%r line %d" % (e, at.tb_lineno)
    print(json.dumps({"name": wanted, "seen": seen, "switched": switched}), flush=True)
