# attacks.py CONFIG NAME...: what a hostile program inside may try with sockets of the host's network namespace that it
# was given. The judge is a canary (canary.py) at each target; this program only says what it saw, as a line of JSON
# for each attack: {"attack": NAME, "host": how many sockets of the host it held, "seen": {outcome: count}}.
# CONFIG, JSON: peers (IPv4, IPv6), targets (addresses), port (of all canaries), echo, closed, reset (ports of the
# peers), races (tries of each race), hostOnly (an
# attack leaves alone what is no socket of the host: its targets may be reached by the TAP), directory (which a process outside the filter sees too), control (it runs in the
# host's namespace itself, without filter, to show that the attacks do reach the canaries if nothing holds them off).
import array
import collections
import ctypes
import errno
import fcntl
import ipaddress
import json
import mmap
import os
import platform
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

config = json.loads(sys.argv[1])
TARGETS = config["targets"]
PORT = config["port"]
CONTROL = config.get("control", False)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SO_NETNS_COOKIE = 71
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262
# How long a connection that is under way may take. What nothing answers stays under way: those few wait in vain.
patience_s = 0.1

host_sockets = 0
seen = collections.Counter()


def cookie(s):
    return s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


OWN_COOKIE = cookie(socket.socket())


def is_host(s):
    return CONTROL or cookie(s) != OWN_COOKIE


def name_of(code):
    return errno.errorcode.get(code, str(code))


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def sockaddr(address, port, mapped=False, scope=0, family=None):
    if "%" in address:
        address, scope = address.split("%")
        scope = int(scope)
    if mapped:
        address = "::ffff:" + address
    packed = ipaddress.ip_address(address).packed
    if len(packed) == 4:
        head = struct.pack("=H", socket.AF_INET if family is None else family)
        return head + struct.pack(">H", port) + packed + bytes(8)
    head = struct.pack("=H", socket.AF_INET6 if family is None else family)
    return head + struct.pack(">HI", port, 0) + packed + struct.pack("=I", scope)


def raw_connect(fd, sa, length=None):
    done = libc.connect(fd, sa, ctypes.c_int(len(sa) if length is None else length))
    return 0 if done == 0 else ctypes.get_errno()


def raw_bind(fd, sa, length=None):
    done = libc.bind(fd, sa, ctypes.c_int(len(sa) if length is None else length))
    return 0 if done == 0 else ctypes.get_errno()


def raw_listen(fd):
    return 0 if libc.listen(fd, 5) == 0 else ctypes.get_errno()


def outcome(s, code):
    """Waits for a connection that is under way. @returns what became of it"""
    if code in (errno.EINPROGRESS, errno.EALREADY):
        if not select.select([], [s], [], patience_s)[1]:
            return "no answer"
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code != 0:
        return name_of(code)
    try:
        return "connected" if s.getpeername()[1] == PORT else "as before"
    except OSError as e:
        return "not connected: " + name_of(e.errno)


def note(s, code, what=""):
    seen[what + outcome(s, code)] += 1


def aim(s, connect, what=""):
    """
    Calls connect() until it has told all that it knew of the connection before: the first call after a refusal says
    ECONNABORTED, and only the next one begins anew.
    """
    if config.get("hostOnly") and not is_host(s):
        seen["not the host's any more"] += 1
        return
    for _ in range(3):
        code = connect()
        if code not in (errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET):
            break
        seen[what + name_of(code)] += 1
    note(s, code, what)


def refused(family):
    s = socket.socket(family)
    s.setblocking(False)
    code = s.connect_ex((config["peers"][family == socket.AF_INET6], config["closed"]))
    if code == errno.EINPROGRESS:
        select.select([], [s], [], 2)
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code != errno.ECONNREFUSED:
        seen["! NOT REFUSED: " + name_of(code)] += 1
    return s


def connected(family, port="echo"):
    s = socket.socket(family)
    s.settimeout(3)
    s.connect((config["peers"][family == socket.AF_INET6], config[port]))
    return s


def disconnected(family):
    s = connected(family)
    s.setblocking(False)
    raw_connect(s.fileno(), bytes(16))
    return s


def was_reset(family):
    s = socket.socket(family)
    s.settimeout(3)
    if s.connect_ex((config["peers"][family == socket.AF_INET6], config["reset"])) == 0:
        try:
            s.recv(1)
        except OSError:
            pass
    s.setblocking(False)
    return s


