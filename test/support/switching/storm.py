# storm.py PEER4 PEER6 NOBODY N: N connections of all fates by several processes: answered, refused, interrupted by a
# signal, timed out, and of programs that are killed meanwhile. Prints how many of each there were, as JSON.
# NOBODY answers nothing.
import collections
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time

peers, nobody, total = sys.argv[1:3], sys.argv[3], int(sys.argv[4])
CLOSE, CLOSED = 9002, 9999
PROCESSES = 4
KILLED = max(8, total // 100)


armed = False


class Interrupted(Exception):
    pass


def interrupt(*_):
    if armed:
        raise Interrupted


def one(i):
    global armed
    six = i & 1
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
    try:
        fate = i % 10
        if fate == 9 and i % 50 == 9:
            s = socket.socket()
            armed = True
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003)
                s.connect((nobody, 80))
                return "WRONG"
            except Interrupted:
                return "interrupted"
            finally:
                armed = False
        if fate == 8 and i % 50 == 8:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 2000))
            s.connect((nobody, 80))
            return "WRONG"
        if fate in (6, 7):
            s.setblocking(False)
            code = s.connect_ex((peers[six], CLOSE if fate == 6 else CLOSED))
            if code == errno.EINPROGRESS:
                select.select([], [s], [], 5)
                code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return "answered" if code == 0 else errno.errorcode[code]
        s.connect((peers[six], CLOSED if fate == 5 else CLOSE))
        return "answered"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
    finally:
        s.close()


children = []
for p in range(PROCESSES):
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, interrupt)
        fates = collections.Counter(one(i) for i in range(p, total, PROCESSES))
        os.write(writes, json.dumps(fates).encode())
        os._exit(0)
    os.close(writes)
    children.append((pid, reads))
for k in range(KILLED):
    pid = os.fork()
    if pid == 0:
        while True:
            s = socket.socket()
            s.connect((nobody if k % 2 else peers[0], 80 if k % 2 else CLOSE))
            s.close()
    time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
fates = collections.Counter(killed=KILLED)
for pid, reads in children:
    text = b""
    while part := os.read(reads, 65536):
        text += part
    os.waitpid(pid, 0)
    fates.update(json.loads(text))
print(json.dumps(fates))
