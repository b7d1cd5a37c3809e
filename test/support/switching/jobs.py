# jobs.py: the COMMAND of a test. Reads jobs as lines of JSON, runs several at a time, and prints events as lines:
#   in    {"id": N, "argv": [...], "input": TEXT}    start a program; its standard input is TEXT
#         {"id": N, "kill": SIGNAL}                  send a signal to its process group
#   out   {"id": N, "out" | "err": TEXT}, {"id": N, "status": STATUS}   (128 + N after signal N)
# Ends when its standard input ends. Programs that a test enters by nsenter would have neither our filter nor our
# Landlock domain; the children of COMMAND have both.
import json
import os
import subprocess
import sys
import threading

lock = threading.Lock()
running = {}


def say(**event):
    with lock:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def forward(job, name, stream):
    while True:
        data = os.read(stream.fileno(), 65536)
        if not data:
            return
        say(**{"id": job, name: data.decode("utf-8", "replace")})


def serve(job, argv, text):
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as e:
        say(id=job, err=str(e))
        say(id=job, status=127)
        return
    running[job] = child
    readers = [
        threading.Thread(target=forward, args=(job, name, stream))
        for name, stream in (("out", child.stdout), ("err", child.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        child.stdin.write(text.encode())
        child.stdin.close()
    except OSError:
        pass
    status = child.wait()
    for reader in readers:
        reader.join()
    say(id=job, status=status if status >= 0 else 128 - status)


print('{"ready": true}', flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "kill" in request:
        try:
            os.killpg(running[request["id"]].pid, request["kill"])
        except (KeyError, ProcessLookupError):
            pass
    else:
        thread = threading.Thread(
            target=serve, args=(request["id"], request["argv"], request.get("input", "")), daemon=True
        )
        thread.start()
os._exit(0)