KINDS = (refused, connected, disconnected, was_reset)


def made(kind, family):
    """A socket by which a connection was tried, with its blocking calls limited."""
    global host_sockets
    s = kind(family)
    host_sockets += is_host(s)
    s.setblocking(False)
    return s


def forms(address):
    """The address by sockets of its own family, and as an IPv4-mapped one: (family of the socket, sockaddr)"""
    yield family_of(address), sockaddr(address, PORT)
    if family_of(address) == socket.AF_INET:
        yield socket.AF_INET6, sockaddr(address, PORT, mapped=True)


def aims():
    for address in TARGETS:
        yield from forms(address)


# The address that stands for "this host" in connect(), loopback in all spellings, and link-local addresses.
def table():
    """Fresh sockets to every spelling of the host itself."""
    names = ["127.0.0.1", "0.0.0.0", "127.1.2.3", "127.255.255.254", "::", "::1", "::127.0.0.1", "::ffff:0.0.0.0"]
    for address in names + [t for t in TARGETS if t not in names]:
        for family, sa in forms(address) if not address.startswith("::ffff:") else [(10, sockaddr(address, PORT))]:
            for blocking in (True, False):
                s = socket.socket(family)
                if blocking:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
                else:
                    s.setblocking(False)
                note(s, raw_connect(s.fileno(), sa))
                if is_host(s) and not CONTROL:
                    seen["! SWITCHED to " + address] += 1
                s.close()
    for address in config.get("linkLocal", []):
        for scope in range(0, 8):
            s = socket.socket(socket.AF_INET6)
            s.setblocking(False)
            # By the TAP this one may lead somewhere.
            note(s, raw_connect(s.fileno(), sockaddr(address, PORT, scope=scope)), "link-local %d " % scope)
            if is_host(s) and not CONTROL:
                seen["! SWITCHED to %s%%%d" % (address, scope)] += 1
            s.close()


def reaim():
    """A socket whose connection failed, was ended or lives: connect() it once more, to each target."""
    for kind in KINDS:
        for family, sa in aims():
            s = made(kind, family)
            aim(s, lambda: raw_connect(s.fileno(), sa), kind.__name__ + ": ")
            s.close()
    for address in config.get("linkLocal", []):
        for scope in range(0, 8):
            s = made(refused, socket.AF_INET6)
            aim(s, lambda: raw_connect(s.fileno(), sockaddr(address, PORT, scope=scope)), "link-local: ")
            s.close()


def reaim_blocking():
    for family, sa in aims():
        s = made(refused, family)
        s.setblocking(True)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
        aim(s, lambda: raw_connect(s.fileno(), sa))
        s.close()


def unspec():
    """connect(AF_UNSPEC) of several lengths, then connect to each target."""
    for length in (2, 8, 16, 28, 128):
        for family, sa in aims():
            for kind in (connected, refused):
                s = made(kind, family)
                seen["unspec " + name_of(raw_connect(s.fileno(), bytes(128), length))] += 1
                aim(s, lambda: raw_connect(s.fileno(), sa))
                s.close()


def lengths():
    """Every length of sockaddr, on a socket whose connection failed and on a fresh one."""
    for family, sa in aims():
        s = made(refused, family)
        for length in range(-1, 131):
            aim(s, lambda: raw_connect(s.fileno(), sa + bytes(131), length))
            if length % 33 == 0 or not is_host(s):
                s.close()
                s = made(refused, family)
        s.close()
    for address in ("127.0.0.1", "::1"):
        for length in range(-1, 131):
            s = socket.socket(family_of(address))
            s.setblocking(False)
            note(s, raw_connect(s.fileno(), sockaddr(address, PORT) + bytes(131), length))
            if is_host(s) and not CONTROL:
                seen["! SWITCHED"] += 1
            s.close()


def families():
    """Address families that do not fit the socket."""
    for family, sa in aims():
        for other in (0, 1, 2, 10, 16, 17, 43, 0xFFFF):
            s = made(refused, family)
            aim(s, lambda: raw_connect(s.fileno(), struct.pack("=H", other) + sa[2:]))
            s.close()
            s = made(refused, socket.AF_INET if family == socket.AF_INET6 else socket.AF_INET6)
            aim(s, lambda: raw_connect(s.fileno(), struct.pack("=H", other) + sa[2:]))
            s.close()


# ---- the system calls of 32-bit programs, by int 0x80 from a page below 4 GiB


class Int80:
    CODE = bytes.fromhex(
        "53 55 49 89 f8 41 8b 00 41 8b 58 04 41 8b 48 08 41 8b 50 0c 41 8b 70 10 41 8b 78 14 41 8b 68 18 cd 80 5d 5b 48 98 c3"
    )

    def __init__(self):
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        low = 0x40  # MAP_32BIT
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low
        self.page = libc.mmap(None, 8192, 7, flags, -1, 0)
        ctypes.memmove(self.page, self.CODE, len(self.CODE))
        self.memory = self.page + 4096
        self.at = self.memory
        self.function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self.page)

    def put(self, data):
        at = self.at
        ctypes.memmove(at, data, len(data))
        self.at += (len(data) + 15) & ~15
        return at

    def call(self, number, *args):
        words = (ctypes.c_uint32 * 7)(number, *[a & 0xFFFFFFFF for a in args])
        done = self.function(ctypes.addressof(words))
        self.at = self.memory
        return 0 if done >= 0 else -done

    @staticmethod
    def works():
        if platform.machine() != "x86_64":
            return False
        pid = os.fork()
        if pid == 0:
            os._exit(0 if Int80().call(20) == 0 else 1)
        return os.waitpid(pid, 0)[1] == 0


def int80():
    if not Int80.works():
        seen["no 32-bit system calls here"] += 1
        return
    cpu = Int80()

    def packed(*words):
        return struct.pack("=%dI" % len(words), *[w & 0xFFFFFFFF for w in words])

    def header(sa):
        data = cpu.put(b"GET / HTTP/1.0\r\n\r\n")
        vector = cpu.put(packed(data, 18))
        return packed(cpu.put(sa), len(sa), vector, 1, 0, 0, 0)

    calls = {
        "connect": lambda fd, sa: cpu.call(362, fd, cpu.put(sa), len(sa)),
        "socketcall connect": lambda fd, sa: cpu.call(102, 3, cpu.put(packed(fd, cpu.put(sa), len(sa)))),
        "sendto": lambda fd, sa: cpu.call(369, fd, cpu.put(b"GET"), 3, MSG_FASTOPEN, cpu.put(sa), len(sa)),
        "sendmsg": lambda fd, sa: cpu.call(370, fd, cpu.put(header(sa)), MSG_FASTOPEN),
        "sendmmsg": lambda fd, sa: cpu.call(345, fd, cpu.put(header(sa) + bytes(4)), 1, MSG_FASTOPEN),
        "socketcall sendto": lambda fd, sa: cpu.call(
            102, 11, cpu.put(packed(fd, cpu.put(b"GET"), 3, MSG_FASTOPEN, cpu.put(sa), len(sa)))
        ),
        "socketcall sendmsg": lambda fd, sa: cpu.call(102, 16, cpu.put(packed(fd, cpu.put(header(sa)), MSG_FASTOPEN))),
        "socketcall sendmmsg": lambda fd, sa: cpu.call(
            102, 20, cpu.put(packed(fd, cpu.put(header(sa) + bytes(4)), 1, MSG_FASTOPEN))
        ),
    }
    for what, call in calls.items():
        for kind in (refused, disconnected):
            for family, sa in aims():
                s = made(kind, family)
                aim(s, lambda: call(s.fileno(), sa), what + ": ")
                s.close()
    # io_uring_setup has one number in both tables.
    seen["io_uring_setup: " + name_of(cpu.call(425, 8, cpu.put(bytes(120))))] += 1


def x32():
    """The numbers of the x32 table."""
    if platform.machine() != "x86_64":
        return
    for family, sa in aims():
        for number in (42, 44, 46, 307, 519, 518, 538):
            s = made(refused, family)
            buffer = ctypes.create_string_buffer(sa, 64)
            arguments = (b"GET", 3, MSG_FASTOPEN, buffer, len(sa)) if number == 44 else (buffer, len(sa))

            def call():
                done = libc.syscall(0x40000000 | number, s.fileno(), *arguments)
                return 0 if done >= 0 else ctypes.get_errno()

            aim(s, call, "%d: " % number)
            s.close()


def io_uring():
    """io_uring has connect, bind, listen and send without a system call for each."""
    params = ctypes.create_string_buffer(120)
    done = libc.syscall(425, 8, params)
    seen["! ALLOWED" if done >= 0 else name_of(ctypes.get_errno())] += 1


def fastopen():
    """TCP Fast Open connects in sendto(), sendmsg() and sendmmsg(), and after connect() with an option."""

    def sendmsg(fd, sa, many):
        data = ctypes.create_string_buffer(b"GET / HTTP/1.0\r\n\r\n")
        address = ctypes.create_string_buffer(sa, len(sa))
        vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), 18), 16)
        fields = (ctypes.addressof(address), len(sa), ctypes.addressof(vector), 1, 0, 0, 0)
        header = ctypes.create_string_buffer(struct.pack("=QIxxxxQQQQI4x", *fields) + bytes(8), 64)
        call = (lambda: libc.sendmmsg(fd, header, 1, MSG_FASTOPEN)) if many else (
            lambda: libc.sendmsg(fd, header, MSG_FASTOPEN)
        )
        return 0 if call() >= 0 else ctypes.get_errno()

    def sendto(fd, sa, flags=MSG_FASTOPEN):
        return 0 if libc.sendto(fd, b"GET", 3, flags, sa, len(sa)) >= 0 else ctypes.get_errno()

    def by_option(fd, sa):
        one = ctypes.c_int(1)
        libc.setsockopt(fd, socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, ctypes.byref(one), 4)
        code = raw_connect(fd, sa)
        libc.send(fd, b"GET", 3, 0x4000)
        return code

    ways = {
        "sendto": sendto,
        "sendto with more flags": lambda fd, sa: sendto(fd, sa, MSG_FASTOPEN | 0x4000 | 0x8000),
        "sendto without it": lambda fd, sa: sendto(fd, sa, 0x4000),
        "sendmsg": lambda fd, sa: sendmsg(fd, sa, False),
        "sendmmsg": lambda fd, sa: sendmsg(fd, sa, True),
        "TCP_FASTOPEN_CONNECT": by_option,
    }
    for what, way in ways.items():
        for kind in (refused, disconnected):
            for family, sa in aims():
                s = made(kind, family)
                aim(s, lambda: way(s.fileno(), sa), what + ": ")
                s.close()
        for address in ("127.0.0.1", "0.0.0.0", "::1", "::"):
            s = socket.socket(family_of(address))
            s.setblocking(False)
            note(s, way(s.fileno(), sockaddr(address, PORT)), "fresh, %s: " % what)
            s.close()


# ---- races


def inside_sockets():
    yield "tcp", lambda: socket.socket()
    yield "udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    yield "unix", lambda: socket.socket(socket.AF_UNIX)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
        yield "mptcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        pass
    # A number under which nothing is open when the call is judged.
    yield "nothing", lambda: socket.socket()


def dup_race():
    """
    While connect(), bind() or listen() on a socket of the container is being judged, another thread puts a socket of
    the host in its place.
    """
    sys.setswitchinterval(1e-5)
    state = {"host": -1, "number": -1, "spin": 0, "stop": False}
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def swapper():
        while True:
            go.acquire()
            if state["stop"]:
                return
            for _ in range(state["spin"]):
                pass
            libc.dup2(state["host"], state["number"])
            done.release()

    thread = threading.Thread(target=swapper)
    thread.start()
    targets = [sockaddr(t, PORT) for t in TARGETS if ":" not in t]
    free = sockaddr("0.0.0.0", config["squat"])
    operations = {
        "connect": lambda fd: raw_connect(fd, random.choice(targets)),
        "bind": lambda fd: raw_bind(fd, free),
        "bind to AF_UNSPEC": lambda fd: raw_bind(fd, sockaddr("0.0.0.0", config["squat"], family=0)),
        "listen": raw_listen,
    }
    plans = [(o, i) for o in operations.items() for i in inside_sockets()]
    host = made(disconnected, socket.AF_INET)
    port = host.getsockname()[1]
    for (what, operation), (kind, make) in plans:
        longest = 400
        for _ in range(max(1, config["races"] // len(plans))):
            s = make()
            s.setblocking(False)
            if kind == "nothing":
                os.close(s.fileno())
            state.update(host=host.fileno(), number=s.fileno(), spin=int(10 ** random.uniform(0.5, 3.5)))
            go.release()
            code = operation(s.fileno())
            done.acquire()
            seen["%s as %s: %s" % (what, kind, name_of(code))] += 1
            # The number is now the host's socket.
            now = socket.socket(fileno=os.dup(s.fileno()))
            changed = now.getsockname()[1] != port
            if now.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                seen["! LISTENS: %s as %s" % (what, kind)] += 1
                changed = True
            elif changed and what != "connect":
                seen["! BOUND: %s as %s" % (what, kind)] += 1
            now.close()
            s.close()
            if changed or not is_host(host):
                host.close()
                host = made(disconnected, socket.AF_INET)
                port = host.getsockname()[1]
                if not CONTROL and not is_host(host):
                    seen["! no socket of the host"] += 1
    state["stop"] = True
    go.release()
    thread.join()


def memory_race():
    """Another process, in shared memory, changes the address while connect() is being judged."""
    for address in TARGETS:
        family = family_of(address)
        good = sockaddr(config["peers"][family == socket.AF_INET6], config["echo"])
        bad = sockaddr(address, PORT)
        shared = mmap.mmap(-1, 4096)
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                for _ in range(1000):
                    shared[0 : len(bad)] = bad
                    shared[0 : len(good)] = good
                shared[4000] = 1
            os._exit(0)
        while shared[4000] == 0:
            time.sleep(0.0005)
        buffer = ctypes.addressof(ctypes.c_char.from_buffer(shared))
        kept = made(refused, family)
        tries = max(1, config["races"] // 20 // len(TARGETS))
        # Without a supervisor the calls take so little time that the other process may not run in it.
        end = time.monotonic() + (0.08 if CONTROL else 0)
        i = 0
        while i < tries or time.monotonic() < end:
            i += 1
            s = kept if i % 4 == 0 else socket.socket(family)
            s.setblocking(False)
            code = libc.connect(s.fileno(), ctypes.c_void_p(buffer), len(good))
            code = 0 if code == 0 else ctypes.get_errno()
            if code == errno.EINPROGRESS:
                select.select([], [s], [], patience_s)
            seen["tries"] += 1
            if s is not kept:
                s.close()
            elif not is_host(kept) or code != errno.ECONNABORTED:
                kept.close()
                kept = made(refused, family)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kept.close()


# ---- other processes


def aim_all(make, what):
    for family, sa in aims():
        s = make(family)
        s.setblocking(False)
        aim(s, lambda: raw_connect(s.fileno(), sa), what)
        s.close()


def in_child(make):
    """Runs aim_all() in a child process; its outcomes come by a pipe."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            seen.clear()
            make()
        except BaseException as e:
            seen["! CHILD: %r" % e] += 1
        finally:
            os.write(writes, json.dumps(seen).encode())
            os._exit(0)
    os.close(writes)
    text = b""
    while part := os.read(reads, 65536):
        text += part
    os.close(reads)
    os.waitpid(pid, 0)
    seen.update(json.loads(text or b'{"! CHILD FAILED": 1}'))


def processes():
    """The socket of the host in a child (fork, vfork, execve), in another thread, and sent by SCM_RIGHTS."""
    sockets = {(f, i): made(refused, f) for i, (f, _) in enumerate(aims())}
    in_child(lambda: aim_all(lambda family: made(refused, family), "made in a child: "))
    for i, (family, sa) in enumerate(aims()):
        s = sockets[family, i]
        in_child(lambda: aim(s, lambda: raw_connect(s.fileno(), sa), "fork: "))
    threads = [threading.Thread(target=lambda: aim_all(lambda f: made(refused, f), "thread: ")) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()

    # vfork: a child that shares the memory, on a stack of its own, while this thread is suspended.
    stack = mmap.mmap(-1, 1 << 20)
    top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20) - 64
    libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    for family, sa in aims():
        s = made(refused, family)
        codes = []

        def child(_):
            codes.append(raw_connect(s.fileno(), sa))
            codes.append(raw_connect(s.fileno(), sa))
            return 0

        function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(child)
        pid = libc.clone(ctypes.cast(function, ctypes.c_void_p), top, 0x100 | 0x4000 | signal.SIGCHLD, None)
        os.waitpid(pid, 0)
        if not codes:
            seen["! VFORK FAILED"] += 1
        else:
            note(s, codes[1], "vfork: ")
        s.close()

    # execve: the program is this one again, which finds the sockets by their numbers.
    kept = [(made(refused, family), sa) for family, sa in aims()]
    text = json.dumps([[s.fileno(), s.family, sa.hex()] for s, sa in kept])
    numbers = [s.fileno() for s, _ in kept]
    done = subprocess.run(
        [sys.executable, __file__, sys.argv[1], "inherited", text], pass_fds=numbers, capture_output=True, text=True
    )
    seen["execve: " + (done.stdout.strip() or done.stderr[-300:])] += 1

    # SCM_RIGHTS, to a process that has never had a socket of its own.
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    kept = [(made(refused, family), sa) for family, sa in aims()]
    socket.send_fds(ours, [b"x"], [s.fileno() for s, _ in kept])
    socks = []

    def receive():
        _, fds, _, _ = socket.recv_fds(theirs, 1, 64)
        for fd, (old, sa) in zip(fds, kept):
            s = socket.socket(old.family, old.type, fileno=fd)
            socks.append(s)
            aim(s, lambda: raw_connect(fd, sa), "SCM_RIGHTS: ")

    in_child(receive)


def inherited():
    for fd, family, sa in json.loads(sys.argv[3]):
        s = socket.socket(family, socket.SOCK_STREAM, fileno=fd)
        aim(s, lambda: raw_connect(fd, bytes.fromhex(sa)))


def give():
    """Gives sockets of the host to a process outside the filter, which listens on DIRECTORY/give."""
    way = socket.socket(socket.AF_UNIX)
    way.connect(config["directory"] + "/give")
    kept = [made(refused, family_of(t)) for t in TARGETS]
    socket.send_fds(way, [b"x"], [s.fileno() for s in kept])
    way.recv(1)


def take():
    """The other end of give(), which runs without the filter and without the Landlock domain."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(config["directory"] + "/give")
    listener.listen()
    print("listening", flush=True)
    way, _ = listener.accept()
    _, fds, _, _ = socket.recv_fds(way, 1, 64)
    for fd, target in zip(fds, TARGETS):
        s = socket.socket(family_of(target), socket.SOCK_STREAM, fileno=fd)
        s.setblocking(False)
        global host_sockets
        host_sockets += is_host(s)
        aim(s, lambda: raw_connect(fd, sockaddr(target, PORT)), target + ": ")
    way.send(b"x")


def namespaces():
    """A network namespace within: its connections stay there, also those that its sockets make when passed out."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)

    def nested():
        if libc.unshare(0x40000000) != 0:
            seen["! UNSHARE FAILED"] += 1
            return
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for peer in config["peers"]:
            subprocess.run(["ip", "addr", "add", peer, "dev", "lo"], check=True)
        listener = socket.socket(socket.AF_INET6)
        listener.bind(("::", config["echo"]))
        listener.listen()
        time.sleep(0.05)
        for peer in config["peers"]:
            s = socket.socket(family_of(peer))
            s.settimeout(1)
            s.connect((peer, config["echo"]))
            listener.settimeout(2)
            answered, _ = listener.accept()
            answered.send(b"nested")
            seen["nested: " + s.recv(10).decode()] += 1
        own = cookie(socket.socket())
        # No route leads out of it.
        s = socket.socket()
        s.settimeout(1)
        seen["out: " + name_of(s.connect_ex(("10.77.0.77", PORT)))] += 1
        if cookie(s) != own:
            seen["! SWITCHED"] += 1
        given = socket.socket()
        socket.send_fds(ours, [b"x"], [given.fileno()])
        aim_all(lambda family: held[family].dup(), "from within: ")
        ours.recv(1)

    held = {f: made(refused, f) for f in (socket.AF_INET, socket.AF_INET6)}
    held = collections.defaultdict(lambda: None, held)
    thread = threading.Thread(target=lambda: in_child(nested))
    thread.start()
    theirs.settimeout(5)
    _, fds, _, _ = socket.recv_fds(theirs, 1, 4)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fds[0])
    nested_cookie = cookie(s)
    s.settimeout(1)
    # The nested namespace has this address, and the server of it is of another program.
    code = s.connect_ex((config["peers"][0], config["echo"]))
    seen["passed out: " + name_of(code)] += 1
    if cookie(s) != nested_cookie:
        seen["! SWITCHED"] += 1
    theirs.send(b"x")
    thread.join()


def wait_for(name):
    """Says that it is ready, waits for the file DIRECTORY/NAME."""
    print("ready for " + name, flush=True)
    end = time.monotonic() + 10
    while not os.path.exists(config["directory"] + "/" + name):
        if time.monotonic() > end:
            seen["! NOBODY CAME"] += 1
            return
        time.sleep(0.005)


def squat():
    """Ports of the host: bind() and listen() on its sockets. They stay open while others look."""
    kept = []
    for kind in KINDS:
        for address in ("0.0.0.0", "127.0.0.1", config["own"][0], "::", "::1", config["own"][1]):
            for reuse in (0, 1):
                s = made(kind, family_of(address))
                kept.append(s)
                for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                    s.setsockopt(socket.SOL_SOCKET, option, reuse)
                for sa in (sockaddr(address, config["squat"]), sockaddr(address, config["squat"], family=0)):
                    seen["bind: " + name_of(raw_bind(s.fileno(), sa))] += 1
                seen["listen: " + name_of(raw_listen(s.fileno()))] += 1
                if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    seen["! LISTENS"] += 1
        for family in (socket.AF_INET, socket.AF_INET6):
            s = made(kind, family)
            kept.append(s)
            seen["listen alone: " + name_of(raw_listen(s.fileno()))] += 1
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                seen["! LISTENS"] += 1
    if Int80.works():
        cpu = Int80()
        for what, call in (
            ("bind", lambda fd, sa: cpu.call(361, fd, cpu.put(sa), 16)),
            ("socketcall bind", lambda fd, sa: cpu.call(102, 2, cpu.put(struct.pack("=3I", fd, cpu.put(sa), 16)))),
            ("listen", lambda fd, sa: cpu.call(363, fd, 5)),
            ("socketcall listen", lambda fd, sa: cpu.call(102, 4, cpu.put(struct.pack("=2I", fd, 5)))),
        ):
            s = made(refused, socket.AF_INET)
            kept.append(s)
            seen["int 0x80 %s: %s" % (what, name_of(call(s.fileno(), sockaddr("0.0.0.0", config["squat"]))))] += 1
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                seen["! LISTENS"] += 1
    wait_for("looked")


def options():
    """All socket options with several values on a socket of the host; then it is aimed anew."""
    global patience_s
    patience_s = 0.002  # the canaries see what comes later
    values = [struct.pack("=i", v) for v in (0, 1, -1)] + [b"lo\0", b"\0", b"smc\0", bytes(16), struct.pack("=ii", 1, 0)]
    source_route = bytes([137, 7, 4, 127, 0, 0, 1, 0])
    targets = list(aims())
    bound = {}
    for level in (0, 1, 6, 17, 41, 132, 255, 263, 282, 284, 286):
        for option in range(0, 90 if level in (0, 1, 6, 41) else 20):
            s = made(refused, socket.AF_INET6 if level == 41 else socket.AF_INET)
            before = s.getsockopt(socket.SOL_SOCKET, 25, 16)
            for value in values + ([source_route] if level == 0 else []):
                try:
                    s.setsockopt(level, option, value)
                    seen["allowed"] += 1
                except OSError:
                    seen["refused"] += 1
            if s.getsockopt(socket.SOL_SOCKET, 25, 16) != before and not CONTROL:
                seen["! DEVICE CHANGED by %d %d" % (level, option)] += 1
            s.setblocking(False)
            for family, sa in targets:
                if family == s.family:
                    aim(s, lambda: raw_connect(s.fileno(), sa))
                    raw_connect(s.fileno(), bytes(16))
            s.close()
    named = {
        "unbind device": (1, 25, b""),
        "bind to lo": (1, 25, b"lo\0"),
        "SO_BINDTOIFINDEX 0": (1, 62, struct.pack("=i", 0)),
        "SO_BINDTOIFINDEX 1": (1, 62, struct.pack("=i", 1)),
        "SO_MARK": (1, 36, struct.pack("=i", 5)),
        "IP_TRANSPARENT": (0, 19, struct.pack("=i", 1)),
        "TCP_REPAIR": (6, 19, struct.pack("=i", 1)),
    }
    for what, arguments in named.items():
        s = made(refused, socket.AF_INET)
        try:
            s.setsockopt(*arguments)
            seen["! ALLOWED: " + what] += 1
        except OSError as e:
            seen["%s: %s" % (what, name_of(e.errno))] += 1
        s.close()


def ioctls():
    """Requests by which a socket would give more of its namespace than itself."""
    s = made(refused, socket.AF_INET)
    try:
        number = fcntl.ioctl(s, 0x894C)  # SIOCGSKNS: a descriptor of its network namespace
        seen["! SIOCGSKNS"] += 1
        seen["setns: " + name_of(0 if libc.setns(number, 0x40000000) == 0 else ctypes.get_errno())] += 1
    except OSError as e:
        seen["SIOCGSKNS: " + name_of(e.errno)] += 1
    request = b"veth0".ljust(16, b"\0") + bytes(24)
    for what, number in {
        "SIOCSIFFLAGS": 0x8914,
        "SIOCSIFADDR": 0x8916,
        "SIOCSIFNAME": 0x8923,
        "SIOCSIFMTU": 0x8922,
        "SIOCADDRT": 0x890B,
        "SIOCSARP": 0x8955,
        "SIOCBRADDBR": 0x89A0,
        "SIOCETHTOOL": 0x8946,
    }.items():
        try:
            fcntl.ioctl(s, number, request)
            seen["! " + what] += 1
        except OSError as e:
            seen["%s: %s" % (what, name_of(e.errno))] += 1


def own_listener():
    """A seccomp listener of the program's own would be asked before ours, and may let any call continue."""
    libc.prctl(38, 1, 0, 0, 0)
    # connect -> user notification, all else allowed
    number = {"x86_64": 42, "aarch64": 203}.get(platform.machine(), 42)
    program = b"".join(
        struct.pack("=HBBI", *i)
        for i in ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x7FC00000), (0x06, 0, 0, 0x7FFF0000))
    )
    code = ctypes.create_string_buffer(program)
    fprog = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 4, ctypes.addressof(code)), 16)
    seccomp = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), 317)

    def child():
        fd = libc.syscall(seccomp, 1, 8, fprog)
        seen["! LISTENER ALLOWED" if fd >= 0 else name_of(ctypes.get_errno())] += 1

    in_child(child)


def later():
    """Addresses that become the host's while sockets live; TARGETS are those."""
    kept = [(made(kind, family), sa) for kind in KINDS for family, sa in aims()]
    # Connections that are under way to those addresses, at which nobody is yet.
    pending = []
    for family, sa in aims():
        s = socket.socket(family)
        s.setblocking(False)
        raw_connect(s.fileno(), sa)
        pending.append(s)
        seen["pending, the host's: %s" % is_host(s)] += 1
    wait_for("addresses")
    time.sleep(1.2)  # the first repetition of a SYN
    for s in pending:
        seen["pending: " + ("writable" if select.select([], [s], [], 0)[1] else "not yet")] += 1
    for s, sa in kept:
        aim(s, lambda: raw_connect(s.fileno(), sa))


def fresh():
    """Fresh sockets to addresses that are the host's since a moment ago."""
    for family, sa in aims():
        for _ in range(3):
            s = socket.socket(family)
            s.setblocking(False)
            note(s, raw_connect(s.fileno(), sa))
            if is_host(s) and not CONTROL:
                seen["! SWITCHED"] += 1
            s.close()


for wanted in sys.argv[2:]:
    if wanted.startswith("["):
        continue
    host_sockets = 0
    seen.clear()
    began = time.monotonic()
    try:
        globals()[wanted]()
    except Exception as e:  # an attack that cannot be carried out must be seen
        seen["! FAILED: %s line %d" % (repr(e), e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next else 0)] += 1
    ms = round((time.monotonic() - began) * 1000)
    if wanted == "inherited":
        print(json.dumps(seen))
    else:
        print(json.dumps({"attack": wanted, "host": host_sockets, "seen": seen, "ms": ms}), flush=True)
